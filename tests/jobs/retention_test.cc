#include "jobs/retention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "base/clock.h"
#include "store/sqlite_store.h"
#include "tests/jobs/letters_kind.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::jobs {
namespace {

class RetentionTest : public testing::Test {
 protected:
  void SetUp() override {
    auto store = store::OpenSqliteStore(folder_ / "store.db", {.clock = &clock_});
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    queue_ = std::make_unique<JobQueue>(store_.get(), &clock_);
  }

  RetentionOptions KeepingForADay() {
    RetentionOptions options;
    options.kept.jobs = absl::Hours(24);
    options.rows_at_once = 1;
    options.on_expired = [this](const store::Expired& expired) {
      removed_.insert(removed_.end(), expired.jobs.begin(), expired.jobs.end());
    };
    return options;
  }

  std::string Cancelled() {
    std::string id = queue_->Create(LettersKind::Job(), {})->job.id;
    EXPECT_TRUE(queue_->Cancel("lab", id).ok());
    return id;
  }

  TemporaryFolder folder_;
  FakeClock clock_;
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<JobQueue> queue_;
  std::vector<std::string> removed_;
};

TEST_F(RetentionTest, ALookRemovesAllThatIsDueHoweverManyTransactionsItTakes) {
  RetentionSweeper sweeper(queue_.get(), KeepingForADay());
  const std::vector<std::string> due = {Cancelled(), Cancelled(), Cancelled()};
  clock_.Advance(absl::Hours(23));
  const std::string young = Cancelled();
  sweeper.Sweep();
  EXPECT_THAT(removed_, testing::IsEmpty());
  clock_.Advance(absl::Hours(1));
  sweeper.Sweep();
  EXPECT_THAT(removed_, testing::UnorderedElementsAreArray(due));
  EXPECT_TRUE(queue_->Get("lab", young).ok());
}

TEST_F(RetentionTest, WatchersOfAJobThatIsRemovedHearThatItIsGone) {
  RetentionSweeper sweeper(queue_.get(), KeepingForADay());
  const std::string id = Cancelled();
  int wakes = 0;
  const auto watcher = queue_->Watch("lab", id, [&] { ++wakes; });
  ASSERT_TRUE(watcher->TakeChange().ok());
  clock_.Advance(absl::Hours(24));
  sweeper.Sweep();
  EXPECT_EQ(wakes, 1);
  EXPECT_EQ(watcher->TakeChange().status().code(), absl::StatusCode::kNotFound);
}

TEST_F(RetentionTest, ItsThreadLooksAtOnceAndEndsWithIt) {
  Cancelled();
  clock_.Advance(absl::Hours(24));
  absl::Notification looked;
  RetentionOptions options = KeepingForADay();
  options.on_expired = [&](const store::Expired&) { looked.Notify(); };
  RetentionSweeper sweeper(queue_.get(), std::move(options));
  sweeper.Start();
  EXPECT_TRUE(looked.WaitForNotificationWithTimeout(absl::Seconds(30)));
}

}  // namespace
}  // namespace valuescope::jobs
