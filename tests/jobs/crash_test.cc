// The queue survives SIGKILL: a child process works on a job and is killed at some committed chunk;
// this process opens what it left, finishes the job, and compares.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "store/sqlite_store.h"
#include "tests/jobs/house.h"
#include "tests/jobs/letters_kind.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::jobs {
namespace {

using store::JobState;
using testing::HasSubstr;
using testing::Not;

struct SqliteHouse : House {
  SqliteHouse(const TemporaryFolder& folder, LettersKind* kind,
              absl::Duration commit_interval = absl::ZeroDuration())
      : House(store::OpenSqliteStore(folder / "store.db",
                                     {.retry = {.failure_backoff = absl::ZeroDuration()}})
                  .value(),
              folder, kind, Committing(commit_interval)) {}

  static WorkerOptions Committing(absl::Duration interval) {
    WorkerOptions options;
    options.turns.commit_interval = interval;
    return options;
  }
};

std::string UninterruptedBytes() {
  TemporaryFolder folder;
  LettersKind kind;
  SqliteHouse house(folder, &kind);
  const std::string id = house.queue->Create(LettersKind::Job(), {})->job.id;
  EXPECT_EQ(Finish(house, id).state, JobState::kSucceeded);
  return ArtifactBytes(house, id);
}

// The child: reports each chunk on `pipe` before ("SHARD.CHUNK?") and after ("SHARD.CHUNK!") it was
// stored, until it is killed.
[[noreturn]] void WorkUntilKilled(const TemporaryFolder& folder, int pipe,
                                  absl::Duration commit_interval) {
  LettersKind kind;
  const auto report = [pipe](int64_t shard, int64_t chunk, char mark) {
    const std::string line = absl::StrCat(shard, ".", chunk, std::string(1, mark), "\n");
    if (write(pipe, line.data(), line.size()) < 0) _exit(1);
  };
  kind.before_chunk = [&](ShardContext& context, int64_t chunk) {
    report(context.shard(), chunk, '?');
    return absl::OkStatus();
  };
  kind.after_chunk = [&](const ShardContext& context, int64_t chunk) {
    report(context.shard(), chunk, '!');
  };
  SqliteHouse house(folder, &kind, commit_interval);
  house.worker->Start();
  while (true) pause();
}

// Lines of the child's report, read until `stored` chunks are stored; the child is killed there,
// and what it still managed to say is read too.
std::string KillAfter(const TemporaryFolder& folder, int stored,
                      absl::Duration commit_interval = absl::ZeroDuration()) {
  int pipes[2];
  EXPECT_EQ(pipe(pipes), 0);
  const pid_t child = fork();
  if (child == 0) {
    close(pipes[0]);
    WorkUntilKilled(folder, pipes[1], commit_interval);
  }
  close(pipes[1]);
  std::string said;
  char letter;
  while (stored > 0 && read(pipes[0], &letter, 1) == 1) {
    said += letter;
    if (letter == '!') --stored;
  }
  EXPECT_EQ(stored, 0) << "the child ended by itself";
  EXPECT_EQ(kill(child, SIGKILL), 0);
  while (read(pipes[0], &letter, 1) == 1) said += letter;
  close(pipes[0]);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  return said;
}

class CrashTest : public testing::TestWithParam<int> {};

TEST_P(CrashTest, NoStoredChunkRunsAgainAndTheBytesAreThoseOfAnUninterruptedRun) {
  const std::string expected = UninterruptedBytes();
  TemporaryFolder folder;
  std::string id;
  {
    LettersKind kind;
    SqliteHouse house(folder, &kind);
    id = house.queue->Create(LettersKind::Job(), {})->job.id;
  }
  const std::string said = KillAfter(folder, /*stored=*/GetParam());

  LettersKind kind;
  SqliteHouse house(folder, &kind);
  const store::Job found = house.queue->Get("lab", id)->job;
  EXPECT_EQ(found.state, JobState::kRunning);
  EXPECT_GE(found.work_done, GetParam()) << "what was reported as stored is there";
  const store::Job job = Finish(house, id);
  ASSERT_EQ(job.state, JobState::kSucceeded);
  house.worker->Drain();

  const std::vector<std::string> computed = kind.computed();
  EXPECT_EQ(found.work_done + static_cast<int64_t>(computed.size()),
            LettersKind::kShards * LettersKind::kChunks);
  int repeated = 0;
  for (const std::string& chunk : computed) {
    EXPECT_THAT("\n" + said, Not(HasSubstr("\n" + chunk + "!"))) << "stored, and run again";
    repeated += ("\n" + said).find("\n" + chunk + "?") != std::string::npos;
  }
  EXPECT_LE(repeated, 1) << "only the chunk in flight may be lost";
  EXPECT_EQ(ArtifactBytes(house, id), expected);
  EXPECT_LE(job.rescues, 1);
}

// Chunks after which the child dies: the first of a shard, in its middle, around its end, late.
INSTANTIATE_TEST_SUITE_P(Points, CrashTest, testing::Values(1, 2, 4, 5, 19, 24, 43));

TEST(RepeatedCrashTest, WhatIsCommittedByTimeLosesOfAKilledJobTheChunksOfOneShardAtMost) {
  const std::string expected = UninterruptedBytes();
  TemporaryFolder folder;
  std::string id;
  {
    LettersKind kind;
    SqliteHouse house(folder, &kind);
    id = house.queue->Create(LettersKind::Job(), {})->job.id;
  }
  // In the middle of the fifth shard, of which no checkpoint is old enough.
  const std::string said = KillAfter(folder, /*stored=*/18, /*commit_interval=*/absl::Hours(1));
  LettersKind kind;
  SqliteHouse house(folder, &kind, /*commit_interval=*/absl::Hours(1));
  const store::Job found = house.queue->Get("lab", id)->job;
  EXPECT_GE(found.work_done, 16);
  EXPECT_EQ(found.work_done, found.shards_done * LettersKind::kChunks);
  const store::Job job = Finish(house, id);
  ASSERT_EQ(job.state, JobState::kSucceeded);
  house.worker->Drain();
  const auto computed = kind.computed();
  EXPECT_EQ(found.work_done + static_cast<int64_t>(computed.size()),
            LettersKind::kShards * LettersKind::kChunks);
  EXPECT_EQ(ArtifactBytes(house, id), expected);
}

TEST(RepeatedCrashTest, AJobThatIsKilledAgainAndAgainStillEnds) {
  const std::string expected = UninterruptedBytes();
  TemporaryFolder folder;
  std::string id;
  {
    LettersKind kind;
    SqliteHouse house(folder, &kind);
    id = house.queue->Create(LettersKind::Job(), {})->job.id;
  }
  // By the interval nothing would be committed; of a shard that was lost before, the first is.
  for (int kills = 0; kills < 5; ++kills) {
    KillAfter(folder, /*stored=*/2, /*commit_interval=*/absl::Hours(1));
  }
  LettersKind kind;
  SqliteHouse house(folder, &kind);
  const store::Job job = Finish(house, id);
  EXPECT_EQ(job.state, JobState::kSucceeded) << "each life made progress, so no shard is poison";
  EXPECT_EQ(ArtifactBytes(house, id), expected);
}

TEST(RepeatedCrashTest, AMergeThatKillsItsWorkerEachTimeFailsItsJob) {
  TemporaryFolder folder;
  std::string id;
  {
    LettersKind kind;
    SqliteHouse house(folder, &kind);
    id = house.queue->Create(LettersKind::Job("lab", /*shards=*/2), {})->job.id;
  }
  for (int life = 0; life < 3; ++life) {
    const pid_t child = fork();
    if (child == 0) {
      LettersKind kind;
      kind.before_merged = [](int64_t) { raise(SIGKILL); };
      SqliteHouse house(folder, &kind);
      house.worker->Start();
      while (true) pause();
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  }
  LettersKind kind;
  SqliteHouse house(folder, &kind);
  const store::Job job = house.queue->Get("lab", id)->job;
  EXPECT_EQ(job.state, JobState::kFailed);
  EXPECT_EQ(job.error->reason, "WORKER_LOST");
  EXPECT_EQ(job.shards_done, 2) << "RetryJob goes on from there";
}

}  // namespace
}  // namespace valuescope::jobs
