// Partials as blobs, in a directory and in S3: what a commit writes, what goes when, and what
// happens where one is lost.
#include "jobs/stored_partial.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "jobs/worker.h"
#include "store/directory_blob_store.h"
#include "store/sqlite_store.h"
#include "tests/jobs/await_job.h"
#include "tests/jobs/letters_kind.h"
#include "tests/store/blobs_under_test.h"
#include "tests/store/counting_disk.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::jobs {
namespace {

using store::JobState;
using testing::Each;
using testing::HasSubstr;

constexpr int64_t kShards = 3;

class StoredPartialTest : public testing::TestWithParam<store::BlobPlace> {
 protected:
  void SetUp() override {
    auto store = store::OpenSqliteStore(folder_ / "store.db",
                                        {.retry = {.failure_backoff = absl::ZeroDuration()}});
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    auto blobs = place_->Open();
    ASSERT_TRUE(blobs.ok()) << blobs.status();
    blobs_ = *std::move(blobs);
    queue_ = std::make_unique<JobQueue>(store_.get());
  }

  // Every checkpoint is committed, and its partial a blob.
  std::unique_ptr<Worker> MakeWorker(LettersKind* kind) {
    WorkerOptions options;
    options.poll = options.scan = kNever;
    options.sweep = absl::Milliseconds(5);
    options.turns.commit_interval = absl::ZeroDuration();
    options.turns.partial_in_row = 0;
    options.observer.on_store_error = [this](const absl::Status& status) {
      absl::MutexLock lock(&mutex_);
      errors_.push_back(std::string(status.message()));
    };
    return std::make_unique<Worker>(queue_.get(), blobs_.get(), std::vector<JobKind*>{kind},
                                    std::move(options));
  }

  std::string Create() {
    const auto created = queue_->Create(LettersKind::Job("lab", kShards), {});
    EXPECT_TRUE(created.ok()) << created.status();
    return created->job.id;
  }

  store::Job AwaitEnd(const std::string& id) {
    const auto end = AwaitJob(*queue_, "lab", id, absl::Now() + kPatience,
                              [](const auto& now) { return store::IsFinished(now.job.state); });
    EXPECT_TRUE(end.ok()) << end.status();
    return end->job;
  }

  std::string ArtifactOf(const std::string& id) {
    const auto artifact =
        store_->GetResource("lab", store::ResourceKind::kArtifact, id + ".letters");
    EXPECT_TRUE(artifact.ok()) << artifact.status();
    return artifact.ok() ? *store::ReadBlob(*blobs_, artifact->blob_digest, 1000) : "";
  }

  std::vector<std::string> Errors() {
    absl::MutexLock lock(&mutex_);
    return errors_;
  }

  // Waits until there are so many blobs.
  void AwaitKept(int blobs) {
    const absl::Time deadline = absl::Now() + kPatience;
    while (place_->Kept() != blobs && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(2));
    EXPECT_EQ(place_->Kept(), blobs);
  }

  static constexpr char kLetters[] = "abcd|efgh|ijkl";

  const TemporaryFolder folder_;
  const std::unique_ptr<store::BlobsUnderTest> place_ = store::MakeBlobs(GetParam());
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<store::BlobStore> blobs_;
  std::unique_ptr<JobQueue> queue_;
  absl::Mutex mutex_;
  std::vector<std::string> errors_ ABSL_GUARDED_BY(mutex_);
};

INSTANTIATE_TEST_SUITE_P(Places, StoredPartialTest, testing::ValuesIn(store::kBlobPlaces),
                         store::NameOfPlace);

TEST_P(StoredPartialTest, OfAJobThatSucceededItsArtifactIsLeft) {
  LettersKind kind;
  const auto worker = MakeWorker(&kind);
  worker->Start();
  const std::string id = Create();
  EXPECT_EQ(AwaitEnd(id).state, JobState::kSucceeded);
  EXPECT_EQ(ArtifactOf(id), kLetters);
  AwaitKept(1);
  EXPECT_THAT(Errors(), testing::IsEmpty());
}

TEST_P(StoredPartialTest, AShardGoesOnFromABlobAndOfTwoCommitsTheLaterIsLeft) {
  LettersKind kind;
  std::atomic<bool> stop = true;
  kind.before_chunk = [&](ShardContext&, int64_t chunk) {
    return stop && chunk == 2 ? absl::InternalError("the machine failed") : absl::OkStatus();
  };
  const std::string id = Create();
  auto worker = MakeWorker(&kind);
  worker->Start();
  EXPECT_EQ(AwaitEnd(id).state, JobState::kFailed) << "it gets on no more";
  AwaitKept(1);
  EXPECT_EQ(queue_->Get("lab", id)->job.work_done, 2);
  stop = false;
  ASSERT_TRUE(queue_->Retry("lab", id, {}).ok());
  EXPECT_EQ(AwaitEnd(id).state, JobState::kSucceeded);
  EXPECT_EQ(ArtifactOf(id), kLetters);
  worker->Drain();
  EXPECT_THAT(kind.computed(), testing::SizeIs(kShards * LettersKind::kChunks));
}

// A finished shard and one that is not done, whose partials then are lost as `lose` does it.
class LostPartialTest : public StoredPartialTest {
 protected:
  void RunWithout(const std::function<void(const std::string& digest)>& lose,
                  const std::string& told) {
    LettersKind kind;
    std::atomic<bool> stop = true;
    kind.before_chunk = [&](ShardContext& context, int64_t chunk) {
      return stop && context.shard() == 1 && chunk == 2 ? absl::InvalidArgumentError("stop")
                                                        : absl::OkStatus();
    };
    const std::string id = Create();
    const auto worker = MakeWorker(&kind);
    worker->Start();
    EXPECT_EQ(AwaitEnd(id).state, JobState::kFailed);
    EXPECT_EQ(queue_->Get("lab", id)->job.work_done, 6);
    AwaitKept(2);
    // S3 tells ages in whole seconds: what was written in this one seems to be of the future.
    const auto digests = blobs_->List("", 10, /*age=*/-absl::Minutes(1)).value();
    EXPECT_EQ(digests.size(), 2u);
    for (const std::string& digest : digests) lose(digest);
    stop = false;
    ASSERT_TRUE(queue_->Retry("lab", id, {}).ok());
    const store::Job job = AwaitEnd(id);
    EXPECT_EQ(job.state, JobState::kSucceeded) << (job.error ? job.error->message : "");
    EXPECT_EQ(job.work_done, kShards * LettersKind::kChunks);
    EXPECT_EQ(ArtifactOf(id), kLetters);
    worker->Drain();
    EXPECT_EQ(kind.computed(),
              (std::vector<std::string>{"0.0", "0.1", "0.2", "0.3", "1.0", "1.1",  // and lost
                                        "1.0", "1.1", "1.2", "1.3", "2.0", "2.1", "2.2", "2.3",
                                        "0.0", "0.1", "0.2", "0.3"}));
    EXPECT_THAT(Errors(), Each(HasSubstr(told)));
    EXPECT_THAT(Errors(), testing::ElementsAre(HasSubstr("shard 1"), HasSubstr("shard 0")));
  }
};

INSTANTIATE_TEST_SUITE_P(Places, LostPartialTest, testing::ValuesIn(store::kBlobPlaces),
                         store::NameOfPlace);

TEST_P(LostPartialTest, AShardWhoseBlobIsGoneIsDoneAgain) {
  RunWithout(
      [&](const std::string& digest) {
        EXPECT_TRUE(blobs_->Remove(digest, absl::ZeroDuration()).ok());
      },
      "not in the blob store any more: the shard is done again from its start");
}

TEST_P(LostPartialTest, AShardWhoseBlobIsDamagedIsDoneAgain) {
  RunWithout(
      [&](const std::string& digest) {
        place_->PutStray(absl::StrCat(digest.substr(0, 2), "/", digest));
      },
      "damaged: the shard is done again from its start");
}

TEST_P(StoredPartialTest, AMergeThatFindsMorePartialsLostThanItMayFailGoesOnOnceTheyAreDoneAgain) {
  constexpr int kMany = 6;
  static_assert(kMany - 1 > store::RetryPolicy().max_shard_failures);
  LettersKind kind;
  std::atomic<bool> stop = true;
  kind.before_chunk = [&](ShardContext& context, int64_t chunk) {
    return stop && context.shard() == kMany - 1 && chunk == 0 ? absl::InvalidArgumentError("stop")
                                                              : absl::OkStatus();
  };
  const std::string id = queue_->Create(LettersKind::Job("lab", kMany), {})->job.id;
  const auto worker = MakeWorker(&kind);
  worker->Start();
  EXPECT_EQ(AwaitEnd(id).state, JobState::kFailed);
  AwaitKept(kMany - 1);
  const auto digests = blobs_->List("", kMany, /*age=*/-absl::Minutes(1)).value();
  for (const std::string& digest : digests) {
    EXPECT_TRUE(blobs_->Remove(digest, absl::ZeroDuration()).ok());
  }
  stop = false;
  ASSERT_TRUE(queue_->Retry("lab", id, {}).ok());
  const store::Job job = AwaitEnd(id);
  EXPECT_EQ(job.state, JobState::kSucceeded) << (job.error ? job.error->message : "");
  EXPECT_EQ(ArtifactOf(id), "abcd|efgh|ijkl|mnop|qrst|uvwx");
  worker->Drain();
  EXPECT_THAT(kind.computed(), testing::SizeIs((2 * kMany - 1) * LettersKind::kChunks));
  EXPECT_THAT(Errors(), testing::SizeIs(kMany - 1));
}

// A place that loses whatever it was given.
class ForgetfulBlobStore : public store::BlobStore {
 public:
  explicit ForgetfulBlobStore(store::BlobStore* real) : real_(*real) {}
  absl::Status Claim(absl::string_view identity) override { return real_.Claim(identity); }
  absl::StatusOr<std::unique_ptr<store::BlobWriter>> NewWriter() override {
    return real_.NewWriter();
  }
  absl::StatusOr<std::unique_ptr<store::ScratchFile>> NewScratchFile() override {
    return real_.NewScratchFile();
  }
  absl::StatusOr<std::string> Read(absl::string_view, int64_t, int64_t) override {
    return store::BlobNotFound();
  }
  absl::StatusOr<int64_t> Size(absl::string_view) override { return store::BlobNotFound(); }
  absl::StatusOr<std::vector<std::string>> List(absl::string_view after, int64_t limit,
                                                absl::Duration age) override {
    return real_.List(after, limit, age);
  }
  absl::Status Remove(absl::string_view digest, absl::Duration age) override {
    return real_.Remove(digest, age);
  }
  absl::Status ClearUnfinished() override { return real_.ClearUnfinished(); }

 private:
  store::BlobStore& real_;
};

TEST_P(StoredPartialTest, WhereEveryPartialIsLostTheJobFailsWithTheCauseAndDoesNotRunForEver) {
  const std::unique_ptr<store::BlobStore> real = std::move(blobs_);
  blobs_ = std::make_unique<ForgetfulBlobStore>(real.get());
  LettersKind kind;
  const auto worker = MakeWorker(&kind);
  worker->Start();
  const store::Job job = AwaitEnd(Create());
  EXPECT_EQ(job.state, JobState::kFailed);
  EXPECT_EQ(job.error->reason, "PARTIAL_LOST");
  EXPECT_THAT(job.error->message, HasSubstr("not in the blob store any more"));
}

TEST_P(StoredPartialTest, AShardWhoseKindCannotReadWhatWasStoredIsDoneAgain) {
  LettersKind kind;
  std::atomic<bool> damaged = true;
  kind.before_chunk = [&](ShardContext& context, int64_t chunk) {
    const bool now = context.shard() == 1 && chunk == 2 && damaged.exchange(false);
    return now ? PartialDamaged() : absl::OkStatus();
  };
  const auto worker = MakeWorker(&kind);
  worker->Start();
  const std::string id = Create();
  EXPECT_EQ(AwaitEnd(id).state, JobState::kSucceeded);
  EXPECT_EQ(ArtifactOf(id), kLetters);
  worker->Drain();
  EXPECT_THAT(kind.computed(), testing::SizeIs(kShards * LettersKind::kChunks + 2));
  EXPECT_THAT(Errors(), testing::ElementsAre(
                            HasSubstr("shard 1 of `jobs/" + id +
                                      "` is damaged: the shard is done again from its start")));
}

TEST_P(StoredPartialTest, AShardThatIsFoundDamagedEachTimeFailsItsJobAlthoughItGetsOnEachTime) {
  LettersKind kind;
  kind.before_chunk = [](ShardContext& context, int64_t chunk) {
    return context.shard() == 1 && chunk == 2 ? PartialDamaged() : absl::OkStatus();
  };
  const auto worker = MakeWorker(&kind);
  worker->Start();
  const store::Job job = AwaitEnd(Create());
  EXPECT_EQ(job.state, JobState::kFailed);
  EXPECT_EQ(job.error->reason, "PARTIAL_LOST");
  EXPECT_EQ(job.error->shard, 1);
  worker->Drain();
  EXPECT_THAT(kind.computed(),
              testing::SizeIs(LettersKind::kChunks + 2 * store::RetryPolicy().max_shard_failures));
}

TEST(DamagedPartialTest, OneBitIsEnough) {
  const TemporaryFolder folder;
  const auto store = store::OpenSqliteStore(folder / "store.db").value();
  const auto blobs = store::OpenDirectoryBlobStore(folder / "blobs").value();
  ASSERT_TRUE(store->CreateJob(LettersKind::Job(), {}).ok());
  const auto lease = store->LeaseWork({.can_run = {{.kind = "letters", .needs = ""}}}).value();
  const std::string bytes(9 << 20, 'x');  // read in several pieces
  store::ShardProgress progress = {.partial = bytes, .cursor = "7", .work_done = 7};
  ASSERT_TRUE(PutAside(*blobs, /*most_in_row=*/0, progress).ok());
  ASSERT_TRUE(store->CommitProgress(*lease, progress).ok());
  const auto read = ReadShard(*store, *blobs, *lease, 0);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(read->partial == bytes);
  EXPECT_EQ(read->cursor, "7");

  const std::string& digest = progress.partial_blob.digest;
  std::fstream file(folder / absl::StrCat("blobs/", digest.substr(0, 2), "/", digest),
                    std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(5 << 20).put('y');
  ASSERT_TRUE(file.flush());
  const auto damaged = ReadShard(*store, *blobs, *lease, 0);
  EXPECT_TRUE(IsPartialLost(damaged.status())) << damaged.status();
  EXPECT_THAT(damaged.status().message(), HasSubstr("damaged"));
  const auto anew = ReadShard(*store, *blobs, *lease, 0);
  ASSERT_TRUE(anew.ok()) << anew.status();
  EXPECT_EQ(anew->partial, "");
  EXPECT_EQ(anew->cursor, "");
  EXPECT_EQ(anew->work_done, 0);
}

TEST(DamagedPartialTest, PartialsOfEqualBytesAreDifferentBlobs) {
  const TemporaryFolder folder;
  const auto blobs = store::OpenDirectoryBlobStore(folder / "blobs").value();
  store::ShardProgress first = {.partial = "equal"}, second = first;
  ASSERT_TRUE(PutAside(*blobs, /*most_in_row=*/0, first).ok());
  ASSERT_TRUE(PutAside(*blobs, /*most_in_row=*/0, second).ok());
  EXPECT_NE(first.partial_blob.digest, second.partial_blob.digest);
}

// --- What a commit writes ---

TEST(CommitBytesTest, ACommitWritesNoMoreForALargePartialThanForASmallOne) {
  const TemporaryFolder folder;
  const store::CountingDisk disk;
  const auto store = store::OpenSqliteStore(folder / "store.db").value();
  const auto blobs = store::OpenDirectoryBlobStore(folder / "blobs").value();
  const int64_t most_in_row = TurnRules().partial_in_row;
  ASSERT_TRUE(store->CreateJob(LettersKind::Job(), {}).ok());
  const auto lease = store->LeaseWork({.can_run = {{.kind = "letters", .needs = ""}}}).value();
  const auto written_by_commit = [&](size_t bytes) {
    store::ShardProgress progress = {.partial = std::string(bytes, 'x'), .work_done = 1};
    EXPECT_TRUE(PutAside(*blobs, most_in_row, progress).ok());
    const int64_t before = disk.written();
    EXPECT_TRUE(store->CommitProgress(*lease, progress).ok());
    return disk.written() - before;
  };
  written_by_commit(10);
  const auto in_row = static_cast<size_t>(most_in_row);
  EXPECT_GT(written_by_commit(in_row), most_in_row) << "or nothing is counted";
  EXPECT_LT(written_by_commit(in_row), 2 * most_in_row);
  // The first blob frees the pages of the row.
  written_by_commit(in_row + 1);
  const int64_t of_small_blob = written_by_commit(in_row + 1);
  const int64_t of_large_blob = written_by_commit(40 << 20);
  EXPECT_EQ(of_large_blob, of_small_blob);
  EXPECT_LE(of_large_blob, 64 << 10);
}

}  // namespace
}  // namespace valuescope::jobs
