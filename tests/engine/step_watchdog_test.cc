// A step is called stuck once, by its age alone, and no longer than it is.
#include "engine/step_watchdog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace valuescope::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class StepWatchdogTest : public ::testing::Test {
 protected:
  StepWatchdog Watching(absl::Duration limit) {
    return StepWatchdog(
        limit, &clock_,
        {.on_stuck =
             [this](const std::string& model, absl::Duration running) {
               told_.push_back(model + " " + absl::FormatDuration(running));
             },
         .on_moving = [this](const std::string& model) { told_.push_back(model); }});
  }

  FakeClock clock_;
  std::vector<std::string> told_;
};

TEST_F(StepWatchdogTest, AStepThatOutlivesTheLimitIsToldOnceAndSoIsItsEnd) {
  StepWatchdog watchdog = Watching(absl::Seconds(10));
  const absl::Time began = clock_.Now();
  clock_.Advance(absl::Seconds(10));
  EXPECT_TRUE(watchdog.Look({{"a", began}}));
  clock_.Advance(absl::Seconds(1));
  EXPECT_FALSE(watchdog.Look({{"a", began}}));
  clock_.Advance(absl::Seconds(1));
  EXPECT_FALSE(watchdog.Look({{"a", began}}));
  EXPECT_THAT(told_, ElementsAre("a 11s"));
  EXPECT_TRUE(watchdog.Look({{"a", clock_.Now()}}));
  EXPECT_THAT(told_, ElementsAre("a 11s", "a"));
}

TEST_F(StepWatchdogTest, AnEngineWithoutWorkIsNeverStuckHoweverLongItWaits) {
  StepWatchdog watchdog = Watching(absl::Seconds(10));
  clock_.Advance(absl::Hours(100));
  EXPECT_TRUE(watchdog.Look({{"a", absl::InfiniteFuture()}}));
  EXPECT_THAT(told_, IsEmpty());
}

TEST_F(StepWatchdogTest, OneModelIsEnoughAndEachIsTold) {
  StepWatchdog watchdog = Watching(absl::Seconds(10));
  const absl::Time began = clock_.Now();
  clock_.Advance(absl::Seconds(11));
  EXPECT_FALSE(watchdog.Look({{"a", began}, {"b", clock_.Now()}}));
  clock_.Advance(absl::Seconds(11));
  EXPECT_FALSE(watchdog.Look({{"a", began}, {"b", began}}));
  EXPECT_THAT(told_, ElementsAre("a 11s", "b 22s"));
}

TEST_F(StepWatchdogTest, AModelThatIsGoneIsNotStuck) {
  StepWatchdog watchdog = Watching(absl::Seconds(10));
  const absl::Time began = clock_.Now();
  clock_.Advance(absl::Seconds(11));
  EXPECT_FALSE(watchdog.Look({{"a", began}}));
  EXPECT_TRUE(watchdog.Look({}));
  EXPECT_THAT(told_, ElementsAre("a 11s", "a"));
}

TEST_F(StepWatchdogTest, ALimitOfZeroWatchesNothing) {
  StepWatchdog watchdog = Watching(absl::ZeroDuration());
  const absl::Time began = clock_.Now();
  clock_.Advance(absl::Hours(100));
  EXPECT_TRUE(watchdog.Look({{"a", began}}));
}

}  // namespace
}  // namespace valuescope::engine
