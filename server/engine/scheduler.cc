#include "engine/scheduler.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/check.h"

namespace valuescope::engine {
namespace {

// Admissions of the foreground for one of the background while both wait.
constexpr int kForegroundTurns = 3;
// Of those for whom room is kept, past one turn of the background.
constexpr int kMostGuests = 64;
// One in so many is kept for tenants that have nothing running; of fewer rows than kFewRows none.
constexpr int64_t kRowsForOneKept = 32;
constexpr int64_t kFewRows = 4;
constexpr int64_t kBlocksForOneKept = 16;

}  // namespace

Scheduler::Scheduler(SchedulerOptions options, const WeightOf& weight_of,
                     const std::function<double(const std::string&)>& cache_share_of)
    : options_(options),
      pool_(options.num_blocks),
      foreground_(weight_of, {cache_share_of, options.num_blocks * options.block_size}),
      background_(weight_of, {cache_share_of, options.num_blocks * options.block_size}) {
  BoundPrompts(0);
}

double Scheduler::RatioOf(int64_t blocks) const {
  if (options_.num_blocks == 0) return 0;
  return static_cast<double>(blocks) / static_cast<double>(options_.num_blocks);
}

void Scheduler::Add(Arrival arrival) {
  VS_CHECK(arrival.known >= 1 && arrival.known <= arrival.max_fed &&
           options_.CanEverFit(arrival.max_fed));
  LineOf(arrival.background).Add(std::move(arrival));
}

// --- Admission
// -------------------------------------------------------------------------------------------

// What ran until now is charged; what may still run counts ahead.
void Scheduler::BeginShares() {
  foreground_.shares().BeginStep();
  background_.shares().BeginStep();
  for (const auto& [id, sequence] : running_) {
    LineOf(sequence.background()).shares().AddUnderWay(sequence.what.tenant, sequence.under_way());
  }
}

WaitingLine* Scheduler::NextLine() {
  if (foreground_.empty()) return background_.empty() ? nullptr : &background_;
  if (!background_.empty() && foreground_turns_ >= kForegroundTurns) return &background_;
  return &foreground_;
}

void Scheduler::Admit(Reservations& reservations) {
  foreground_.TryAside();
  background_.TryAside();
  for (WaitingLine* line = NextLine(); line != nullptr; line = NextLine()) {
    if (AdmitHead(*line, reservations)) continue;
    if (foreground_.empty()) return;
    // The head waits for its blocks; letting smaller ones pass could make it wait forever. A
    // person's head passes the background's where the background itself makes the room: that it can
    // do only as often as it has sequences that give way.
    if (AdmitGuest(line->front(), reservations)) continue;
    if (!MakeRoom()) return;
    VS_CHECK(AdmitHead(foreground_, reservations));
  }
}

// Admits the head or sets it aside; false where it has to wait for blocks or a row.
bool Scheduler::AdmitHead(WaitingLine& line, Reservations& reservations) {
  const Waiting& head = line.front();
  const Arrival& arrival = head.arrival;
  // What a person waits for, the background leaves alone.
  if (arrival.reserves && (line.aside_waits() || foreground_.aside_waits())) {
    line.SetAside();
    return true;
  }
  if (!LeavesRoom(head) || !HasRoom(arrival, {})) return false;
  if (arrival.reserves && !reservations.Reserve(arrival.id)) {
    line.SetAside();
    return true;
  }
  Admitted admitted;
  admitted.keeps_place = KeepsPlace(head);
  admitted.guest = !arrival.background && head.tenant->running() == 0;
  admitted.what = line.TakeFront();
  foreground_turns_ = admitted.background() ? 0 : foreground_turns_ + 1;
  promised_ += BlocksFor(admitted.what.arrival.max_fed);
  const SequenceId id = admitted.what.arrival.id;
  Admitted& sequence = running_.emplace(id, std::move(admitted)).first->second;
  TakeShared(sequence);
  line.shares().Run(sequence.what.tenant, sequence.what.arrival.max_fed);
  line.shares().AddUnderWay(sequence.what.tenant, sequence.under_way());
  ++admissions_;
  return true;
}

// Whether nobody would send it back.
bool Scheduler::KeepsPlace(const Waiting& head) const {
  return !head.arrival.background || !foreground_.empty() || head.preemptions >= kMostPreemptions;
}

// --- Room that is kept
// ------------------------------------------------------------------------------------------

bool Scheduler::KeepsRoom() const { return foreground_.shares().remembered() > 1; }

// Whether the head leaves what is kept for tenants that have nothing running, as it must if it is
// no such tenant's itself. What the background would give back counts as free.
bool Scheduler::LeavesRoom(const Waiting& head) const {
  if (!KeepsRoom() || !KeepsPlace(head)) return true;
  if (!head.arrival.background && head.tenant->running() == 0) return true;
  Release release;
  for (const auto& [id, sequence] : running_) {
    if (!sequence.keeps_place) AddVictim(sequence, release);
  }
  const int64_t rows = options_.max_batch_rows;
  const int64_t kept_rows = rows < kFewRows ? 0 : std::max<int64_t>(1, rows / kRowsForOneKept);
  const int64_t kept_blocks = options_.num_blocks / kBlocksForOneKept;
  const int64_t staying = num_running() - static_cast<int64_t>(release.victims.size());
  if (staying + kept_rows >= rows) return false;
  // One that never leaves so much waits for an empty machine.
  if (BlocksFor(head.arrival.max_fed) + kept_blocks > options_.num_blocks) return true;
  return BlocksNeeded(head.arrival, release) + kept_blocks <= Unpromised() + release.blocks;
}

// Admits one for whom room is kept, past a head that has to leave it and waits for other room. The
// background's turn is passed a bounded number of times, or where rows are few it might never come.
bool Scheduler::AdmitGuest(const Waiting& passed, Reservations& reservations) {
  if (LeavesRoom(passed)) return false;
  if (passed.arrival.background && foreground_turns_ >= kForegroundTurns + kMostGuests) {
    return false;
  }
  foreground_.LookAtGuests(true);
  const bool admitted = !foreground_.empty() && AdmitHead(foreground_, reservations);
  foreground_.LookAtGuests(false);
  return admitted;
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
  if (!LeavesRoom(foreground_.front())) return false;
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
  background_.shares().Stop(sequence.what.tenant, sequence.what.arrival.max_fed);
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

// --- What happened
// ---------------------------------------------------------------------------------------

void Scheduler::Advance(SequenceId id, int64_t fed, int64_t known,
                        const std::vector<BlockKey>& keys) {
  Admitted& sequence = running_.at(id);
  Arrival& arrival = sequence.what.arrival;
  const int64_t begin = sequence.fed / options_.block_size;
  VS_CHECK(fed >= sequence.fed && fed <= known &&
           BlocksFor(fed) <= static_cast<int64_t>(sequence.blocks.size()));
  LineOf(arrival.background).shares().Charge(sequence.what.tenant, fed - sequence.fed);
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
    TenantShares& shares = LineOf(found->second.background()).shares();
    shares.Stop(found->second.what.tenant, found->second.what.arrival.max_fed);
    shares.Leave(found->second.what.tenant);
    running_.erase(found);
    return;
  }
  foreground_.Remove(id);
  background_.Remove(id);
}

}  // namespace valuescope::engine
