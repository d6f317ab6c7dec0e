// A shard that fails each time it is tried ends its own job, with its cause, and no other: whether
// it returns an error or takes its whole process with it.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "base/error.h"
#include "jobs/job_queue.h"
#include "jobs/worker.h"
#include "store/directory_blob_store.h"
#include "store/sqlite_store.h"
#include "tests/jobs/await_job.h"
#include "tests/jobs/letters_kind.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::jobs {
namespace {

using store::JobState;

constexpr int64_t kPoisoned = 1;  // shard
constexpr char kPoison[] = "poison";

bool IsPoison(const ShardContext& context) {
  return context.spec() == kPoison && context.shard() == kPoisoned;
}

store::NewJob PoisonedJob() {
  store::NewJob job = LettersKind::Job("lab", /*shards=*/3);
  job.spec = kPoison;
  return job;
}

// A server's half that matters here.
struct PoisonedHouse {
  PoisonedHouse(const TemporaryFolder& folder, LettersKind* kind) {
    store::SqliteStoreOptions options;
    options.retry.failure_backoff = absl::ZeroDuration();
    store = store::OpenSqliteStore(folder / "store.db", options).value();
    blobs = store::OpenDirectoryBlobStore(folder / "blobs").value();
    queue = std::make_unique<JobQueue>(store.get());
    worker = std::make_unique<Worker>(queue.get(), blobs.get(), std::vector<JobKind*>{kind});
  }

  store::Job Finished(const std::string& tenant, const std::string& id) {
    const auto snapshot =
        AwaitJob(*queue, tenant, id, absl::Now() + kPatience,
                 [](const JobSnapshot& now) { return store::IsFinished(now.job.state); });
    EXPECT_TRUE(snapshot.ok()) << snapshot.status();
    return snapshot.ok() ? snapshot->job : store::Job();
  }

  std::unique_ptr<store::Store> store;
  std::unique_ptr<store::BlobStore> blobs;
  std::unique_ptr<JobQueue> queue;
  std::unique_ptr<Worker> worker;
};

// Jobs before and behind the poisoned one, of its tenant and of another.
struct Jobs {
  explicit Jobs(JobQueue& queue)
      : before(queue.Create(LettersKind::Job("lab", /*shards=*/2), {})->job.id),
        poisoned(queue.Create(PoisonedJob(), {})->job.id),
        behind(queue.Create(LettersKind::Job("lab", /*shards=*/2), {})->job.id),
        other(queue.Create(LettersKind::Job("other", /*shards=*/2), {})->job.id) {}

  void ExpectNeighboursSucceed(PoisonedHouse& house) const {
    EXPECT_EQ(house.Finished("lab", before).state, JobState::kSucceeded);
    EXPECT_EQ(house.Finished("lab", behind).state, JobState::kSucceeded);
    EXPECT_EQ(house.Finished("other", other).state, JobState::kSucceeded);
  }

  const std::string before, poisoned, behind, other;
};

TEST(PoisonTest, AShardThatFailsEachTimeEndsItsJobWithItsCauseAndNoOther) {
  TemporaryFolder folder;
  LettersKind kind;
  kind.before_chunk = [](ShardContext& context, int64_t chunk) {
    if (!IsPoison(context) || chunk != 1) return absl::OkStatus();
    return ErrorWithReason(absl::StatusCode::kInternal, "NOT_A_NUMBER", "a sum is not a number");
  };
  PoisonedHouse house(folder, &kind);
  const Jobs jobs(*house.queue);
  house.worker->Start();
  const store::Job failed = house.Finished("lab", jobs.poisoned);
  EXPECT_EQ(failed.state, JobState::kFailed);
  ASSERT_TRUE(failed.error.has_value());
  EXPECT_EQ(failed.error->reason, "NOT_A_NUMBER");
  EXPECT_EQ(failed.error->message, "a sum is not a number");
  EXPECT_EQ(failed.error->shard, kPoisoned);
  jobs.ExpectNeighboursSucceed(house);
}

// Runs a worker in a process of its own until that dies.
void LiveAndDie(const TemporaryFolder& folder) {
  const pid_t child = fork();
  if (child == 0) {
    LettersKind kind;
    kind.before_chunk = [](ShardContext& context, int64_t) {
      if (IsPoison(context)) raise(SIGKILL);
      return absl::OkStatus();
    };
    PoisonedHouse house(folder, &kind);
    house.worker->Start();
    while (true) pause();
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST(PoisonTest, AShardThatKillsItsProcessEachTimeEndsItsJobAndNoOther) {
  TemporaryFolder folder;
  std::unique_ptr<Jobs> jobs;
  {
    LettersKind kind;
    jobs = std::make_unique<Jobs>(*PoisonedHouse(folder, &kind).queue);
  }
  for (int life = 0; life < 3; ++life) LiveAndDie(folder);
  LettersKind kind;
  PoisonedHouse house(folder, &kind);
  const store::Job failed = house.queue->Get("lab", jobs->poisoned)->job;
  EXPECT_EQ(failed.state, JobState::kFailed);
  ASSERT_TRUE(failed.error.has_value());
  EXPECT_EQ(failed.error->reason, "WORKER_LOST");
  EXPECT_EQ(failed.error->shard, kPoisoned);
  house.worker->Start();
  jobs->ExpectNeighboursSucceed(house);
}

}  // namespace
}  // namespace valuescope::jobs
