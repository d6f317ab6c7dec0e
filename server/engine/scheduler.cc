#include "engine/scheduler.h"

#include <algorithm>
#include <iterator>

#include "base/check.h"

namespace valuescope::engine {
namespace {

// Admissions of the foreground for one of the background while both wait.
constexpr int kForegroundTurns = 3;
// Prompt tokens that a client gets at a time: small beside a step, so that many share it, and
// enough for a product to be worth its start.
constexpr int64_t kPromptQuantum = 64;

}  // namespace

Scheduler::Scheduler(SchedulerOptions options) : options_(options) {
  for (int64_t block = options_.num_blocks - 1; block >= 0; --block) free_blocks_.push_back(block);
}

int64_t Scheduler::BlocksFor(int64_t tokens) const {
  return (tokens + options_.block_size - 1) / options_.block_size;
}

bool Scheduler::CanEverFit(int64_t max_fed) const {
  return BlocksFor(max_fed) <= options_.num_blocks;
}

void Scheduler::Queue::Add(ClientId client, Waiting waiting) {
  const auto found = std::find_if(clients_.begin(), clients_.end(),
                                  [&](const auto& each) { return each.first == client; });
  if (found != clients_.end()) {
    found->second.push_back(waiting);
  } else {
    clients_.push_back({client, {waiting}});
  }
}

void Scheduler::Queue::PopFront() {
  auto turn = std::move(clients_.front());
  clients_.pop_front();
  turn.second.pop_front();
  if (!turn.second.empty()) clients_.push_back(std::move(turn));
}

void Scheduler::Queue::Remove(SequenceId id) {
  for (auto& [client, waiting] : clients_) {
    std::erase_if(waiting, [id](const Waiting& each) { return each.id == id; });
  }
  std::erase_if(clients_, [](const auto& each) { return each.second.empty(); });
}

int64_t Scheduler::Queue::size() const {
  int64_t size = 0;
  for (const auto& [client, waiting] : clients_) size += static_cast<int64_t>(waiting.size());
  return size;
}

void Scheduler::Add(SequenceId id, int64_t known, int64_t max_fed, bool background,
                    ClientId client) {
  VS_CHECK(known <= max_fed && CanEverFit(max_fed));
  (background ? background_ : foreground_)
      .Add(client, {.id = id, .known = known, .max_fed = max_fed});
}

Scheduler::Queue* Scheduler::NextQueue() {
  if (foreground_.empty()) return background_.empty() ? nullptr : &background_;
  if (!background_.empty() && foreground_turns_ >= kForegroundTurns) return &background_;
  return &foreground_;
}

void Scheduler::Admit() {
  while (num_running() < options_.max_batch_rows) {
    Queue* queue = NextQueue();
    if (queue == nullptr) return;
    const Waiting next = queue->front();
    const int64_t needed = BlocksFor(next.max_fed);
    // The head waits for its blocks; letting smaller ones pass could make it wait forever.
    if (needed > static_cast<int64_t>(free_blocks_.size())) return;
    Running running{.fed = 0,
                    .known = next.known,
                    .background = queue == &background_,
                    .client = queue->front_client(),
                    .blocks = {}};
    queue->PopFront();
    foreground_turns_ = queue == &foreground_ ? foreground_turns_ + 1 : 0;
    running.blocks.assign(free_blocks_.rbegin(), free_blocks_.rbegin() + needed);
    free_blocks_.resize(free_blocks_.size() - static_cast<size_t>(needed));
    running_.emplace(next.id, std::move(running));
  }
}

std::vector<StepItem> Scheduler::Plan() {
  Admit();
  PlanPrompts(PlanDecoding());
  std::vector<StepItem> step;
  for (const bool decoding : {true, false}) {
    for (auto& [id, sequence] : running_) {
      if (sequence.planned == 0 || (sequence.known - sequence.fed == 1) != decoding) continue;
      VS_CHECK(BlocksFor(sequence.fed + sequence.planned) <=
               static_cast<int64_t>(sequence.blocks.size()));
      step.push_back({.id = id, .first = sequence.fed, .count = sequence.planned});
    }
  }
  return step;
}

// Every sequence that lags by one token runs it. Returns what is left of the budget.
int64_t Scheduler::PlanDecoding() {
  int64_t budget = options_.max_step_tokens;
  for (auto& [id, sequence] : running_) {
    sequence.planned = sequence.known - sequence.fed == 1 && budget > 0 ? 1 : 0;
    budget -= sequence.planned;
  }
  return budget;
}

void Scheduler::PlanPrompts(int64_t budget) {
  const bool background_lags = std::any_of(running_.begin(), running_.end(), [](const auto& each) {
    return each.second.background && each.second.known - each.second.fed > each.second.planned;
  });
  const int64_t reserved = background_lags ? budget / 4 : 0;
  budget = reserved + ShareAmongClients(/*background=*/false, budget - reserved);
  budget = ShareAmongClients(/*background=*/true, budget);
  ShareAmongClients(/*background=*/false, budget);  // what the background did not need
}

// Hands out prompt tokens in rounds: each client's oldest lagging sequence gets a quantum a round.
// The client after the one that began the last step begins. Returns what nobody needed.
int64_t Scheduler::ShareAmongClients(bool background, int64_t budget) {
  std::map<ClientId, std::vector<Running*>> lagging;  // a client's in order of age
  for (auto& [id, sequence] : running_) {
    if (sequence.background != background) continue;
    if (sequence.known - sequence.fed > sequence.planned)
      lagging[sequence.client].push_back(&sequence);
  }
  if (lagging.empty() || budget == 0) return budget;
  auto turn = lagging.upper_bound(last_served_[background]);
  if (turn == lagging.end()) turn = lagging.begin();
  last_served_[background] = turn->first;
  while (budget > 0 && !lagging.empty()) {
    Running& sequence = *turn->second.front();
    const int64_t lag = sequence.known - sequence.fed - sequence.planned;
    const int64_t count = std::min({lag, budget, kPromptQuantum});
    sequence.planned += count;
    budget -= count;
    if (count == lag) turn->second.erase(turn->second.begin());
    turn = turn->second.empty() ? lagging.erase(turn) : std::next(turn);
    if (turn == lagging.end()) turn = lagging.begin();
  }
  return budget;
}

void Scheduler::Advance(SequenceId id, int64_t fed, int64_t known) {
  Running& sequence = running_.at(id);
  VS_CHECK(fed <= known && BlocksFor(fed) <= static_cast<int64_t>(sequence.blocks.size()));
  sequence.fed = fed;
  sequence.known = known;
}

void Scheduler::Remove(SequenceId id) {
  if (const auto found = running_.find(id); found != running_.end()) {
    free_blocks_.insert(free_blocks_.end(), found->second.blocks.begin(),
                        found->second.blocks.end());
    running_.erase(found);
    return;
  }
  foreground_.Remove(id);
  background_.Remove(id);
}

double Scheduler::used_ratio() const {
  if (options_.num_blocks == 0) return 0;
  return 1.0 - static_cast<double>(free_blocks_.size()) / static_cast<double>(options_.num_blocks);
}

}  // namespace valuescope::engine
