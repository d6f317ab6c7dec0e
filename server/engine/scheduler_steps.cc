// What a step runs of the sequences that were admitted: answers, then prompts, by turns and bounds.
#include <algorithm>
#include <deque>
#include <iterator>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "engine/scheduler.h"

namespace valuescope::engine {
namespace {

// Prompt tokens that a client gets at a time: small beside a step, so that many share it, and
// enough for a product to be worth its start.
constexpr int64_t kPromptQuantum = 64;
// Steps from one in which answers wait for a guest to the next: what they lose by it, which is how
// long a step without them takes at least, stays little beside what they run.
constexpr int kStepsBetweenGuests = 4;

}  // namespace

struct Scheduler::Prompts {
  using OfClients = std::map<ClientId, std::deque<Admitted*>>;  // a client's in order of age

  TenantShares::Tenant* tenant;
  OfClients lagging;
  std::optional<OfClients::iterator> turn = {};  // once it had a part of the step
  int64_t planned = 0;                           // tokens
};

std::vector<StepItem> Scheduler::Plan() {
  Reservations nothing;
  return Plan(nothing);
}

std::vector<StepItem> Scheduler::Plan(Reservations& reservations) {
  preempted_.clear();
  computed_.clear();
  for (auto& [id, sequence] : running_) TakeShared(sequence);
  BeginShares();
  Admit(reservations);
  for (auto& [id, sequence] : running_) {
    if (!sequence.ready) sequence.ready = !sequence.what.arrival.reserves || reservations.Ready(id);
  }
  if (!PlanGuests()) PlanPrompts(PlanDecoding());
  std::vector<StepItem> step;
  for (const bool decoding : {true, false}) {
    for (auto& [id, sequence] : running_) {
      if (sequence.planned == 0 || (sequence.lag() == 1) != decoding) continue;
      TakeOwn(sequence);
      step.push_back({.id = id, .first = sequence.fed, .count = sequence.planned});
    }
  }
  return step;
}

// Plans a step of guests' prompts alone, where there are some, answers that would make the step
// long, and a while since the last such step. Each guest goes ahead of answers once.
bool Scheduler::PlanGuests() {
  ++steps_since_guests_;
  if (!guests_go_first_ || steps_since_guests_ <= kStepsBetweenGuests) return false;
  bool answers = false;
  for (auto& [id, sequence] : running_) {
    sequence.planned = 0;
    answers |= sequence.lag() == 1 && !sequence.guest;
  }
  if (!answers) return false;
  const int64_t budget = std::min(options_.max_step_tokens, most_beside_people_);
  if (ShareAmongTenants(Whose::kGuests, budget) == budget) return false;
  for (auto& [id, sequence] : running_) sequence.guest &= sequence.planned == 0;
  steps_since_guests_ = 0;
  return true;
}

// Every sequence that lags by one token runs it. Returns what is left of the budget.
int64_t Scheduler::PlanDecoding() {
  int64_t budget = options_.max_step_tokens;
  for (auto& [id, sequence] : running_) {
    sequence.planned = sequence.lag() == 1 && budget > 0 ? 1 : 0;
    budget -= sequence.planned;
  }
  return budget;
}

void Scheduler::PlanPrompts(int64_t budget) {
  budget = std::min(budget, MostPrompts());
  const bool background_lags = std::any_of(running_.begin(), running_.end(), [](const auto& each) {
    return each.second.background() && each.second.lag() > each.second.planned;
  });
  const int64_t reserved = background_lags ? budget / 4 : 0;
  budget = reserved + ShareAmongTenants(Whose::kPeoples, budget - reserved);
  const bool with_people = std::any_of(running_.begin(), running_.end(), [](const auto& each) {
    return !each.second.background() && each.second.planned > 0;
  });
  const int64_t bound = with_people ? std::min(budget, most_beside_people_) : budget;
  budget -= bound - ShareAmongTenants(Whose::kBackground, bound);
  ShareAmongTenants(Whose::kPeoples, budget);  // what the background did not need
}

int64_t Scheduler::MostPrompts() const {
  int64_t answers = 0;
  bool of_people = false;
  for (const auto& [id, sequence] : running_) {
    answers += sequence.planned;
    of_people |= sequence.planned > 0 && !sequence.background();
  }
  return of_people ? std::max(most_beside_people_, answers) : options_.max_step_tokens;
}

void Scheduler::BoundPrompts(int64_t tokens) {
  most_beside_people_ = std::max(tokens, std::min(kPromptQuantum, options_.max_step_tokens / 4));
}

// Takes the block that a sequence needs next as one that this step computes; false, and the
// sequence waits, where another one computes it already and this one may share it.
bool Scheduler::ClaimNextBlock(const Admitted& sequence) {
  const std::vector<BlockKey>& keys = sequence.what.arrival.keys;
  const auto next = static_cast<size_t>(sequence.fed / options_.block_size);
  if (sequence.planned > 0 || next >= keys.size()) return true;
  return computed_.insert(keys[next]).second || !BeginsShared(sequence);
}

std::vector<Scheduler::Prompts> Scheduler::LaggingPrompts(Whose whose) {
  std::vector<Prompts> all;
  for (auto& [id, sequence] : running_) {
    if (sequence.background() != (whose == Whose::kBackground)) continue;
    if (whose == Whose::kGuests && !sequence.guest) continue;
    if (sequence.lag() <= sequence.planned) continue;
    TenantShares::Tenant* const tenant = sequence.what.tenant;
    auto own = std::find_if(all.begin(), all.end(),
                            [&](const Prompts& each) { return each.tenant == tenant; });
    if (own == all.end()) own = all.insert(own, {.tenant = tenant, .lagging = {}});
    own->lagging[sequence.what.arrival.client].push_back(&sequence);
  }
  return all;
}

// Hands out prompt tokens, a quantum at a time, to the tenant whose turn it is. Returns what nobody
// needed.
int64_t Scheduler::ShareAmongTenants(Whose whose, int64_t budget) {
  std::vector<Prompts> all = LaggingPrompts(whose);
  if (budget == 0) return budget;
  // Whoever is in the middle of a block goes on, and others wait for it although their turn may
  // come first: it is at the head of its client, so its own turn comes too.
  for (const Prompts& own : all) {
    for (const auto& [client, sequences] : own.lagging) {
      if (!BeginsShared(*sequences.front())) ClaimNextBlock(*sequences.front());
    }
  }
  const TenantShares& shares = LineOf(whose == Whose::kBackground).shares();
  while (budget > 0 && !all.empty()) {
    const auto next = std::min_element(all.begin(), all.end(), [&](const auto& a, const auto& b) {
      return shares.IsBefore(*a.tenant, a.planned, *b.tenant, b.planned);
    });
    const int64_t left = ShareAmongClients(*next, budget);
    next->planned += budget - left;
    budget = left;
    if (next->lagging.empty()) all.erase(next);
  }
  return budget;
}

// Gives a quantum to the oldest lagging sequence of the client whose turn it is. The client after
// the one that began the last step begins. Returns what is left of the budget.
int64_t Scheduler::ShareAmongClients(Prompts& prompts, int64_t budget) {
  Prompts::OfClients& lagging = prompts.lagging;
  if (!prompts.turn) {
    prompts.turn = lagging.upper_bound(prompts.tenant->last_client);
    if (prompts.turn == lagging.end()) prompts.turn = lagging.begin();
    prompts.tenant->last_client = (*prompts.turn)->first;
  }
  auto& turn = *prompts.turn;
  std::deque<Admitted*>& sequences = turn->second;
  while (!sequences.empty() && !ClaimNextBlock(*sequences.front())) sequences.pop_front();
  if (!sequences.empty()) {
    Admitted& sequence = *sequences.front();
    const int64_t lag = sequence.lag() - sequence.planned;
    const int64_t count = std::min({lag, budget, kPromptQuantum});
    sequence.planned += count;
    budget -= count;
    if (count == lag) sequences.pop_front();
  }
  turn = sequences.empty() ? lagging.erase(turn) : std::next(turn);
  if (turn == lagging.end()) turn = lagging.begin();
  return budget;
}

}  // namespace valuescope::engine
