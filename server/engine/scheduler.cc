#include "engine/scheduler.h"

#include <algorithm>

#include "base/check.h"

namespace valuescope::engine {
namespace {

// Admissions of the foreground for one of the background while both wait.
constexpr int kForegroundTurns = 3;

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

void Scheduler::Add(SequenceId id, int64_t known, int64_t max_fed, bool background) {
  VS_CHECK(known <= max_fed && CanEverFit(max_fed));
  (background ? background_ : foreground_)
      .push_back({.id = id, .known = known, .max_fed = max_fed});
}

std::deque<Scheduler::Waiting>* Scheduler::NextQueue() {
  if (foreground_.empty()) return background_.empty() ? nullptr : &background_;
  if (!background_.empty() && foreground_turns_ >= kForegroundTurns) return &background_;
  return &foreground_;
}

void Scheduler::Admit() {
  while (num_running() < options_.max_batch_rows) {
    std::deque<Waiting>* queue = NextQueue();
    if (queue == nullptr) return;
    const Waiting next = queue->front();
    const int64_t needed = BlocksFor(next.max_fed);
    // The head waits for its blocks; letting smaller ones pass could make it wait forever.
    if (needed > static_cast<int64_t>(free_blocks_.size())) return;
    queue->pop_front();
    foreground_turns_ = queue == &foreground_ ? foreground_turns_ + 1 : 0;
    Running running{.fed = 0, .known = next.known, .blocks = {}};
    running.blocks.assign(free_blocks_.rbegin(), free_blocks_.rbegin() + needed);
    free_blocks_.resize(free_blocks_.size() - static_cast<size_t>(needed));
    running_.emplace(next.id, std::move(running));
  }
}

std::vector<StepItem> Scheduler::Plan() {
  Admit();
  std::vector<StepItem> step;
  int64_t budget = options_.max_step_tokens;
  for (const bool decoding : {true, false}) {
    for (const auto& [id, sequence] : running_) {
      const int64_t lag = sequence.known - sequence.fed;
      if (lag <= 0 || budget == 0 || (lag == 1) != decoding) continue;
      const int64_t count = std::min(lag, budget);
      VS_CHECK(BlocksFor(sequence.fed + count) <= static_cast<int64_t>(sequence.blocks.size()));
      step.push_back({.id = id, .first = sequence.fed, .count = count});
      budget -= count;
    }
  }
  return step;
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
  for (std::deque<Waiting>* queue : {&foreground_, &background_}) {
    std::erase_if(*queue, [id](const Waiting& waiting) { return waiting.id == id; });
  }
}

double Scheduler::used_ratio() const {
  if (options_.num_blocks == 0) return 0;
  return 1.0 - static_cast<double>(free_blocks_.size()) / static_cast<double>(options_.num_blocks);
}

}  // namespace valuescope::engine
