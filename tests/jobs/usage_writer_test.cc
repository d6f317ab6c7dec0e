#include "jobs/usage_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

namespace valuescope::jobs {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;
using testing::SizeIs;

// A store as far as the writer sees one.
class UsageWriterTest : public testing::Test {
 protected:
  absl::Status Add(const store::UsageBatch& batch) {
    absl::MutexLock lock(&mutex_);
    batches_.push_back(batch);
    return answer_;
  }

  absl::Mutex mutex_;
  std::vector<store::UsageBatch> batches_;  // as they came
  absl::Status answer_;
  UsageTally tally_;
  UsageWriter writer_{[this](const store::UsageBatch& batch) { return Add(batch); }, &tally_};
};

TEST_F(UsageWriterTest, EachBatchIsWhatWasCountedSinceTheOneBefore) {
  tally_.CountCall("lab");
  tally_.CountTokens("lab", 10, 3);
  tally_.CountTokens("other", 1, 0);
  EXPECT_TRUE(writer_.Write().ok());
  tally_.CountCall("lab");
  EXPECT_TRUE(writer_.Write().ok());
  ASSERT_THAT(batches_, SizeIs(2));
  EXPECT_THAT(batches_[0].usage,
              ElementsAre(Pair("lab", UsageCounts{1, 10, 3}), Pair("other", UsageCounts{0, 1, 0})));
  EXPECT_THAT(batches_[1].usage, ElementsAre(Pair("lab", UsageCounts{1, 0, 0})));
  EXPECT_GT(batches_[1].number, batches_[0].number);
  EXPECT_EQ(batches_[1].writer, batches_[0].writer);
}

TEST_F(UsageWriterTest, WhereNobodyUsedAnythingNothingIsWritten) {
  EXPECT_TRUE(writer_.Write().ok());
  tally_.CountTokens("lab", 0, 0);
  EXPECT_TRUE(writer_.Write().ok());
  EXPECT_THAT(batches_, IsEmpty());
}

TEST_F(UsageWriterTest, WhatTheStoreDidNotTakeIsSentAgainAsItWasAndBeforeTheRest) {
  answer_ = absl::UnavailableError("gone");
  tally_.CountCall("lab");
  EXPECT_EQ(writer_.Write(), answer_);
  tally_.CountTokens("lab", 5, 5);
  EXPECT_EQ(writer_.Write(), answer_);
  answer_ = absl::OkStatus();
  EXPECT_TRUE(writer_.Write().ok());
  ASSERT_THAT(batches_, SizeIs(4));
  for (const store::UsageBatch& batch : {batches_[1], batches_[2]}) {
    EXPECT_EQ(batch.number, batches_[0].number) << "the store may have it already";
    EXPECT_EQ(batch.usage, batches_[0].usage);
  }
  EXPECT_GT(batches_[3].number, batches_[0].number);
  EXPECT_THAT(batches_[3].usage, ElementsAre(Pair("lab", UsageCounts{0, 5, 5})));
}

TEST_F(UsageWriterTest, TwoWritersOfOneStoreAreTwo) {
  UsageWriter another([this](const store::UsageBatch& batch) { return Add(batch); }, &tally_);
  tally_.CountCall("lab");
  EXPECT_TRUE(writer_.Write().ok());
  tally_.CountCall("lab");
  EXPECT_TRUE(another.Write().ok());
  ASSERT_THAT(batches_, SizeIs(2));
  EXPECT_NE(batches_[0].writer, batches_[1].writer);
}

TEST_F(UsageWriterTest, ItsThreadWritesAtOnceAndItsEndWritesTheRest) {
  absl::Notification written;
  UsageWriter writer(
      [&](const store::UsageBatch& batch) {
        const absl::Status added = Add(batch);
        if (!written.HasBeenNotified()) written.Notify();
        return added;
      },
      &tally_, {.pause = absl::InfiniteDuration()});
  tally_.CountCall("lab");
  writer.Start();
  written.WaitForNotification();
  tally_.CountCall("late");
  writer.Stop();
  ASSERT_THAT(batches_, SizeIs(2));
  EXPECT_THAT(batches_[1].usage, ElementsAre(Pair("late", UsageCounts{1, 0, 0})));
}

}  // namespace
}  // namespace valuescope::jobs
