// kill -9 at every failpoint (base/failpoint.h), one life of a worker behind the other: the job
// ends with the bytes of one that nobody disturbed, and no life costs more than the chunk in
// flight. A program of its own, whose sources with such points are compiled with them: those of the
// server and of all other tests have none.
#include "base/failpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "store/postgres_store.h"
#include "store/sqlite_store.h"
#include "tests/jobs/house.h"
#include "tests/store/postgres_server.h"

namespace valuescope::jobs {
namespace {

#ifndef VALUESCOPE_FAILPOINTS
#error "there is nothing to die of"
#endif

constexpr store::RetryPolicy kAtOnce = {.failure_backoff = absl::ZeroDuration()};

// A point, and how often it has been reached when a life ends there.
using End = std::pair<std::string, int>;

// Between two points where a life can end without having got on there is one where it has: a step
// that three lives die of fails its job.
const std::vector<End> kLives = {{"leased", 2},
                                 {"chunk_done", 2},
                                 {"scanned", 1},
                                 {"partial_put_aside", 2},
                                 {"blob_synced", 2},
                                 {"orphans_taken", 1},
                                 {"partial_is_blob", 2},
                                 {"commit_begins", 2},
                                 {"orphan_removed", 1},
                                 {"committed", 1},
                                 {"shard_done", 2},
                                 {"merging", 6},
                                 {"artifacts_written", 1},
                                 {"job_succeeded", 1}};

std::string TextOf(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// Of all points in the server's sources.
std::set<std::string> NamesInSources() {
  const std::regex point(R"re(VS_FAILPOINT\("(\w+)"\))re");
  std::set<std::string> names;
  for (const auto& file : std::filesystem::recursive_directory_iterator(
           std::filesystem::path(VALUESCOPE_SOURCE_DIR) / "server")) {
    if (file.path().extension() != ".cc") continue;
    const std::string text = TextOf(file.path());
    for (std::sregex_iterator found(text.begin(), text.end(), point), end; found != end; ++found) {
      names.insert((*found)[1]);
    }
  }
  return names;
}

enum class Where { kSqlite, kPostgres };

class FailpointTest : public testing::TestWithParam<Where> {
 protected:
  void SetUp() override {
    if (GetParam() == Where::kPostgres) store::PostgresServer::Get().Clear();
  }

  std::unique_ptr<store::Store> OpenStore() {
    if (GetParam() == Where::kPostgres) {
      return store::OpenPostgresStore(store::PostgresServer::Get().Url(), kAtOnce).value();
    }
    return store::OpenSqliteStore(folder_ / "store.db", {.retry = kAtOnce}).value();
  }

  // Every checkpoint is committed, and its partial a blob.
  House Open(LettersKind* kind) {
    WorkerOptions options;
    options.sweep = absl::Milliseconds(1);
    options.turns.commit_interval = absl::ZeroDuration();
    options.turns.partial_in_row = 0;
    return House(OpenStore(), folder_, kind, std::move(options));
  }

  // What wait told of a process that works on the job to its end, or to the failpoint's.
  int Live(const std::string& job, const std::string& failpoint) {
    const pid_t child = fork();
    if (child == 0) {
      setenv("VALUESCOPE_FAILPOINT_TRACE", (folder_ / "trace").c_str(), /*overwrite=*/1);
      if (!failpoint.empty()) setenv("VALUESCOPE_FAILPOINT", failpoint.c_str(), /*overwrite=*/1);
      LettersKind kind;
      House house = Open(&kind);
      const store::Job ended = Finish(house, job);
      _exit(ended.state == store::JobState::kSucceeded ? 0 : 1);
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return status;
  }

  // How often each point was reached in all lives.
  std::map<std::string, int64_t> Reached() {
    std::map<std::string, int64_t> reached;
    std::ifstream trace(folder_ / "trace");
    for (std::string name; trace >> name;) ++reached[name];
    return reached;
  }

  store::Job Look(const std::string& job) {
    LettersKind kind;
    return Open(&kind).queue->Get("lab", job)->job;
  }

  // The leases of the dead. SQLite's end when it is opened.
  void EndLeases() {
    if (GetParam() == Where::kPostgres) store::PostgresServer::Get().Advance(absl::Minutes(1));
  }

  const TemporaryFolder folder_;
};

INSTANTIATE_TEST_SUITE_P(Databases, FailpointTest,
                         testing::Values(Where::kSqlite, Where::kPostgres), [](const auto& info) {
                           return info.param == Where::kSqlite ? "Sqlite" : "Postgres";
                         });

TEST_P(FailpointTest, AJobSurvivesAKillAtEveryOneAndNoneCostsMoreThanAChunk) {
  std::string id;
  {
    LettersKind kind;
    id = Open(&kind).queue->Create(LettersKind::Job(), {})->job.id;
  }
  std::set<std::string> killed_at;
  int64_t computed = 0, done = 0;
  for (const auto& [name, count] : kLives) {
    killed_at.insert(name);
    const int status = Live(id, absl::StrCat(name, ":", count));
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "not at " << name;
    const int64_t computed_now = Reached()["chunk_done"], done_now = Look(id).work_done;
    const int64_t again = (computed_now - computed) - (done_now - done);
    EXPECT_GE(again, 0) << name;
    EXPECT_LE(again, 1) << name << ": only the chunk in flight may be lost";
    computed = computed_now, done = done_now;
    EndLeases();
  }
  EXPECT_EQ(killed_at, NamesInSources()) << "each was the end of a life";
  EXPECT_EQ(done, LettersKind::kShards * LettersKind::kChunks);
  EXPECT_EQ(Live(id, /*failpoint=*/""), 0);

  LettersKind kind;
  House house = Open(&kind);
  const store::Job job = house.queue->Get("lab", id)->job;
  EXPECT_EQ(job.state, store::JobState::kSucceeded);
  EXPECT_LE(job.rescues, static_cast<int64_t>(kLives.size()));
  EXPECT_EQ(ArtifactBytes(house, id),
            "abcd|efgh|ijkl|mnop|qrst|uvwx|yzab|cdef|ghij|klmn|opqr|stuv");
}

}  // namespace
}  // namespace valuescope::jobs
