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

Scheduler::Scheduler(SchedulerOptions options)
    : options_(options),
      pool_(options.num_blocks),
      most_beside_people_(options.max_step_tokens / 4) {}

double Scheduler::RatioOf(int64_t blocks) const {
  if (options_.num_blocks == 0) return 0;
  return static_cast<double>(blocks) / static_cast<double>(options_.num_blocks);
}

// --- The queues
// ------------------------------------------------------------------------------------------

std::deque<Scheduler::Queue::Turn>::iterator Scheduler::Queue::Find(ClientId client) {
  return std::find_if(clients_.begin(), clients_.end(),
                      [&](const Turn& each) { return each.first == client; });
}

void Scheduler::Queue::Add(Waiting waiting) {
  const ClientId client = waiting.arrival.client;
  auto turn = Find(client);
  if (turn == clients_.end()) turn = clients_.insert(clients_.end(), {client, {}});
  turn->second.push_back(std::move(waiting));
  ++size_;
}

void Scheduler::Queue::PutBack(Waiting waiting) {
  Turn turn{waiting.arrival.client, {}};
  if (const auto found = Find(turn.first); found != clients_.end()) {
    turn.second = std::move(found->second);
    clients_.erase(found);
  }
  turn.second.push_front(std::move(waiting));
  clients_.push_front(std::move(turn));
  ++size_;
}

Scheduler::Waiting Scheduler::Queue::TakeFront() {
  --size_;
  if (!TriesAside()) return TakeTurn();
  Waiting front = std::move(aside_.front());
  aside_.pop_front();
  return front;
}

Scheduler::Waiting Scheduler::Queue::TakeTurn() {
  Turn turn = std::move(clients_.front());
  clients_.pop_front();
  Waiting front = std::move(turn.second.front());
  turn.second.pop_front();
  if (!turn.second.empty()) clients_.push_back(std::move(turn));
  return front;
}

void Scheduler::Queue::SetAside() {
  if (!TriesAside()) aside_.push_back(TakeTurn());
  aside_waits_ = true;
}

void Scheduler::Queue::Remove(SequenceId id) {
  const auto remove = [this, id](std::deque<Waiting>& waiting) {
    size_ -= static_cast<int64_t>(
        std::erase_if(waiting, [id](const Waiting& each) { return each.arrival.id == id; }));
  };
  remove(aside_);
  for (auto& [client, waiting] : clients_) remove(waiting);
  std::erase_if(clients_, [](const Turn& each) { return each.second.empty(); });
}

void Scheduler::Add(Arrival arrival) {
  VS_CHECK(arrival.known >= 1 && arrival.known <= arrival.max_fed &&
           options_.CanEverFit(arrival.max_fed));
  (arrival.background ? background_ : foreground_).Add({.arrival = std::move(arrival)});
}

// --- Admission
// -------------------------------------------------------------------------------------------

Scheduler::Queue* Scheduler::NextQueue() {
  if (foreground_.empty()) return background_.empty() ? nullptr : &background_;
  if (!background_.empty() && foreground_turns_ >= kForegroundTurns) return &background_;
  return &foreground_;
}

void Scheduler::Admit(Reservations& reservations) {
  foreground_.TryAside();
  background_.TryAside();
  for (Queue* queue = NextQueue(); queue != nullptr; queue = NextQueue()) {
    if (AdmitHead(*queue, reservations)) continue;
    // The head waits for its blocks; letting smaller ones pass could make it wait forever. A
    // person's head passes the background's where the background itself makes the room: that it can
    // do only as often as it has sequences that give way.
    if (foreground_.empty() || !MakeRoom()) return;
    VS_CHECK(AdmitHead(foreground_, reservations));
  }
}

// Admits the head or sets it aside; false where it has to wait for blocks or a row.
bool Scheduler::AdmitHead(Queue& queue, Reservations& reservations) {
  const Arrival& head = queue.front().arrival;
  // What a person waits for, the background leaves alone.
  if (head.reserves && (queue.aside_waits() || foreground_.aside_waits())) {
    queue.SetAside();
    return true;
  }
  if (!HasRoom(head, {})) return false;
  if (head.reserves && !reservations.Reserve(head.id)) {
    queue.SetAside();
    return true;
  }
  const bool in_turn = !foreground_.empty();
  Admitted admitted;
  admitted.what = queue.TakeFront();
  const bool background = admitted.what.arrival.background;
  foreground_turns_ = background ? 0 : foreground_turns_ + 1;
  admitted.keeps_place = !background || in_turn || admitted.what.preemptions >= kMostPreemptions;
  promised_ += BlocksFor(admitted.what.arrival.max_fed);
  const SequenceId id = admitted.what.arrival.id;
  TakeShared(running_.emplace(id, std::move(admitted)).first->second);
  return true;
}

// The first blocks of a sequence that it may have from others: all that end before a token that
// must run. The last known token always must, for what follows from it.
int64_t Scheduler::MostShared(const Arrival& arrival) const {
  const int64_t tokens = std::min(arrival.run_from, arrival.known - 1);
  return std::min(static_cast<int64_t>(arrival.keys.size()), tokens / options_.block_size);
}

// Blocks that an arrival would take of those that nobody holds, after a release. What others hold
// anyway costs nothing.
int64_t Scheduler::BlocksNeeded(const Arrival& arrival, const Release& release) const {
  int64_t needed = BlocksFor(arrival.max_fed);
  const int64_t most_shared = MostShared(arrival);
  for (int64_t i = 0; i < most_shared; ++i) {
    const std::optional<int64_t> block = pool_.Find(arrival.keys[static_cast<size_t>(i)]);
    if (!block) break;
    const auto released = release.holders.find(*block);
    const int64_t going = released == release.holders.end() ? 0 : released->second;
    if (pool_.holders(*block) > going) --needed;
  }
  return needed;
}

bool Scheduler::HasRoom(const Arrival& arrival, const Release& release) const {
  if (num_running() - static_cast<int64_t>(release.victims.size()) >= options_.max_batch_rows)
    return false;
  return BlocksNeeded(arrival, release) <= Unpromised() + release.blocks;
}

// --- Preemption
// ------------------------------------------------------------------------------------------

// Sends back just enough of the background for the foreground's head, or nobody where all of it
// would not do.
bool Scheduler::MakeRoom() {
  const Arrival& head = foreground_.front().arrival;
  Release release;
  for (auto each = running_.rbegin(); each != running_.rend(); ++each) {
    if (each->second.keeps_place) continue;
    AddVictim(each->second, release);
    if (!HasRoom(head, release)) continue;
    for (const SequenceId victim : release.victims) Preempt(victim);
    return true;
  }
  return false;
}

void Scheduler::AddVictim(const Admitted& sequence, Release& release) const {
  release.victims.push_back(sequence.what.arrival.id);
  release.blocks += PromisedTo(sequence);
  for (const int64_t block : sequence.blocks) {
    if (++release.holders[block] == pool_.holders(block)) ++release.blocks;
  }
}

void Scheduler::Preempt(SequenceId id) {
  auto taken = running_.extract(id);
  Admitted& sequence = taken.mapped();
  LetGo(sequence);
  ++sequence.what.preemptions;
  ++preemptions_;
  preempted_.push_back(id);
  background_.PutBack(std::move(sequence.what));
}

// --- Blocks
// ----------------------------------------------------------------------------------------------

int64_t Scheduler::PromisedTo(const Admitted& sequence) const {
  return BlocksFor(sequence.what.arrival.max_fed) - static_cast<int64_t>(sequence.blocks.size());
}

// The last block is let go of first, so that the beginning of a prefix, without which the rest is
// of no use, outlasts it.
void Scheduler::LetGo(Admitted& sequence) {
  promised_ -= PromisedTo(sequence);
  for (auto block = sequence.blocks.rbegin(); block != sequence.blocks.rend(); ++block) {
    pool_.Release(*block);
  }
  sequence.blocks.clear();
}

// Whether the next token of a sequence begins a block that may come from others.
bool Scheduler::BeginsShared(const Admitted& sequence) const {
  const int64_t next = sequence.fed / options_.block_size;
  return sequence.fed % options_.block_size == 0 && next < MostShared(sequence.what.arrival) &&
         next == static_cast<int64_t>(sequence.blocks.size());
}

void Scheduler::TakeShared(Admitted& sequence) {
  while (BeginsShared(sequence)) {
    const std::optional<int64_t> block =
        pool_.Find(sequence.what.arrival.keys[sequence.blocks.size()]);
    if (!block) return;
    pool_.Hold(*block);
    sequence.blocks.push_back(*block);
    --promised_;
    sequence.fed += options_.block_size;
    prefix_hit_tokens_ += options_.block_size;
    if (sequence.what.arrival.reserves) steered_prefix_hit_tokens_ += options_.block_size;
  }
}

void Scheduler::TakeOwn(Admitted& sequence) {
  const int64_t blocks = BlocksFor(sequence.fed + sequence.planned);
  while (static_cast<int64_t>(sequence.blocks.size()) < blocks) {
    sequence.blocks.push_back(pool_.Take());
    --promised_;
  }
}

// --- Steps
// -----------------------------------------------------------------------------------------------

std::vector<StepItem> Scheduler::Plan() {
  Reservations nothing;
  return Plan(nothing);
}

std::vector<StepItem> Scheduler::Plan(Reservations& reservations) {
  preempted_.clear();
  computed_.clear();
  for (auto& [id, sequence] : running_) TakeShared(sequence);
  Admit(reservations);
  for (auto& [id, sequence] : running_) {
    if (!sequence.ready) sequence.ready = !sequence.what.arrival.reserves || reservations.Ready(id);
  }
  PlanPrompts(PlanDecoding());
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
  const bool background_lags = std::any_of(running_.begin(), running_.end(), [](const auto& each) {
    return each.second.what.arrival.background && each.second.lag() > each.second.planned;
  });
  const int64_t reserved = background_lags ? budget / 4 : 0;
  budget = reserved + ShareAmongClients(/*background=*/false, budget - reserved);
  const bool with_people = std::any_of(running_.begin(), running_.end(), [](const auto& each) {
    return !each.second.what.arrival.background && each.second.planned > 0;
  });
  const int64_t bound = with_people ? std::min(budget, most_beside_people_) : budget;
  budget -= bound - ShareAmongClients(/*background=*/true, bound);
  ShareAmongClients(/*background=*/false, budget);  // what the background did not need
}

void Scheduler::BoundBackground(int64_t tokens) {
  most_beside_people_ = std::max(tokens, options_.max_step_tokens / 4);
}

// Takes the block that a sequence needs next as one that this step computes; false, and the
// sequence waits, where another one computes it already and this one may share it.
bool Scheduler::ClaimNextBlock(const Admitted& sequence) {
  const std::vector<BlockKey>& keys = sequence.what.arrival.keys;
  const auto next = static_cast<size_t>(sequence.fed / options_.block_size);
  if (sequence.planned > 0 || next >= keys.size()) return true;
  return computed_.insert(keys[next]).second || !BeginsShared(sequence);
}

// Hands out prompt tokens in rounds: each client's oldest lagging sequence gets a quantum a round.
// The client after the one that began the last step begins. Returns what nobody needed.
int64_t Scheduler::ShareAmongClients(bool background, int64_t budget) {
  std::map<ClientId, std::deque<Admitted*>> lagging;  // a client's in order of age
  for (auto& [id, sequence] : running_) {
    if (sequence.what.arrival.background != background) continue;
    if (sequence.lag() > sequence.planned)
      lagging[sequence.what.arrival.client].push_back(&sequence);
  }
  if (lagging.empty() || budget == 0) return budget;
  // Whoever is in the middle of a block goes on, and others wait for it although their turn may
  // come first: it is at the head of its client, so its own turn comes too.
  for (const auto& [client, sequences] : lagging) {
    if (!BeginsShared(*sequences.front())) ClaimNextBlock(*sequences.front());
  }
  auto turn = lagging.upper_bound(last_served_[background]);
  if (turn == lagging.end()) turn = lagging.begin();
  last_served_[background] = turn->first;
  while (budget > 0 && !lagging.empty()) {
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
  }
  return budget;
}

// --- What happened
// ---------------------------------------------------------------------------------------

void Scheduler::Advance(SequenceId id, int64_t fed, int64_t known,
                        const std::vector<BlockKey>& keys) {
  Admitted& sequence = running_.at(id);
  Arrival& arrival = sequence.what.arrival;
  const int64_t begin = sequence.fed / options_.block_size;
  VS_CHECK(fed >= sequence.fed && fed <= known &&
           BlocksFor(fed) <= static_cast<int64_t>(sequence.blocks.size()));
  sequence.fed = fed;
  arrival.known = known;
  arrival.keys.insert(arrival.keys.end(), keys.begin(), keys.end());
  const int64_t last = arrival.may_start_over ? std::min(fed, arrival.run_from) : fed;
  const int64_t end =
      std::min(static_cast<int64_t>(arrival.keys.size()), last / options_.block_size);
  for (int64_t i = begin; i < end; ++i) {
    pool_.Publish(sequence.blocks[static_cast<size_t>(i)], arrival.keys[static_cast<size_t>(i)]);
  }
}

int64_t Scheduler::StartOver(SequenceId id, int64_t known) {
  Admitted& sequence = running_.at(id);
  const Arrival& arrival = sequence.what.arrival;
  VS_CHECK(arrival.may_start_over && arrival.run_from < known && known <= sequence.fed);
  sequence.fed = arrival.run_from / options_.block_size * options_.block_size;
  sequence.what.arrival.known = known;
  return sequence.fed;
}

void Scheduler::Remove(SequenceId id) {
  if (const auto found = running_.find(id); found != running_.end()) {
    LetGo(found->second);
    running_.erase(found);
    return;
  }
  foreground_.Remove(id);
  background_.Remove(id);
}

}  // namespace valuescope::engine
