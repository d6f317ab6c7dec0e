// Two servers on one database in PostgreSQL and one directory of blobs: each does what the other
// queues, and hears of what it did.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "jobs/job_queue.h"
#include "jobs/replica_beat.h"
#include "jobs/worker.h"
#include "store/directory_blob_store.h"
#include "store/postgres_store.h"
#include "tests/jobs/await_job.h"
#include "tests/jobs/letters_kind.h"
#include "tests/store/postgres_server.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::jobs {
namespace {

using store::JobState;

// Long enough that nothing happens because time passed: whatever a test sees was told.

// A server's half that matters here. Its worker does not look for work by itself.
struct SharingHouse {
  explicit SharingHouse(const TemporaryFolder& folder) {
    store = store::OpenPostgresStore(store::PostgresServer::Get().Url()).value();
    blobs = store::OpenDirectoryBlobStore(folder / "blobs", store::LockMode::kShared).value();
    queue = std::make_unique<JobQueue>(store.get());
    WorkerOptions options;
    options.lease = options.beat = options.sweep = options.poll = kNever;
    worker =
        std::make_unique<Worker>(queue.get(), blobs.get(), std::vector<JobKind*>{&kind}, options);
  }

  absl::StatusOr<JobSnapshot> Await(const std::string& id, JobState state) {
    return AwaitJob(*queue, "lab", id, absl::Now() + kPatience,
                    [state](const JobSnapshot& now) { return now.job.state == state; });
  }

  LettersKind kind;
  std::unique_ptr<store::Store> store;
  std::unique_ptr<store::BlobStore> blobs;
  std::unique_ptr<JobQueue> queue;
  std::unique_ptr<Worker> worker;
};

class SharedStoreTest : public testing::Test {
 protected:
  void SetUp() override { store::PostgresServer::Get().Clear(); }

  TemporaryFolder folder_;
};

TEST_F(SharedStoreTest, AWorkerDoesWhatAnotherServerQueuesWhoseWatchersSeeIt) {
  SharingHouse asked(folder_), working(folder_);
  working.worker->Start();
  const std::string id = asked.queue->Create(LettersKind::Job("lab", /*shards=*/3), {})->job.id;
  const auto done = asked.Await(id, JobState::kSucceeded);
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_EQ(done->job.work_done, 12);
  EXPECT_TRUE(asked.kind.computed().empty());
  EXPECT_EQ(working.kind.computed().size(), 12u);
  const auto artifact =
      asked.store->GetResource("lab", store::ResourceKind::kArtifact, id + ".letters");
  ASSERT_TRUE(artifact.ok()) << artifact.status();
  EXPECT_EQ(*store::ReadBlob(*asked.blobs, artifact->blob_digest, 100), "abcd|efgh|ijkl");
}

TEST_F(SharedStoreTest, TwoServersShareTheShardsOfAJob) {
  SharingHouse first(folder_), second(folder_);
  // Neither runs out of work before the other has had some.
  absl::Notification first_began, second_began;
  const auto meet = [](absl::Notification& own, absl::Notification& other) {
    return [&own, &other, began = false](ShardContext&, int64_t) mutable {
      if (!began) own.Notify();
      began = true;
      other.WaitForNotificationWithTimeout(kPatience);
      return absl::OkStatus();
    };
  };
  first.kind.before_chunk = meet(first_began, second_began);
  second.kind.before_chunk = meet(second_began, first_began);
  first.worker->Start();
  second.worker->Start();
  const std::string id = first.queue->Create(LettersKind::Job(), {})->job.id;
  const auto done = second.Await(id, JobState::kSucceeded);
  ASSERT_TRUE(done.ok()) << done.status();
  std::vector<std::string> computed = first.kind.computed();
  const std::vector<std::string> others = second.kind.computed();
  EXPECT_FALSE(computed.empty());
  EXPECT_FALSE(others.empty());
  computed.insert(computed.end(), others.begin(), others.end());
  EXPECT_EQ(computed.size(), 48u);
  EXPECT_EQ(std::set<std::string>(computed.begin(), computed.end()).size(), 48u)
      << "no chunk twice";
}

TEST_F(SharedStoreTest, AJobIsStoppedByAnotherServerThanTheOneThatRunsIt) {
  SharingHouse asked(folder_), working(folder_);
  absl::Notification started;
  working.kind.before_chunk = [&](ShardContext& context, int64_t chunk) {
    if (chunk != 1) return absl::OkStatus();
    started.Notify();
    while (!context.cancellation().cancelled()) absl::SleepFor(absl::Milliseconds(1));
    return absl::OkStatus();
  };
  working.worker->Start();
  const std::string id = asked.queue->Create(LettersKind::Job(), {})->job.id;
  ASSERT_TRUE(started.WaitForNotificationWithTimeout(kPatience));
  ASSERT_TRUE(asked.queue->Cancel("lab", id).ok());
  const auto ended = asked.Await(id, JobState::kCancelled);
  EXPECT_TRUE(ended.ok()) << ended.status();
}

TEST_F(SharedStoreTest, AJobWaitsForNothingWhileAnotherServerHasWhatItNeeds) {
  SharingHouse asked(folder_), other(folder_);
  asked.kind.readiness = [](absl::string_view) { return NotReady("`models/a` is not loaded"); };
  asked.queue->SetKinds({&asked.kind});
  absl::Mutex mutex;
  std::vector<std::string> has;
  ReplicaBeat beat(other.store.get(),
                   [&] {
                     absl::MutexLock lock(&mutex);
                     return store::Replica{.id = "",
                                           .started_at = {},
                                           .seen_at = {},
                                           .kinds = {"letters"},
                                           .has = has,
                                           .record = ""};
                   },
                   {.beat = kNever, .on_error = nullptr});
  store::NewJob job = LettersKind::Job();
  job.needs = "models/a;1";
  const std::string id = asked.queue->Create(job, {})->job.id;
  const auto await = [&](auto condition) {
    const auto seen = AwaitJob(*asked.queue, "lab", id, absl::Now() + kPatience,
                               [&](const JobSnapshot& now) { return condition(now.waiting_for); });
    EXPECT_TRUE(seen.ok()) << seen.status();
    return seen.ok() ? seen->waiting_for : "";
  };
  beat.Start();
  EXPECT_EQ(await([](const std::string& text) { return absl::StrContains(text, "(1)"); }),
            "`models/a` is not loaded; none of the servers that share the store (1) can run it");
  {
    absl::MutexLock lock(&mutex);
    has = {"models/a;1"};
  }
  beat.Notify();
  await([](const std::string& text) { return text.empty(); });
  beat.Stop();
  await([](const std::string& text) { return !text.empty(); });
}

}  // namespace
}  // namespace valuescope::jobs
