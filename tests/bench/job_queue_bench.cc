// What the queue costs, in time: shards a second, as a worker goes through them, and a lease in a
// short queue and in a long one. SQLite is measured with 2 ms added to each sync of the disk, and
// without; PostgreSQL with one worker and with several.
#include <SQLiteCpp/SQLiteCpp.h>
#include <sys/resource.h>
#include <sys/time.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "store/postgres_store.h"
#include "store/sqlite_store.h"
#include "tests/store/counting_disk.h"
#include "tests/store/many_jobs.h"
#include "tests/store/postgres_server.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::store {
namespace {

const LeaseRequest kAnyWork = {.can_run = {{.kind = "count", .needs = ""}}};
constexpr int64_t kFew = 100, kMany = 100'000;

NewJob Count(int64_t shards) {
  NewJob job;
  job.tenant = "lab";
  job.kind = "count";
  job.num_shards = shards;
  return job;
}

// As a worker goes through a shard of one chunk that nobody has begun, behind another one of its
// job, `last`, whose id is returned for the next.
std::string RunShard(Store& store, const std::string& last) {
  LeaseRequest request = kAnyWork;
  request.known_job = last;
  std::optional<Lease> lease = store.LeaseWork(request).value();
  VS_CHECK(lease.has_value() && !lease->begun);
  lease->worked = absl::Milliseconds(1);
  VS_CHECK(store.CompleteShard(*lease, {.partial = std::string(1000, 'p')}).ok());
  return lease->job_id;
}

// Of this process, so far.
double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return absl::ToDoubleSeconds(absl::DurationFromTimeval(usage.ru_utime) +
                               absl::DurationFromTimeval(usage.ru_stime));
}

struct Speed {
  double shards_per_second = 0, cpu_milliseconds = 0;  // the latter of this process, a shard
};

Speed SpeedOf(Store& store, int workers) {
  constexpr int64_t kShards = 400;
  for (int i = 0; i < 4; ++i) VS_CHECK(store.CreateJob(Count(kShards), {}).ok());
  RunShard(store, "");
  const absl::Time start = absl::Now();
  const double cpu = CpuSeconds();
  std::vector<std::thread> threads;
  for (int worker = 0; worker < workers; ++worker) {
    threads.emplace_back([&] {
      std::string last;
      for (int64_t i = 0; i < kShards / workers; ++i) last = RunShard(store, last);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return {.shards_per_second = kShards / absl::ToDoubleSeconds(absl::Now() - start),
          .cpu_milliseconds = 1000 * (CpuSeconds() - cpu) / kShards};
}

constexpr int kTimes = 201;

// Of `work`; `undo` is not measured.
double MedianMicroseconds(
    const std::function<void()>& work, const std::function<void()>& undo = [] {}) {
  std::vector<double> times;
  for (int i = 0; i < kTimes; ++i) {
    const absl::Time start = absl::Now();
    work();
    times.push_back(absl::ToDoubleMicroseconds(absl::Now() - start));
    undo();
  }
  std::nth_element(times.begin(), times.begin() + kTimes / 2, times.end());
  return times[kTimes / 2];
}

struct QueueTimes {
  double list_work = 0, lease = 0, count = 0;
};

QueueTimes TimesOf(Store& store) {
  QueueTimes times;
  times.list_work = MedianMicroseconds([&] { VS_CHECK(store.ListWork().ok()); });
  std::optional<Lease> lease;
  times.lease = MedianMicroseconds([&] { lease = store.LeaseWork(kAnyWork).value(); },
                                   [&] { VS_CHECK(store.ReleaseLease(lease.value()).ok()); });
  times.count = MedianMicroseconds([&] { VS_CHECK(store.CountJobs().ok()); });
  return times;
}

void PrintQueue(const char* database, const QueueTimes& few, const QueueTimes& many) {
  std::printf("%-10s a lease among %6ld jobs %6.0f us, among %6ld %6.0f us: %.2f times\n", database,
              static_cast<long>(kFew), few.lease, static_cast<long>(kMany), many.lease,
              many.lease / few.lease);
  std::printf("%-10s the kinds of work  %7s %6.0f us,       %7s %6.0f us: %.2f times\n", database,
              "", few.list_work, "", many.list_work, many.list_work / few.list_work);
  std::printf("%-10s the jobs, counted   %7s %6.0f us,       %7s %6.0f us: %.2f times\n", database,
              "", few.count, "", many.count, many.count / few.count);
}

// `execute`: a script, beside the store.
void MeasureQueue(const char* database, const std::function<std::unique_ptr<Store>()>& open,
                  const std::function<void(const std::string&)>& execute) {
  const std::unique_ptr<Store> store = open();
  const std::string id = store->CreateJob(Count(1), {})->id;
  execute(CopiesOfJob(id, kFew));
  const QueueTimes few = TimesOf(*store);
  const std::string more = store->CreateJob(Count(1), {})->id;
  execute(CopiesOfJob(more, kMany));
  PrintQueue(database, few, TimesOf(*store));
}

void MeasureSqlite() {
  for (const absl::Duration delay : {absl::Milliseconds(2), absl::ZeroDuration()}) {
    TemporaryFolder folder;
    const CountingDisk disk(delay);
    const auto store = OpenSqliteStore(folder / "store.db").value();
    const int64_t before = disk.syncs();
    const Speed speed = SpeedOf(*store, /*workers=*/1);
    std::printf("SQLite     %s added to each sync: %.0f shards/s, %.2f ms of CPU each, %ld syncs\n",
                absl::FormatDuration(delay).c_str(), speed.shards_per_second,
                speed.cpu_milliseconds, static_cast<long>(disk.syncs() - before));
  }
  TemporaryFolder folder;
  const std::string path = folder / "store.db";
  MeasureQueue(
      "SQLite", [&] { return OpenSqliteStore(path).value(); },
      [&](const std::string& sql) { SQLite::Database(path, SQLite::OPEN_READWRITE).exec(sql); });
}

void MeasurePostgres() {
  PostgresServer& server = PostgresServer::Get();
  for (const int workers : {1, 4}) {
    server.Clear();
    const auto store = OpenPostgresStore(server.Url()).value();
    const Speed speed = SpeedOf(*store, workers);
    std::printf("PostgreSQL %d workers: %.0f shards/s, %.2f ms of CPU each beside the database\n",
                workers, speed.shards_per_second, speed.cpu_milliseconds);
  }
  server.Clear();
  MeasureQueue(
      "PostgreSQL", [&] { return OpenPostgresStore(server.Url()).value(); },
      [&](const std::string& sql) { server.Script(sql + "; ANALYZE"); });
}

}  // namespace
}  // namespace valuescope::store

int main() {
  valuescope::store::MeasureSqlite();
  valuescope::store::MeasurePostgres();
}
