// What is PostgreSQL's own: servers that share a store, connections that are lost, and databases
// that cannot be one.
#include "store/postgres_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/error.h"
#include "base/sha256.h"
#include "store/postgres_listener.h"
#include "tests/store/any_work.h"
#include "tests/store/cutting_proxy.h"
#include "tests/store/postgres_server.h"

namespace valuescope::store {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

constexpr absl::Duration kPatience = absl::Seconds(20);

class PostgresStoreTest : public testing::Test {
 protected:
  void SetUp() override { server_.Clear(); }

  // One more server's store over the same database.
  static std::unique_ptr<Store> Open(const std::string& url) {
    auto store = OpenPostgresStore(url);
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? *std::move(store) : nullptr;
  }

  static NewJob Shards(int64_t count) {
    NewJob job;
    job.tenant = "lab";
    job.kind = "count";
    job.num_shards = count;
    job.total_work = count;
    return job;
  }

  static Resource Artifact(const std::string& id) {
    Resource resource;
    resource.kind = ResourceKind::kArtifact;
    resource.id = id;
    resource.digest = Sha256Hex(id);
    return resource;
  }

  int64_t Count(const std::string& from) {
    return std::stoll(server_.Script(absl::StrCat("SELECT count(*) FROM ", from)));
  }

  static void Together(int threads, const std::function<void(int)>& run) {
    std::vector<std::thread> running;
    for (int i = 0; i < threads; ++i) running.emplace_back([&run, i] { run(i); });
    for (std::thread& thread : running) thread.join();
  }

  PostgresServer& server_ = PostgresServer::Get();
};

// The changes that a subscriber was told.
class Heard {
 public:
  explicit Heard(Store& store) : store_(store) {
    store_.Subscribe([this](const JobChange& change) {
      absl::MutexLock lock(&mutex_);
      changes_.push_back(change);
    });
  }
  ~Heard() { store_.Subscribe(nullptr); }

  // Waits for a change that `is_it`, and forgets those before.
  bool Await(const std::function<bool(const JobChange&)>& is_it) {
    const absl::Time deadline = absl::Now() + kPatience;
    absl::MutexLock lock(&mutex_);
    const auto arrived = [this] { return !changes_.empty(); };
    while (mutex_.AwaitWithDeadline(absl::Condition(&arrived), deadline)) {
      const JobChange first = changes_.front();
      changes_.erase(changes_.begin());
      if (is_it(first)) return true;
      told_.insert(first.job_id);
    }
    return false;
  }
  bool AwaitAnything() {
    return Await([](const JobChange& change) { return change.job_id.empty(); });
  }
  // The jobs of changes that Await has passed by.
  const std::set<std::string>& told() const { return told_; }

 private:
  Store& store_;
  absl::Mutex mutex_;
  std::vector<JobChange> changes_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> told_;
};

TEST_F(PostgresStoreTest, ServersThatShareAJobLeaseEveryShardOnce) {
  constexpr int kServers = 4;
  constexpr int64_t kShards = 60;
  std::vector<std::unique_ptr<Store>> stores;
  for (int i = 0; i < kServers; ++i) stores.push_back(Open(server_.Url()));
  const std::string id = stores[0]->CreateJob(Shards(kShards), {})->id;
  std::array<std::atomic<int>, kShards> leased = {};
  std::atomic<int> merges = 0, failures = 0;
  Together(2 * kServers, [&](int i) {
    Store& store = *stores[static_cast<size_t>(i % kServers)];
    while (true) {
      const auto lease = store.LeaseWork(kAnyWork);
      if (!lease.ok()) ++failures;
      if (!lease.ok() || !lease->has_value()) return;
      if ((*lease)->is_merge()) {
        ++merges;
        if (!store.CompleteJob(**lease, "{}", {}).ok()) ++failures;
        return;
      }
      ++leased[static_cast<size_t>((*lease)->shard)];
      if (!store.CompleteShard(**lease, {.partial = "p", .cursor = "", .work_done = 1}).ok()) {
        ++failures;
      }
    }
  });
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(merges, 1);
  for (const std::atomic<int>& times : leased) EXPECT_EQ(times, 1);
  const Job job = *stores[0]->GetJob("lab", id);
  EXPECT_EQ(job.state, JobState::kSucceeded);
  EXPECT_EQ(job.shards_done, kShards);
  EXPECT_EQ(job.work_done, kShards);
}

TEST_F(PostgresStoreTest, ACancelAmongLeasesThatComeAndGoAlwaysEnds) {
  const auto first = Open(server_.Url()), second = Open(server_.Url());
  for (int round = 0; round < 15; ++round) {
    const std::string id = first->CreateJob(Shards(4), {})->id;
    std::atomic<int> failures = 0;
    Together(5, [&](int i) {
      Store& store = i % 2 == 0 ? *first : *second;
      if (i == 4) {
        if (!store.RequestCancel("lab", id).ok()) ++failures;
        return;
      }
      while (true) {
        const auto lease = store.LeaseWork(kAnyWork);
        if (!lease.ok()) ++failures;
        if (!lease.ok() || !lease->has_value()) return;
        if (!store.ReleaseLease(**lease).ok()) ++failures;
      }
    });
    EXPECT_EQ(failures, 0);
    EXPECT_EQ(first->GetJob("lab", id)->state, JobState::kCancelled);
  }
  EXPECT_EQ(Count("steps WHERE state = 1"), 0);
}

TEST_F(PostgresStoreTest, OneRequestIdSentToTwoServersAtOnceMakesOneJob) {
  const auto first = Open(server_.Url()), second = Open(server_.Url());
  for (int round = 0; round < 10; ++round) {
    const IdempotencyKey key{.request_id = absl::StrCat("r", round), .request_digest = "d"};
    std::array<std::string, 2> ids;
    Together(2, [&](int i) {
      const auto job = (i == 0 ? first : second)->CreateJob(Shards(1), key);
      if (job.ok()) ids[static_cast<size_t>(i)] = job->id;
    });
    EXPECT_FALSE(ids[0].empty());
    EXPECT_EQ(ids[0], ids[1]);
  }
  EXPECT_EQ(Count("jobs"), 10);
}

TEST_F(PostgresStoreTest, WhatAJobIsAboutToReadIsNotDeletedMeanwhile) {
  const auto creator = Open(server_.Url()), deleter = Open(server_.Url());
  NewJob job = Shards(1);
  job.inputs = {{.kind = ResourceKind::kArtifact, .id = "data"}};
  int created = 0, deleted = 0;
  for (int round = 0; round < 20; ++round) {
    ASSERT_TRUE(creator->PutResources("lab", {Artifact("data")}, {}).ok());
    absl::StatusOr<Job> made = absl::UnknownError("");
    absl::Status gone;
    Together(2, [&](int i) {
      if (i == 0) made = creator->CreateJob(job, {});
      if (i == 1) gone = deleter->DeleteResource("lab", ResourceKind::kArtifact, "data");
    });
    EXPECT_NE(made.ok(), gone.ok()) << made.status() << gone;
    created += made.ok();
    deleted += gone.ok();
    if (!made.ok()) continue;
    ASSERT_TRUE(creator->RequestCancel("lab", made->id).ok());
  }
  EXPECT_EQ(created + deleted, 20);
}

TEST_F(PostgresStoreTest, AServerThatStartsWhileOthersMakeTheTablesFindsThem) {
  std::array<absl::Status, 6> opened;
  Together(6, [&](int i) {
    opened[static_cast<size_t>(i)] = OpenPostgresStore(server_.Url()).status();
  });
  for (const absl::Status& status : opened) EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(Count("store_format"), 1);
}

TEST_F(PostgresStoreTest, ACommitThatIsLostOnItsWayIsDoneOnceWhicheverWayItWasLost) {
  CuttingProxy proxy(server_.folder());
  const auto store = Open(absl::StrCat("postgresql://postgres@/store?host=", proxy.folder()));
  for (const CuttingProxy::Cut cut :
       {CuttingProxy::Cut::kBefore, CuttingProxy::Cut::kBehind, CuttingProxy::Cut::kLate}) {
    const int64_t jobs = Count("jobs");
    proxy.CutNext(cut);
    const auto job = store->CreateJob(Shards(2), {});
    ASSERT_TRUE(job.ok()) << job.status();
    EXPECT_EQ(Count("jobs"), jobs + 1) << "without a request id nothing else tells it";

    const std::optional<Lease> lease = *store->LeaseWork(kAnyWork);
    ASSERT_TRUE(lease);
    proxy.CutNext(cut);
    EXPECT_TRUE(store->CompleteShard(*lease, {.partial = "p", .cursor = "", .work_done = 1}).ok())
        << "the lease was given up in the very transaction that was in doubt";
    EXPECT_EQ(store->GetJob("lab", lease->job_id)->work_done, 1);
    ASSERT_TRUE(store->RequestCancel("lab", lease->job_id).ok());
  }
  EXPECT_EQ(proxy.cuts(), 6);
}

TEST_F(PostgresStoreTest, AShardBehindAnotherCostsSixJourneysToTheDatabaseAndBack) {
  CuttingProxy proxy(server_.folder());
  const auto store = Open(absl::StrCat("postgresql://postgres@/store?host=", proxy.folder()));
  LeaseRequest request = kAnyWork;
  request.known_job = store->CreateJob(Shards(1), {})->id;
  int before = proxy.journeys();
  std::optional<Lease> lease = *store->LeaseWork(request);
  EXPECT_EQ(proxy.journeys() - before, 4) << "the time, the lines, the step, and all writes";
  ASSERT_TRUE(lease && !lease->begun);
  lease->worked = absl::Milliseconds(1);
  before = proxy.journeys();
  const ShardProgress done = {
      .partial = "p", .cursor = "", .work_done = 1, .observed = {{.name = "count", .count = 1}}};
  ASSERT_TRUE(store->CompleteShard(*lease, done).ok());
  EXPECT_EQ(proxy.journeys() - before, 2) << "whether the lease holds, and all writes";
}

TEST_F(PostgresStoreTest, ACrashOfTheDatabaseLosesNothingThatWasCommitted) {
  const auto store = Open(server_.Url());
  const std::string id = store->CreateJob(Shards(2), {})->id;
  const std::optional<Lease> lease = *store->LeaseWork(kAnyWork);
  ASSERT_TRUE(
      store->CommitProgress(*lease, {.partial = "half", .cursor = "c", .work_done = 0}).ok());
  Heard heard(*store);
  ASSERT_TRUE(heard.AwaitAnything()) << "it listens";
  server_.Crash();
  EXPECT_EQ(store->ReadProgress(*lease, lease->shard)->partial, "half");
  EXPECT_TRUE(store->CompleteShard(*lease, {.partial = "p", .cursor = "", .work_done = 1}).ok());
  EXPECT_EQ(store->GetJob("lab", id)->shards_done, 1);

  ASSERT_TRUE(heard.AwaitAnything()) << "it listens again";
  const std::string other = Open(server_.Url())->CreateJob(Shards(1), {})->id;
  EXPECT_TRUE(heard.Await([&](const JobChange& change) { return change.job_id == other; }));
}

TEST_F(PostgresStoreTest, ChangesThatOthersMakeAreHeardAndOnesOwnAreNot) {
  const auto store = Open(server_.Url()), other = Open(server_.Url());
  Heard heard(*store);
  ASSERT_TRUE(heard.AwaitAnything());
  const std::string own = store->CreateJob(Shards(1), {})->id;
  const std::string theirs = other->CreateJob(Shards(2), {})->id;
  const auto of_theirs = [&](bool for_workers) {
    return heard.Await([&](const JobChange& change) {
      return change.job_id == theirs && change.for_workers == for_workers;
    });
  };
  EXPECT_TRUE(of_theirs(/*for_workers=*/true));
  ASSERT_TRUE(store->RequestCancel("lab", own).ok());
  const std::optional<Lease> lease = *other->LeaseWork(kAnyWork);
  EXPECT_TRUE(of_theirs(/*for_workers=*/false));
  ASSERT_TRUE(other->ExtendLease(*lease, absl::Seconds(30)).ok());
  ASSERT_TRUE(other->ReleaseLease(*lease).ok());
  EXPECT_TRUE(of_theirs(/*for_workers=*/true));
  EXPECT_THAT(heard.told(), IsEmpty());
}

TEST_F(PostgresStoreTest, BehindAPoolerOneIsToldEverySecondThatThereMayBeChanges) {
  const auto store = Open(server_.PoolerUrl());
  Heard heard(*store);
  EXPECT_TRUE(heard.AwaitAnything());
  EXPECT_TRUE(heard.AwaitAnything());
}

TEST_F(PostgresStoreTest, TheTextOfAChangeIsReadByOthersAndNonsenseByNobody) {
  const std::string text = TextOfChange("one", {.job_id = "j", .for_workers = true});
  ASSERT_TRUE(ChangeOfOthers("other", text));
  EXPECT_EQ(ChangeOfOthers("other", text)->job_id, "j");
  EXPECT_TRUE(ChangeOfOthers("other", text)->for_workers);
  EXPECT_FALSE(ChangeOfOthers("one", text));
  EXPECT_FALSE(ChangeOfOthers("other", ""));
  EXPECT_FALSE(ChangeOfOthers("other", "a b c d"));
}

TEST_F(PostgresStoreTest, TextThatADatabaseCannotHoldIsTheCallersFault) {
  const auto store = Open(server_.Url());
  NewJob job = Shards(1);
  for (const std::string& name : {std::string("nul\0byte", 8), std::string("\xff")}) {
    job.display_name = name;
    EXPECT_EQ(store->CreateJob(job, {}).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(Count("jobs"), 0);
}

TEST_F(PostgresStoreTest, TokensOfTransactionsAreForgottenAfterAnHour) {
  ASSERT_TRUE(Open(server_.Url())->CreateJob(Shards(1), {}).ok());
  ASSERT_EQ(Count("commits"), 1);
  server_.Advance(absl::Hours(2));
  const auto store = Open(server_.Url());
  ASSERT_TRUE(store->CreateJob(Shards(1), {}).ok());
  EXPECT_EQ(Count("commits"), 1) << "the one just made";
  ASSERT_TRUE(store->ListJobs("lab", {}, {}).ok());
  EXPECT_EQ(Count("commits"), 1) << "whoever only reads leaves none";
}

TEST_F(PostgresStoreTest, ADatabaseOfANewerVersionIsUsedAsItIsWhereThatOnlyAddedToIt) {
  Open(server_.Url());
  const std::string known = server_.Script("SELECT version FROM store_format");
  server_.Script(
      "ALTER TABLE jobs ADD COLUMN remark TEXT NOT NULL DEFAULT 'none';"
      "CREATE TABLE remarks (job BIGINT REFERENCES jobs ON DELETE CASCADE);"
      "UPDATE store_format SET version = version + 1, compatible_from = " +
      known);
  const auto store = Open(server_.Url());
  ASSERT_NE(store, nullptr);
  const auto job = store->CreateJob(Shards(1), {});
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(server_.Script("SELECT remark FROM jobs"), "none");
  EXPECT_EQ(server_.Script("SELECT version - compatible_from FROM store_format"), "1")
      << "it says still whose it is";
}

TEST_F(PostgresStoreTest, ADatabaseOfANewerVersionThatChangedItIsRefusedAndLeftAlone) {
  Open(server_.Url());
  server_.Script("UPDATE store_format SET version = 99, compatible_from = 98");
  const absl::Status status = OpenPostgresStore(server_.Url()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(DetailsOf(status).reason, "STORE_TOO_NEW");
  EXPECT_THAT(std::string(status.message()), HasSubstr("format 99"));
  EXPECT_EQ(server_.Script("SELECT version FROM store_format"), "99");
}

TEST_F(PostgresStoreTest, WhatCannotBeAStoreIsRefusedWithWhatToDo) {
  server_.Script("CREATE TABLE jobs (x INT)");
  EXPECT_EQ(DetailsOf(OpenPostgresStore(server_.Url()).status()).reason, "NOT_A_STORE");
  EXPECT_EQ(Count("pg_tables WHERE schemaname = 'test' AND tablename = 'resources'"), 0)
      << "all tables or none";

  server_.Script("DROP TABLE jobs; DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN");
  const std::string folder = server_.folder();
  const auto reader =
      OpenPostgresStore(absl::StrCat("postgresql://reader@/store?host=", folder)).status();
  EXPECT_EQ(DetailsOf(reader).reason, "STORE_FORBIDDEN");
  EXPECT_THAT(std::string(reader.message()), HasSubstr("GRANT"));

  const auto missing =
      OpenPostgresStore(absl::StrCat("postgresql://postgres@/missing?host=", folder)).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("\"missing\" does not exist"));
  EXPECT_EQ(OpenPostgresStore("postgresql:///?host=/nowhere").status().code(),
            absl::StatusCode::kUnavailable);

  server_.Script("DROP DATABASE IF EXISTS ascii");
  server_.Script("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0");
  EXPECT_EQ(
      DetailsOf(
          OpenPostgresStore(absl::StrCat("postgresql://postgres@/ascii?host=", folder)).status())
          .reason,
      "STORE_UNSUITABLE");
}

// A deadlock ends by itself, after a second in which nobody works.
TEST_F(PostgresStoreTest, WorkersAtOneJobDoNotWaitInACircle) {
  const std::string deadlocks =
      "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
  const std::string before = server_.Script(deadlocks);
  auto store = Open(server_.Url());
  ASSERT_TRUE(store->CreateJob(Shards(400), {}).ok());
  Together(4, [&](int) {
    for (int i = 0; i < 100; ++i) {
      const auto lease = store->LeaseWork(kAnyWork);
      ASSERT_TRUE(lease.ok() && *lease) << lease.status();
      ASSERT_TRUE(store->CompleteShard(**lease, {.partial = "", .work_done = 1}).ok());
    }
  });
  store.reset();  // what sessions counted is told at their end
  EXPECT_EQ(server_.Script(deadlocks), before);
}

}  // namespace
}  // namespace valuescope::store
