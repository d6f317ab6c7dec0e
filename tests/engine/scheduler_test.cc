// The step policy: decoding before prompts, admission by the blocks of the worst case, and the
// share of the background.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <vector>

#include "tests/engine/scheduler_steps.h"

namespace valuescope::engine {
namespace {

SchedulerOptions Options() {
  return {.block_size = 4, .num_blocks = 8, .max_batch_rows = 4, .max_step_tokens = 10};
}

void Add(Scheduler& scheduler, SequenceId id, int64_t known, int64_t max_fed, bool background,
         ClientId client = 0) {
  scheduler.Add(
      {.id = id, .known = known, .max_fed = max_fed, .background = background, .client = client});
}

TEST(Scheduler, PlansNothingWhereNothingWaits) {
  Scheduler scheduler(Options());
  EXPECT_TRUE(scheduler.Plan().empty());
  EXPECT_EQ(scheduler.num_running(), 0);
  EXPECT_EQ(scheduler.used_ratio(), 0);
}

TEST(Scheduler, FeedsALongPromptInChunksOfTheBudget) {
  Scheduler scheduler(Options());
  std::map<SequenceId, int64_t> known{{1, 24}};
  Add(scheduler, 1, 24, 26, false);
  EXPECT_EQ(RunStep(scheduler, known), (Step{{1, 0, 10}}));
  EXPECT_EQ(RunStep(scheduler, known), (Step{{1, 10, 10}}));
  EXPECT_EQ(RunStep(scheduler, known), (Step{{1, 20, 4}}));
  EXPECT_EQ(RunStep(scheduler, known), (Step{{1, 24, 1}}));
}

TEST(Scheduler, DecodesBeforePromptsAndGivesThemTheRestOfTheBudget) {
  Scheduler scheduler(Options());
  scheduler.BoundPrompts(100);
  std::map<SequenceId, int64_t> known{{1, 3}, {2, 2}};
  Add(scheduler, 1, 3, 6, false);
  Add(scheduler, 2, 2, 6, false);
  EXPECT_EQ(RunStep(scheduler, known), (Step{{1, 0, 3}, {2, 0, 2}}));
  Add(scheduler, 3, 15, 16, false);
  known[3] = 15;
  EXPECT_EQ(RunStep(scheduler, known), (Step{{1, 3, 1}, {2, 2, 1}, {3, 0, 8}}));
  EXPECT_EQ(RunStep(scheduler, known), (Step{{1, 4, 1}, {2, 3, 1}, {3, 8, 7}}));
  EXPECT_EQ(RunStep(scheduler, known), (Step{{1, 5, 1}, {2, 4, 1}, {3, 15, 1}}));
}

TEST(Scheduler, NeverExceedsTheBudgetEvenWithDecodingAlone) {
  SchedulerOptions options = Options();
  options.max_step_tokens = 2;
  Scheduler scheduler(options);
  for (SequenceId id = 1; id <= 3; ++id) Add(scheduler, id, 1, 4, false);
  EXPECT_EQ(scheduler.Plan(), (Step{{1, 0, 1}, {2, 0, 1}}));
}

TEST(Scheduler, LeavesOutSequencesThatWaitForATokenOfTheirOwn) {
  Scheduler scheduler(Options());
  Add(scheduler, 1, 3, 6, false);
  scheduler.Plan();
  scheduler.Advance(1, 3, 3);
  EXPECT_TRUE(scheduler.Plan().empty());
}

TEST(Scheduler, AdmitsByTheBlocksOfTheWorstCase) {
  Scheduler scheduler(Options());
  // Two short prompts, but each may grow to five blocks of the eight.
  Add(scheduler, 1, 2, 20, false);
  Add(scheduler, 2, 2, 20, false);
  EXPECT_EQ(scheduler.Plan(), (Step{{1, 0, 2}}));
  EXPECT_EQ(scheduler.num_running(), 1);
  EXPECT_EQ(scheduler.num_waiting(), 1);
  EXPECT_EQ(scheduler.Blocks(1).size(), 1u);  // the others are promised and not taken
  EXPECT_DOUBLE_EQ(scheduler.used_ratio(), 1.0 / 8.0);
  EXPECT_DOUBLE_EQ(scheduler.promised_ratio(), 5.0 / 8.0);
}

TEST(Scheduler, GivesEveryBlockToOneSequenceOnly) {
  SchedulerOptions options = Options();
  options.max_step_tokens = 32;
  Scheduler scheduler(options);
  for (SequenceId id = 1; id <= 4; ++id) Add(scheduler, id, 8, 8, false);
  scheduler.Plan();
  std::set<int64_t> blocks;
  for (SequenceId id = 1; id <= 4; ++id) {
    for (const int64_t block : scheduler.Blocks(id)) {
      EXPECT_TRUE(blocks.insert(block).second) << "block " << block;
      EXPECT_GE(block, 0);
      EXPECT_LT(block, 8);
    }
  }
  EXPECT_EQ(blocks.size(), 8u);
  EXPECT_EQ(scheduler.used_ratio(), 1.0);
}

TEST(Scheduler, LetsNobodyPassTheHeadOfTheQueue) {
  Scheduler scheduler(Options());
  Add(scheduler, 1, 2, 20, false);
  Add(scheduler, 2, 2, 20, false);  // does not fit beside the first
  Add(scheduler, 3, 2, 4, false);   // would fit
  scheduler.Plan();
  EXPECT_EQ(scheduler.num_running(), 1);
  scheduler.Remove(1);
  EXPECT_EQ(scheduler.Plan(), (Step{{2, 0, 2}, {3, 0, 2}}));
}

TEST(Scheduler, RunsAtMostTheRowsOfABatch) {
  Scheduler scheduler(Options());
  for (SequenceId id = 1; id <= 6; ++id) Add(scheduler, id, 1, 4, false);
  EXPECT_EQ(scheduler.Plan().size(), 4u);
  EXPECT_EQ(scheduler.num_waiting(), 2);
}

TEST(Scheduler, GivesEveryFourthAdmissionToTheBackground) {
  SchedulerOptions options = Options();
  options.num_blocks = 64;
  options.max_batch_rows = 1;
  Scheduler scheduler(options);
  for (SequenceId id = 1; id <= 9; ++id) Add(scheduler, id, 1, 1, false);
  for (SequenceId id = 101; id <= 103; ++id) Add(scheduler, id, 1, 1, true);
  std::vector<SequenceId> order;
  for (Step step = scheduler.Plan(); !step.empty(); step = scheduler.Plan()) {
    ASSERT_EQ(step.size(), 1u);
    order.push_back(step[0].id);
    scheduler.Remove(step[0].id);
  }
  EXPECT_EQ(order, (std::vector<SequenceId>{1, 2, 3, 101, 4, 5, 6, 102, 7, 8, 9, 103}));
}

SchedulerOptions Large() {
  return {.block_size = 16, .num_blocks = 1024, .max_batch_rows = 64, .max_step_tokens = 256};
}

TEST(Scheduler, ANewClientsPromptSharesTheNextStepWithThoseOfAClientThatSentMany) {
  Scheduler scheduler(Large());
  for (SequenceId id = 1; id <= 40; ++id) Add(scheduler, id, 200, 200, false, /*client=*/1);
  EXPECT_EQ(scheduler.Plan(), (Step{{1, 0, 200}, {2, 0, 56}}));
  Add(scheduler, 100, 30, 60, false, /*client=*/2);
  const Step step = scheduler.Plan();
  EXPECT_EQ(step.back(), (StepItem{100, 0, 30}));
}

TEST(Scheduler, ClientsWithLongPromptsGetEqualSharesOfAStep) {
  Scheduler scheduler(Large());
  Add(scheduler, 1, 1000, 1000, false, 7);
  Add(scheduler, 2, 1000, 1000, false, 8);
  Add(scheduler, 3, 1000, 1000, false, 7);
  EXPECT_EQ(scheduler.Plan(), (Step{{1, 0, 128}, {2, 0, 128}}));
}

TEST(Scheduler, TheClientThatBeginsAStepChanges) {
  SchedulerOptions options = Large();
  options.max_step_tokens = 64;
  Scheduler scheduler(options);
  for (SequenceId id = 1; id <= 3; ++id) {
    Add(scheduler, id, 200, 200, false, static_cast<ClientId>(id));
  }
  std::vector<SequenceId> served;
  std::map<SequenceId, int64_t> fed;
  for (int i = 0; i < 6; ++i) {
    const Step step = scheduler.Plan();
    ASSERT_EQ(step.size(), 1u);
    served.push_back(step[0].id);
    fed[step[0].id] += step[0].count;
    scheduler.Advance(step[0].id, fed[step[0].id], 200);
  }
  EXPECT_EQ(served, (std::vector<SequenceId>{1, 2, 3, 1, 2, 3}));
}

TEST(Scheduler, AdmitsClientsInTurn) {
  SchedulerOptions options = Large();
  options.max_batch_rows = 1;
  Scheduler scheduler(options);
  for (SequenceId id = 1; id <= 4; ++id) Add(scheduler, id, 1, 1, false, 1);
  Add(scheduler, 50, 1, 1, false, 2);
  std::vector<SequenceId> order;
  for (Step step = scheduler.Plan(); !step.empty(); step = scheduler.Plan()) {
    order.push_back(step[0].id);
    scheduler.Remove(step[0].id);
  }
  EXPECT_EQ(order, (std::vector<SequenceId>{1, 50, 2, 3, 4}));
}

TEST(Scheduler, TheBackgroundsPromptsKeepAQuarterOfAStepWithPeopleAndGetWhatIsLeftUpToABound) {
  Scheduler scheduler(Large());
  Add(scheduler, 1, 1000, 1000, true, 1);
  EXPECT_EQ(scheduler.Plan(), (Step{{1, 0, 256}}));
  Add(scheduler, 2, 1000, 1000, false, 2);
  EXPECT_EQ(scheduler.Plan(), (Step{{1, 0, 64}, {2, 0, 192}}));
  Add(scheduler, 3, 20, 40, false, 3);
  scheduler.Remove(2);
  EXPECT_EQ(scheduler.Plan(), (Step{{1, 0, 64}, {3, 0, 20}}));
  scheduler.BoundPrompts(100);
  EXPECT_EQ(scheduler.Plan(), (Step{{1, 0, 100}, {3, 0, 20}}));
  scheduler.BoundPrompts(1000);
  EXPECT_EQ(scheduler.Plan(), (Step{{1, 0, 236}, {3, 0, 20}}));
  scheduler.BoundPrompts(1);
  EXPECT_EQ(scheduler.Plan(), (Step{{1, 0, 64}, {3, 0, 20}}));
  scheduler.Advance(3, 20, 21);  // decodes
  EXPECT_EQ(scheduler.Plan(), (Step{{3, 20, 1}, {1, 0, 64}}));
  scheduler.Remove(3);
  EXPECT_EQ(scheduler.Plan(), (Step{{1, 0, 256}}));
}

TEST(Scheduler, APromptAddsNoMoreToAStepOfAnswersThanIsSaidOrThanAnswersHave) {
  SchedulerOptions options = Large();
  options.max_batch_rows = 200;
  Scheduler scheduler(options);
  Add(scheduler, 1, 1, 40, false);
  scheduler.Plan();
  scheduler.Advance(1, 1, 2);
  Add(scheduler, 2, 1000, 1000, false);
  EXPECT_EQ(scheduler.Plan(), (Step{{1, 1, 1}, {2, 0, 64}}));
  scheduler.BoundPrompts(100);
  EXPECT_EQ(scheduler.Plan(), (Step{{1, 1, 1}, {2, 0, 100}}));
  scheduler.BoundPrompts(1000);
  EXPECT_EQ(scheduler.Plan(), (Step{{1, 1, 1}, {2, 0, 255}}));
  scheduler.BoundPrompts(1);
  for (SequenceId id = 3; id < 103; ++id) Add(scheduler, id, 1, 3, false);
  scheduler.Plan();
  for (SequenceId id = 3; id < 103; ++id) scheduler.Advance(id, 1, 2);
  int64_t prompt = 0;
  for (const StepItem& item : scheduler.Plan()) prompt += item.id == 2 ? item.count : 0;
  EXPECT_EQ(prompt, 101);
}

TEST(Scheduler, BesideAnswersOfTheBackgroundAloneAPromptHasTheRestOfTheStep) {
  Scheduler scheduler(Large());
  Add(scheduler, 1, 1, 40, true);
  scheduler.Plan();
  scheduler.Advance(1, 1, 2);
  Add(scheduler, 2, 1000, 1000, false);
  EXPECT_EQ(scheduler.Plan(), (Step{{1, 1, 1}, {2, 0, 255}}));
}

TEST(Scheduler, RunsTheBackgroundWhereNobodyElseWaits) {
  Scheduler scheduler(Options());
  Add(scheduler, 7, 2, 4, true);
  Add(scheduler, 8, 2, 4, true);
  EXPECT_EQ(scheduler.Plan(), (Step{{7, 0, 2}, {8, 0, 2}}));
}

TEST(Scheduler, RemovingFreesBlocks) {
  Scheduler scheduler(Options());
  Add(scheduler, 1, 2, 32, false);
  scheduler.Plan();
  EXPECT_EQ(scheduler.promised_ratio(), 1.0);
  scheduler.Remove(1);
  EXPECT_EQ(scheduler.promised_ratio(), 0);
  EXPECT_EQ(scheduler.num_running(), 0);
  Add(scheduler, 2, 2, 32, false);
  EXPECT_EQ(scheduler.Plan(), (Step{{2, 0, 2}}));
}

TEST(Scheduler, RemovingAWaitingSequenceLetsTheNextOneIn) {
  Scheduler scheduler(Options());
  Add(scheduler, 1, 2, 20, false);
  Add(scheduler, 2, 2, 20, false);
  Add(scheduler, 3, 2, 4, false);
  Add(scheduler, 4, 2, 4, true);
  scheduler.Plan();
  scheduler.Remove(2);
  scheduler.Remove(4);
  EXPECT_EQ(scheduler.num_waiting(), 1);
  EXPECT_EQ(scheduler.Plan(), (Step{{1, 0, 2}, {3, 0, 2}}));
  EXPECT_EQ(scheduler.num_waiting(), 0);
}

TEST(Scheduler, RemovingAStrangerChangesNothing) {
  Scheduler scheduler(Options());
  Add(scheduler, 1, 2, 4, false);
  scheduler.Remove(99);
  EXPECT_EQ(scheduler.num_waiting(), 1);
}

TEST(Scheduler, StartsOverWithTheSameBlocks) {
  Scheduler scheduler(Options());
  std::map<SequenceId, int64_t> known{{1, 4}};
  scheduler.Add({.id = 1, .known = 4, .max_fed = 12, .run_from = 5, .may_start_over = true});
  for (int step = 0; step < 6; ++step) RunStep(scheduler, known);
  const std::vector<int64_t> blocks = scheduler.Blocks(1);
  // Only what must be seen again runs again, from the beginning of its block.
  EXPECT_EQ(scheduler.StartOver(1, 7), 4);
  EXPECT_EQ(scheduler.Blocks(1), blocks);
  EXPECT_EQ(scheduler.Plan(), (Step{{1, 4, 3}}));
}

TEST(Scheduler, KnowsWhatNeverFits) {
  EXPECT_TRUE(Options().CanEverFit(32));
  EXPECT_FALSE(Options().CanEverFit(33));
}

// --- Reservations
// ---------------------------------------------------------------------------------

// Places that sequences reserve: as many as each needs.
class Places : public Scheduler::Reservations {
 public:
  Places(Scheduler& scheduler, int64_t free) : scheduler_(scheduler), free_(free) {}

  void Add(SequenceId id, int64_t needed, bool background = false) {
    needed_[id] = needed;
    scheduler_.Add(
        {.id = id, .known = 1, .max_fed = 4, .background = background, .reserves = needed > 0});
  }
  bool Reserve(SequenceId id) override {
    asked_.push_back(id);
    if (needed_[id] > free_) return false;
    free_ -= needed_[id];
    return true;
  }
  bool Ready(SequenceId id) override { return !unready_.contains(id); }

  std::vector<StepItem> Plan() {
    asked_.clear();
    return scheduler_.Plan(*this);
  }
  // What it reserves takes until it is told to be ready.
  void TakesTime(SequenceId id) { unready_.insert(id); }
  void GetsReady(SequenceId id) { unready_.erase(id); }
  void End(SequenceId id) {
    if (scheduler_.IsRunning(id)) free_ += needed_[id];
    scheduler_.Remove(id);
  }
  std::vector<SequenceId> Running() const {
    std::vector<SequenceId> running;
    for (const auto& [id, needed] : needed_) {
      if (scheduler_.IsRunning(id)) running.push_back(id);
    }
    return running;
  }
  const std::vector<SequenceId>& asked() const { return asked_; }

 private:
  Scheduler& scheduler_;
  int64_t free_;
  std::map<SequenceId, int64_t> needed_;
  std::set<SequenceId> unready_;
  std::vector<SequenceId> asked_;  // by the last plan
};

using Ids = std::vector<SequenceId>;

TEST(Scheduler, WhoFindsNothingToReserveIsPassedByThoseWhoNeedNothingAndByNobodyElse) {
  SchedulerOptions options = Options();
  options.max_batch_rows = 8;
  Scheduler scheduler(options);
  Places places(scheduler, 3);
  places.Add(1, 2);
  places.Add(2, 2);
  places.Add(3, 1);  // there is one, but the second would then wait the longer
  places.Add(4, 0);
  places.Plan();
  EXPECT_EQ(places.Running(), (Ids{1, 4}));
  EXPECT_EQ(places.asked(), (Ids{1, 2}));
  EXPECT_EQ(scheduler.num_waiting(), 2);
  places.Add(5, 1);
  places.Add(6, 0);
  places.Plan();
  EXPECT_EQ(places.Running(), (Ids{1, 4, 6}));
  EXPECT_EQ(places.asked(), (Ids{2}));
  places.End(1);
  places.Plan();
  EXPECT_EQ(places.Running(), (Ids{2, 3, 4, 6}));
  places.End(2);
  places.Plan();
  EXPECT_EQ(places.Running(), (Ids{3, 4, 5, 6}));
  EXPECT_EQ(scheduler.num_waiting(), 0);
}

TEST(Scheduler, WhoseReservationIsNotReadyIsInNoStepAndKeepsNobodyElseWaiting) {
  Scheduler scheduler(Options());
  Places places(scheduler, 2);
  places.TakesTime(1);
  places.Add(1, 1);
  places.Add(2, 1);
  places.Add(3, 0);
  EXPECT_EQ(places.Plan(), (Step{{2, 0, 1}, {3, 0, 1}}));
  EXPECT_EQ(places.Running(), (Ids{1, 2, 3}));
  scheduler.Advance(2, 1, 2);
  EXPECT_EQ(places.Plan(), (Step{{2, 1, 1}, {3, 0, 1}}));
  EXPECT_EQ(places.asked(), (Ids{}));  // its place was taken and stays
  places.GetsReady(1);
  EXPECT_EQ(places.Plan(), (Step{{1, 0, 1}, {2, 1, 1}, {3, 0, 1}}));
}

TEST(Scheduler, WhoseReservationIsNotReadyComputesNoBlockThatOthersWaitFor) {
  Scheduler scheduler(Options());
  Places places(scheduler, 1);
  places.TakesTime(1);
  const std::vector<BlockKey> keys = {"block"};
  scheduler.Add({.id = 1, .known = 6, .max_fed = 8, .keys = keys, .reserves = true});
  scheduler.Add({.id = 2, .known = 6, .max_fed = 8, .keys = keys});
  EXPECT_EQ(places.Plan(), (Step{{2, 0, 6}}));
  scheduler.Advance(2, 6, 7);
  places.GetsReady(1);
  EXPECT_EQ(places.Plan(), (Step{{2, 6, 1}, {1, 4, 2}}));
}

TEST(Scheduler, WhoIsSetAsideCanBeRemovedAndTheBackgroundLeavesToPeopleWhatTheyWaitFor) {
  SchedulerOptions options = Options();
  options.max_batch_rows = 8;
  Scheduler scheduler(options);
  Places places(scheduler, 3);
  places.Add(1, 2);
  places.Add(2, 2);
  places.Add(3, 1, /*background=*/true);
  places.Plan();
  EXPECT_EQ(places.Running(), (Ids{1}));
  EXPECT_EQ(scheduler.num_waiting(), 2);
  places.End(2);
  EXPECT_EQ(scheduler.num_waiting(), 1);
  places.Plan();
  EXPECT_EQ(places.Running(), (Ids{1, 3}));
  places.End(1);
  places.End(3);
  places.Plan();
  EXPECT_EQ(scheduler.num_waiting(), 0);
  EXPECT_EQ(scheduler.num_running(), 0);
}

}  // namespace
}  // namespace valuescope::engine
