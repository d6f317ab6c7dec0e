// Blocks that several sequences hold, waiting for what another one computes, and the background
// that gives way.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "engine/scheduler.h"
#include "tests/engine/scheduler_steps.h"

namespace valuescope::engine {
namespace {

constexpr int64_t kSharedBlock = 4;

SchedulerOptions Options() {
  return {.block_size = kSharedBlock, .num_blocks = 32, .max_batch_rows = 8, .max_step_tokens = 64};
}

// Keys of the first `count` blocks of the text `name`.
std::vector<BlockKey> Keys(const std::string& name, int64_t count) {
  std::vector<BlockKey> keys;
  for (int64_t i = 0; i < count; ++i) keys.push_back(name + std::to_string(i));
  return keys;
}

// A prompt of `tokens` tokens of the text `name`, and up to eight more.
Arrival Prompt(SequenceId id, const std::string& name, int64_t tokens, ClientId client = 0) {
  return {.id = id,
          .known = tokens,
          .max_fed = tokens + 8,
          .client = client,
          .keys = Keys(name, tokens / kSharedBlock)};
}

TEST(SharedPrefix, ASecondPromptTakesTheBlocksOfTheFirstAndRunsTheRest) {
  Scheduler scheduler(Options());
  std::map<SequenceId, int64_t> known{{1, 14}, {2, 14}};
  scheduler.Add(Prompt(1, "a", 14));
  EXPECT_EQ(RunStep(scheduler, known), (Step{{1, 0, 14}}));
  scheduler.Add(Prompt(2, "a", 14));
  EXPECT_EQ(RunStep(scheduler, known), (Step{{1, 14, 1}, {2, 12, 2}}));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(scheduler.Blocks(1)[i], scheduler.Blocks(2)[i]);
    EXPECT_EQ(scheduler.pool().holders(scheduler.Blocks(1)[i]), 2);
  }
  EXPECT_NE(scheduler.Blocks(1)[3], scheduler.Blocks(2)[3]);
  EXPECT_EQ(scheduler.prefix_hit_tokens(), 12);
}

TEST(SharedPrefix, TheLastKnownTokenRunsAlthoughItsBlockIsThere) {
  Scheduler scheduler(Options());
  std::map<SequenceId, int64_t> known{{1, 8}, {2, 8}};
  scheduler.Add(Prompt(1, "a", 8));
  RunStep(scheduler, known);
  scheduler.Remove(1);
  scheduler.Add(Prompt(2, "a", 8));
  EXPECT_EQ(RunStep(scheduler, known), (Step{{2, 4, 4}}));
}

TEST(SharedPrefix, TokensThatMustBeSeenRunInBlocksOfTheirOwn) {
  Scheduler scheduler(Options());
  std::map<SequenceId, int64_t> known{{1, 14}, {2, 14}};
  scheduler.Add(Prompt(1, "a", 14));
  RunStep(scheduler, known);
  Arrival tapped = Prompt(2, "a", 14);
  tapped.run_from = 7;
  scheduler.Add(tapped);
  EXPECT_EQ(RunStep(scheduler, known).back(), (StepItem{2, 4, 10}));
  EXPECT_EQ(scheduler.Blocks(1)[0], scheduler.Blocks(2)[0]);
  EXPECT_NE(scheduler.Blocks(1)[1], scheduler.Blocks(2)[1]);
}

TEST(SharedPrefix, OutlastsItsSequenceUntilTheRoomIsNeeded) {
  SchedulerOptions options = Options();
  options.num_blocks = 6;
  Scheduler scheduler(options);
  std::map<SequenceId, int64_t> known{{1, 14}, {2, 14}, {3, 20}};
  scheduler.Add(Prompt(1, "a", 14));
  RunStep(scheduler, known);
  scheduler.Remove(1);
  EXPECT_EQ(scheduler.used_ratio(), 0);
  EXPECT_DOUBLE_EQ(scheduler.cached_ratio(), 3.0 / 6.0);
  // Five blocks of another text: three are free, and of the cached ones the last of the prefix go.
  scheduler.Add({.id = 3, .known = 20, .max_fed = 20, .keys = Keys("b", 5)});
  EXPECT_EQ(RunStep(scheduler, known), (Step{{3, 0, 20}}));
  EXPECT_DOUBLE_EQ(scheduler.cached_ratio(), 1.0 / 6.0);
  scheduler.Remove(3);
  scheduler.Add(Prompt(2, "a", 14));
  EXPECT_EQ(RunStep(scheduler, known), (Step{{2, 4, 10}}));
}

TEST(SharedPrefix, BlocksThatOthersHoldCostAnAdmissionNothing) {
  SchedulerOptions options = Options();
  options.num_blocks = 8;
  Scheduler scheduler(options);
  std::map<SequenceId, int64_t> known{{1, 18}, {2, 18}};
  Arrival first = Prompt(1, "a", 18), second = Prompt(2, "a", 18);
  first.max_fed = second.max_fed = 22;  // six blocks each
  scheduler.Add(first);
  RunStep(scheduler, known);
  scheduler.Add(second);
  RunStep(scheduler, known);
  EXPECT_EQ(scheduler.num_running(), 2);
  EXPECT_DOUBLE_EQ(scheduler.promised_ratio(), 1.0);
}

TEST(SharedPrefix, SamplesOfOnePromptComputeItOnce) {
  SchedulerOptions options = Options();
  options.max_step_tokens = 10;
  Scheduler scheduler(options);
  std::map<SequenceId, int64_t> known;
  for (SequenceId id = 1; id <= 4; ++id) {
    scheduler.Add(Prompt(id, "a", 22));
    known[id] = 22;
  }
  EXPECT_EQ(RunStep(scheduler, known), (Step{{1, 0, 10}}));
  // Two blocks are there. The third is in the making, so nobody else begins it.
  EXPECT_EQ(RunStep(scheduler, known), (Step{{1, 10, 10}}));
  EXPECT_EQ(RunStep(scheduler, known), (Step{{1, 20, 2}, {2, 20, 2}, {3, 20, 2}, {4, 20, 2}}));
  EXPECT_EQ(scheduler.prefix_hit_tokens(), 3 * 20);
}

TEST(SharedPrefix, WhoWaitsGoesOnWhereTheOneThatComputedIsGone) {
  SchedulerOptions options = Options();
  options.max_step_tokens = 10;
  Scheduler scheduler(options);
  std::map<SequenceId, int64_t> known;
  for (SequenceId id = 1; id <= 3; ++id) {
    scheduler.Add(Prompt(id, "a", 22));
    known[id] = 22;
  }
  EXPECT_EQ(RunStep(scheduler, known), (Step{{1, 0, 10}}));
  scheduler.Remove(1);
  EXPECT_EQ(RunStep(scheduler, known), (Step{{2, 8, 10}}));
  // Also where its step failed, so that what it wrote is not published.
  EXPECT_EQ(scheduler.Plan(), (Step{{2, 18, 4}}));
  scheduler.Remove(2);
  EXPECT_EQ(scheduler.Plan(), (Step{{3, 16, 6}}));
}

TEST(SharedPrefix, WaitsForAnotherClientsPromptToo) {
  SchedulerOptions options = Options();
  options.max_step_tokens = 10;
  Scheduler scheduler(options);
  std::map<SequenceId, int64_t> known{{1, 22}, {2, 22}};
  scheduler.Add(Prompt(1, "a", 22, /*client=*/1));
  EXPECT_EQ(RunStep(scheduler, known), (Step{{1, 0, 10}}));
  // Client 2 begins the next step, but the block it needs is half done.
  scheduler.Add(Prompt(2, "a", 22, /*client=*/2));
  EXPECT_EQ(RunStep(scheduler, known), (Step{{1, 10, 10}}));
  EXPECT_EQ(RunStep(scheduler, known), (Step{{1, 20, 2}, {2, 20, 2}}));
}

TEST(SharedPrefix, DoesNotWaitForWhatStandsFarBackInAnotherClientsLine) {
  SchedulerOptions options = Options();
  options.max_step_tokens = 10;
  Scheduler scheduler(options);
  for (SequenceId id = 1; id <= 3; ++id) {
    scheduler.Add(Prompt(id, "text" + std::to_string(id), 22, /*client=*/1));
  }
  scheduler.Add(Prompt(4, "text3", 22, /*client=*/2));
  const Step step = scheduler.Plan();
  ASSERT_EQ(step.size(), 1u);
  scheduler.Advance(1, 10, 22);
  EXPECT_EQ(scheduler.Plan(), (Step{{4, 0, 10}}));
}

TEST(SharedPrefix, APersonDoesNotWaitForTheBackground) {
  SchedulerOptions options = Options();
  options.max_step_tokens = 10;
  Scheduler scheduler(options);
  Arrival job = Prompt(1, "a", 22, /*client=*/1);
  job.background = true;
  scheduler.Add(job);
  ASSERT_EQ(scheduler.Plan(), (Step{{1, 0, 10}}));
  scheduler.Advance(1, 10, 22);
  scheduler.Add(Prompt(2, "a", 22, /*client=*/2));
  const Step step = scheduler.Plan();
  ASSERT_FALSE(step.empty());
  EXPECT_EQ(step.back().id, 2);
  EXPECT_EQ(step.back().first, 8);
}

TEST(SharedPrefix, WhatMayRunAgainIsNotGivenToOthers) {
  Scheduler scheduler(Options());
  std::map<SequenceId, int64_t> known{{1, 16}, {2, 16}};
  Arrival first = Prompt(1, "a", 16);
  first.run_from = 9;
  first.may_start_over = true;
  scheduler.Add(first);
  RunStep(scheduler, known);
  scheduler.Add(Prompt(2, "a", 16));
  EXPECT_EQ(RunStep(scheduler, known).back(), (StepItem{2, 8, 8}));
}

TEST(SharedPrefix, GrowsWithWhatIsGenerated) {
  Scheduler scheduler(Options());
  scheduler.Add({.id = 1, .known = 7, .max_fed = 12, .keys = Keys("a", 1)});
  ASSERT_EQ(scheduler.Plan(), (Step{{1, 0, 7}}));
  scheduler.Advance(1, 7, 8, {"a1"});  // the eighth token was sampled
  ASSERT_EQ(scheduler.Plan(), (Step{{1, 7, 1}}));
  scheduler.Advance(1, 8, 9);
  scheduler.Remove(1);
  scheduler.Add(Prompt(2, "a", 12));
  EXPECT_EQ(scheduler.Plan(), (Step{{2, 8, 4}}));
}

// --- The background gives way
// ----------------------------------------------------------------------------

Arrival Job(SequenceId id, int64_t known, int64_t max_fed) {
  return {.id = id, .known = known, .max_fed = max_fed, .background = true};
}
Arrival Person(SequenceId id, int64_t known, int64_t max_fed) {
  return {.id = id, .known = known, .max_fed = max_fed};
}

TEST(Preemption, APersonTakesTheRowOfTheYoungestJob) {
  SchedulerOptions options = Options();
  options.max_batch_rows = 2;
  Scheduler scheduler(options);
  scheduler.Add(Job(1, 4, 8));
  scheduler.Add(Job(2, 4, 8));
  scheduler.Plan();
  scheduler.Advance(2, 4, 5);
  scheduler.Add(Person(3, 4, 8));
  EXPECT_EQ(scheduler.Plan(), (Step{{1, 0, 4}, {3, 0, 4}}));
  EXPECT_EQ(scheduler.preempted(), std::vector<SequenceId>{2});
  EXPECT_EQ(scheduler.num_waiting(), 1);
  EXPECT_EQ(scheduler.preemptions(), 1);
  scheduler.Remove(3);
  // It comes back with what it knew.
  EXPECT_EQ(scheduler.Plan(), (Step{{1, 0, 4}, {2, 0, 5}}));
  EXPECT_TRUE(scheduler.preempted().empty());
}

TEST(Preemption, TakesNoMoreJobsThanTheBlocksNeed) {
  SchedulerOptions options = Options();
  options.num_blocks = 12;
  Scheduler scheduler(options);
  for (SequenceId id = 1; id <= 3; ++id) scheduler.Add(Job(id, 4, 16));
  scheduler.Plan();
  scheduler.Add(Person(4, 4, 20));  // five blocks: two jobs of four each
  scheduler.Plan();
  EXPECT_EQ(scheduler.preempted(), (std::vector<SequenceId>{3, 2}));
  scheduler.Remove(4);
  const Step step = scheduler.Plan();  // and back in the order they came
  EXPECT_EQ(step, (Step{{1, 0, 4}, {2, 0, 4}, {3, 0, 4}}));
}

TEST(Preemption, SendsNobodyBackWhereThatWouldNotDo) {
  SchedulerOptions options = Options();
  options.num_blocks = 12;
  Scheduler scheduler(options);
  scheduler.Add(Person(1, 4, 32));
  scheduler.Add(Job(2, 4, 16));
  scheduler.Plan();
  scheduler.Add(Person(3, 4, 32));
  EXPECT_EQ(scheduler.Plan().size(), 2u);
  EXPECT_TRUE(scheduler.preempted().empty());
}

TEST(Preemption, APersonNeverTakesTheRowOfAPerson) {
  SchedulerOptions options = Options();
  options.max_batch_rows = 1;
  Scheduler scheduler(options);
  scheduler.Add(Person(1, 4, 8));
  scheduler.Plan();
  scheduler.Add(Person(2, 4, 8));
  EXPECT_EQ(scheduler.Plan(), (Step{{1, 0, 4}}));
  EXPECT_TRUE(scheduler.preempted().empty());
}

TEST(Preemption, AJobFindsAgainWhatItComputed) {
  SchedulerOptions options = Options();
  options.max_batch_rows = 1;
  Scheduler scheduler(options);
  Arrival job = Prompt(1, "a", 14);
  job.background = true;
  scheduler.Add(job);
  ASSERT_EQ(scheduler.Plan(), (Step{{1, 0, 14}}));
  scheduler.Advance(1, 14, 15);
  scheduler.Add(Person(2, 4, 8));
  ASSERT_EQ(scheduler.Plan(), (Step{{2, 0, 4}}));
  scheduler.Remove(2);
  EXPECT_EQ(scheduler.Plan(), (Step{{1, 12, 3}}));
}

TEST(Preemption, HappensToAJobAFewTimesAtMost) {
  SchedulerOptions options = Options();
  options.max_batch_rows = 1;
  Scheduler scheduler(options);
  scheduler.Add(Job(1, 4, 8));
  scheduler.Plan();
  for (int i = 0; i < 10; ++i) {
    const SequenceId person = 100 + i;
    scheduler.Add(Person(person, 4, 8));
    const Step step = scheduler.Plan();
    ASSERT_EQ(step.size(), 1u);
    EXPECT_EQ(step[0].id, i < Scheduler::kMostPreemptions ? person : 1);
    scheduler.Remove(person);
    scheduler.Plan();
  }
  EXPECT_EQ(scheduler.preemptions(), Scheduler::kMostPreemptions);
}

TEST(Preemption, SparesTheJobThatCameInByItsTurn) {
  SchedulerOptions options = Options();
  options.max_batch_rows = 1;
  Scheduler scheduler(options);
  for (SequenceId id = 1; id <= 9; ++id) scheduler.Add(Person(id, 1, 1));
  scheduler.Add(Job(100, 4, 8));
  for (SequenceId id = 1; id <= 3; ++id) {
    ASSERT_EQ(scheduler.Plan(), (Step{{id, 0, 1}}));
    scheduler.Remove(id);
  }
  EXPECT_EQ(scheduler.Plan(), (Step{{100, 0, 4}}));
  scheduler.Advance(100, 4, 5);
  EXPECT_EQ(scheduler.Plan(), (Step{{100, 4, 1}}));
  EXPECT_EQ(scheduler.preemptions(), 0);
}

TEST(Preemption, APersonPassesTheBackgroundsTurnWhereAJobMakesTheRoom) {
  SchedulerOptions options = Options();
  options.max_batch_rows = 4;
  Scheduler scheduler(options);
  for (SequenceId id = 1; id <= 3; ++id) scheduler.Add(Person(id, 1, 4));
  scheduler.Plan();
  for (SequenceId id = 101; id <= 102; ++id) scheduler.Add(Job(id, 1, 4));
  scheduler.Plan();  // 101 has the fourth row; 102 waits, and so does nobody else
  for (SequenceId id = 4; id <= 6; ++id) {
    scheduler.Remove(id - 3);
    scheduler.Add(Person(id, 1, 4));
    scheduler.Plan();
  }
  EXPECT_EQ(scheduler.num_running(), 4);
  scheduler.Add(Person(7, 1, 4));
  const Step step = scheduler.Plan();
  EXPECT_TRUE(std::any_of(step.begin(), step.end(), [](const StepItem& i) { return i.id == 7; }));
}

}  // namespace
}  // namespace valuescope::engine
