// The scheduler under random work: a cache that remembers what was written where is held against
// what each sequence must find there, and the accounts against a count of everything.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/scheduler.h"

namespace valuescope::engine {
namespace {

constexpr int64_t kBlock = 4;

// What a cache slot holds: a number that depends on all tokens up to its own, as keys and values
// do.
using Content = uint64_t;

Content Next(Content before, int32_t token) {
  return (before ^ static_cast<Content>(token)) * 0x9E3779B97F4A7C15ull + 1;
}

struct Simulated {
  Arrival arrival;
  std::vector<int32_t> ids;
  int64_t given = 0;  // of ids
  int64_t fed = 0;
  bool started = false;
  int preemptions = 0;
  int64_t added = 0;          // the step
  int64_t end_over_from = 0;  // length of ids at which a part is trimmed and run again; 0: never
  PrefixKeys keys{"tenant", kBlock};
};

std::string Unsteered(int64_t) { return ""; }

class Simulation {
 public:
  Simulation(uint64_t seed, SchedulerOptions options, int64_t tenants)
      : random_(seed),
        options_(options),
        tenants_(tenants),
        scheduler_(options, [](const std::string& tenant) { return tenant.back() - '0'; }),
        cache_(static_cast<size_t>(options.num_blocks * kBlock)) {}

  int64_t Draw(int64_t lowest, int64_t highest) {
    return std::uniform_int_distribution<int64_t>(lowest, highest)(random_);
  }
  bool Chance(int percent) { return Draw(1, 100) <= percent; }

  // A prompt that begins as others do, or is one of its own.
  void Arrive() {
    Simulated one;
    one.arrival.id = next_id_++;
    const int64_t text = Draw(0, 3), length = Draw(1, 40), alike = Draw(0, 40);
    for (int64_t i = 0; i < length; ++i) {
      one.ids.push_back(static_cast<int32_t>(i < alike ? 10 * text + i % 7 : Draw(100, 200)));
    }
    one.given = length;
    one.arrival.known = length;
    one.arrival.max_fed = std::min(length + Draw(0, 12), options_.num_blocks * kBlock);
    one.arrival.background = Chance(50);
    one.arrival.tenant = absl::StrCat("tenant", Draw(1, tenants_));
    one.arrival.client = static_cast<ClientId>(Draw(1, 4));
    if (Chance(25)) one.arrival.run_from = Draw(0, length);
    if (Chance(25) && one.arrival.run_from <= length && one.arrival.max_fed > length + 2) {
      one.arrival.may_start_over = true;
      one.end_over_from = length + 2;
    }
    one.arrival.keys = one.keys.Extend(one.ids, Unsteered);
    one.added = steps_;
    ASSERT_TRUE(options_.CanEverFit(one.arrival.max_fed));
    scheduler_.Add(one.arrival);
    all_.emplace(one.arrival.id, std::move(one));
  }

  void CancelOne() {
    if (all_.empty()) return;
    auto victim = all_.begin();
    std::advance(victim, Draw(0, static_cast<int64_t>(all_.size()) - 1));
    End(victim->first);
  }

  // One step; where it fails, all of its sequences end and nothing of it counts.
  void Step(bool fails) {
    ++steps_;
    const std::vector<StepItem> step = scheduler_.Plan();
    for (const SequenceId id : scheduler_.preempted()) SendBack(id);
    int64_t tokens = 0;
    for (const StepItem& item : step) {
      tokens += item.count;
      Begin(item);
    }
    EXPECT_LE(tokens, options_.max_step_tokens);
    EXPECT_EQ(step.empty(), all_.empty()) << "work waits and nothing runs";
    CheckAccounts();
    for (const StepItem& item : step) Write(item);
    for (const StepItem& item : step) fails ? End(item.id) : Advance(item);
    CheckAccounts();
  }

  void CheckNothingIsLeft() {
    EXPECT_TRUE(all_.empty());
    EXPECT_EQ(scheduler_.num_running() + scheduler_.num_waiting(), 0);
    EXPECT_EQ(scheduler_.used_ratio(), 0);
    EXPECT_EQ(scheduler_.promised_ratio(), 0);
    EXPECT_EQ(scheduler_.pool().available(), options_.num_blocks);
  }

  void LetGuestsGoFirst(bool first) { scheduler_.LetGuestsGoFirst(first); }
  bool empty() const { return all_.empty(); }
  const Scheduler& scheduler() const { return scheduler_; }
  int64_t longest_stay() const { return longest_stay_; }

 private:
  void SendBack(SequenceId id) {
    Simulated& one = all_.at(id);
    EXPECT_TRUE(one.arrival.background);
    EXPECT_LE(++one.preemptions, Scheduler::kMostPreemptions);
    one.fed = 0;
    one.started = false;
  }

  // Whatever of the sequence lies before this step is in its blocks, whoever computed it.
  void Begin(const StepItem& item) {
    Simulated& one = all_.at(item.id);
    const std::vector<int64_t>& blocks = scheduler_.Blocks(item.id);
    ASSERT_GE(item.first, one.fed);
    if (item.first > one.fed) {
      EXPECT_LE(item.first, one.arrival.run_from) << "tokens that had to run";
    }
    ASSERT_LE(item.first + item.count, static_cast<int64_t>(one.ids.size()));
    Content content = 0;
    for (int64_t position = 0; position < item.first; ++position) {
      content = Next(content, one.ids[static_cast<size_t>(position)]);
      ASSERT_EQ(cache_[Slot(blocks, position)], content)
          << "sequence " << item.id << ", position " << position;
    }
    one.fed = item.first;
  }

  void Write(const StepItem& item) {
    const Simulated& one = all_.at(item.id);
    const std::vector<int64_t>& blocks = scheduler_.Blocks(item.id);
    Content content = 0;
    for (int64_t position = 0; position < item.first + item.count; ++position) {
      content = Next(content, one.ids[static_cast<size_t>(position)]);
      if (position < item.first) continue;
      const int64_t block = blocks[static_cast<size_t>(position / kBlock)];
      // A block of which it may have begun again to write its own holds the same as before.
      if (!one.arrival.may_start_over) {
        EXPECT_FALSE(scheduler_.pool().published(block));
      }
      EXPECT_EQ(scheduler_.pool().holders(block), 1) << "two could write block " << block;
      cache_[Slot(blocks, position)] = content;
    }
  }

  void Advance(const StepItem& item) {
    Simulated& one = all_.at(item.id);
    one.fed = item.first + item.count;
    const int64_t size = static_cast<int64_t>(one.ids.size());
    const bool all_fed = one.fed == size;
    if (all_fed && one.end_over_from == size) return RunAgain(one);
    if (all_fed && (size >= one.arrival.max_fed || one.end_over_from < 0)) {
      scheduler_.Advance(item.id, one.fed, one.fed, one.keys.Extend(one.ids, Unsteered));
      longest_stay_ = std::max(longest_stay_, steps_ - one.added);
      return End(item.id);
    }
    if (all_fed) one.ids.push_back(static_cast<int32_t>(Draw(1, 3)));
    scheduler_.Advance(item.id, one.fed, static_cast<int64_t>(one.ids.size()),
                       one.keys.Extend(one.ids, Unsteered));
  }

  // Its last generated token is trimmed and the rest runs once more.
  void RunAgain(Simulated& one) {
    one.ids.pop_back();
    one.end_over_from = -1;
    scheduler_.Advance(one.arrival.id, one.fed, one.fed, one.keys.Extend(one.ids, Unsteered));
    one.fed = scheduler_.StartOver(one.arrival.id, static_cast<int64_t>(one.ids.size()));
    EXPECT_LE(one.fed, one.arrival.run_from);
  }

  void End(SequenceId id) {
    scheduler_.Remove(id);
    all_.erase(id);
  }

  static size_t Slot(const std::vector<int64_t>& blocks, int64_t position) {
    return static_cast<size_t>(blocks[static_cast<size_t>(position / kBlock)] * kBlock +
                               position % kBlock);
  }

  // Every block is held exactly as often as running sequences list it, and promises can be kept.
  void CheckAccounts() {
    std::map<int64_t, int64_t> holders;
    int64_t promised = 0;
    for (const SequenceId id : RunningIds()) {
      const std::vector<int64_t>& blocks = scheduler_.Blocks(id);
      std::set<int64_t> distinct(blocks.begin(), blocks.end());
      EXPECT_EQ(distinct.size(), blocks.size());
      for (const int64_t block : blocks) ++holders[block];
      promised +=
          (all_.at(id).arrival.max_fed + kBlock - 1) / kBlock - static_cast<int64_t>(blocks.size());
    }
    const BlockPool& pool = scheduler_.pool();
    for (int64_t block = 0; block < options_.num_blocks; ++block) {
      EXPECT_EQ(pool.holders(block), holders.contains(block) ? holders[block] : 0);
    }
    EXPECT_EQ(pool.held(), static_cast<int64_t>(holders.size()));
    EXPECT_EQ(pool.held() + pool.available(), options_.num_blocks);
    EXPECT_LE(pool.cached(), pool.available());
    EXPECT_LE(promised, pool.available());
    EXPECT_DOUBLE_EQ(scheduler_.promised_ratio(), static_cast<double>(pool.held() + promised) /
                                                      static_cast<double>(options_.num_blocks));
    EXPECT_LE(scheduler_.num_running(), options_.max_batch_rows);
    EXPECT_EQ(scheduler_.num_running() + scheduler_.num_waiting(),
              static_cast<int64_t>(all_.size()));
  }

  std::vector<SequenceId> RunningIds() const {
    std::vector<SequenceId> ids;
    for (const auto& [id, one] : all_) {
      if (scheduler_.IsRunning(id)) ids.push_back(id);
    }
    return ids;
  }

  std::mt19937_64 random_;
  const SchedulerOptions options_;
  const int64_t tenants_;
  Scheduler scheduler_;
  std::vector<Content> cache_;
  std::map<SequenceId, Simulated> all_;
  SequenceId next_id_ = 1;
  int64_t steps_ = 0;
  int64_t longest_stay_ = 0;
};

class RandomWork : public ::testing::TestWithParam<int> {};

TEST_P(RandomWork, KeepsItsAccountsAndFindsInTheCacheWhatItMust) {
  const int seed = GetParam();
  const int64_t rows = 1 + seed % 6;
  Simulation simulation(static_cast<uint64_t>(seed),
                        {.block_size = kBlock,
                         .num_blocks = 14 + seed % 20,
                         .max_batch_rows = rows,
                         .max_step_tokens = rows + seed % 23},
                        /*tenants=*/1 + seed % 4);
  for (int i = 0; i < 400 && !::testing::Test::HasFailure(); ++i) {
    simulation.LetGuestsGoFirst(seed % 3 == 0);
    for (int64_t arrivals = simulation.Draw(-2, 2); arrivals > 0; --arrivals) simulation.Arrive();
    if (simulation.Chance(5)) simulation.CancelOne();
    simulation.Step(/*fails=*/simulation.Chance(2));
  }
  int left = 0;
  while (!simulation.empty() && ++left < 20000 && !::testing::Test::HasFailure()) {
    simulation.Step(/*fails=*/false);
  }
  simulation.CheckNothingIsLeft();
  EXPECT_GT(simulation.scheduler().prefix_hit_tokens(), 0);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomWork, ::testing::Range(1, 61));

// People ask without end for more than there is; the background is served all the same.
TEST(Starvation, JobsEndUnderAnEndlessLineOfPeople) {
  Scheduler scheduler(
      {.block_size = kBlock, .num_blocks = 16, .max_batch_rows = 4, .max_step_tokens = 16});
  std::map<SequenceId, int64_t> left;  // tokens to generate
  std::set<SequenceId> jobs;
  const auto add = [&](SequenceId id, bool background) {
    scheduler.Add({.id = id, .known = 8, .max_fed = 16, .background = background});
    left[id] = 8;
    if (background) jobs.insert(id);
  };
  for (SequenceId id = 1; id <= 12; ++id) add(id, true);
  SequenceId next = 100;
  int steps = 0;
  std::map<SequenceId, int64_t> known;
  for (; !jobs.empty() && steps < 4000; ++steps) {
    // Now and then nobody asks, so that jobs come in and are sent back again.
    if (steps % 7 < 5) {
      while (scheduler.num_waiting() < 20) add(next++, false);
    }
    for (const StepItem& item : scheduler.Plan()) {
      int64_t& all = known.try_emplace(item.id, 8).first->second;
      const int64_t fed = item.first + item.count;
      if (fed == all) ++all, --left[item.id];
      if (left[item.id] > 0) {
        scheduler.Advance(item.id, fed, all);
      } else {
        scheduler.Remove(item.id);
        jobs.erase(item.id);
      }
    }
  }
  EXPECT_TRUE(jobs.empty()) << jobs.size() << " jobs of 12 never ended";
  EXPECT_LT(steps, 1000);
}

}  // namespace
}  // namespace valuescope::engine
