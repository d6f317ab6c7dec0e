#include "tests/store/store_under_test.h"

#include <utility>

#include "base/clock.h"
#include "store/postgres_store.h"
#include "store/sqlite_store.h"
#include "tests/store/postgres_server.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::store {
namespace {

constexpr RetryPolicy kRetry = {.max_shard_failures = 3, .failure_backoff = absl::Seconds(1)};

class SqliteUnderTest : public DatabaseUnderTest {
 public:
  absl::StatusOr<std::unique_ptr<Store>> Open(const TenantPolicies& tenants) override {
    return OpenSqliteStore(folder_ / "store.db",
                           {.retry = kRetry,
                            .clock = &clock_,
                            .tenants = std::make_shared<TenantPolicySource>(tenants)});
  }
  absl::Time Now() override { return clock_.Now(); }
  void Advance(absl::Duration duration) override { clock_.Advance(duration); }

 private:
  TemporaryFolder folder_;
  FakeClock clock_;
};

class PostgresUnderTest : public DatabaseUnderTest {
 public:
  explicit PostgresUnderTest(std::string url) : url_(std::move(url)) { server_.Clear(); }

  absl::StatusOr<std::unique_ptr<Store>> Open(const TenantPolicies& tenants) override {
    return OpenPostgresStore(url_, kRetry, std::make_shared<TenantPolicySource>(tenants));
  }
  absl::Time Now() override { return server_.Now(); }
  void Advance(absl::Duration duration) override { server_.Advance(duration); }

 private:
  PostgresServer& server_ = PostgresServer::Get();
  const std::string url_;
};

}  // namespace

std::unique_ptr<DatabaseUnderTest> MakeDatabase(Database database) {
  if (database == Database::kSqlite) return std::make_unique<SqliteUnderTest>();
  const PostgresServer& server = PostgresServer::Get();
  return std::make_unique<PostgresUnderTest>(database == Database::kPostgres ? server.Url()
                                                                             : server.PoolerUrl());
}

}  // namespace valuescope::store
