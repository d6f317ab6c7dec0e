// The databases that every test of a store's behaviour runs on, and their clocks.
#ifndef VALUESCOPE_TESTS_STORE_STORE_UNDER_TEST_H_
#define VALUESCOPE_TESTS_STORE_STORE_UNDER_TEST_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/tenant_policy.h"
#include "store/store.h"

namespace valuescope::store {

// PostgreSQL alone, and behind PgBouncer in transaction mode.
enum class Database { kSqlite, kPostgres, kPooledPostgres };
inline constexpr Database kDatabases[] = {Database::kSqlite, Database::kPostgres,
                                          Database::kPooledPostgres};

inline std::string NameOfDatabase(const testing::TestParamInfo<Database>& info) {
  constexpr const char* kNames[] = {"Sqlite", "Postgres", "PooledPostgres"};
  return kNames[static_cast<int>(info.param)];
}

// A database that is empty at first. Its clock stands still until told to move.
class DatabaseUnderTest {
 public:
  virtual ~DatabaseUnderTest() = default;
  // The store over what earlier ones left; three failures fail a shard, the first pause is 1 s.
  virtual absl::StatusOr<std::unique_ptr<Store>> Open(const TenantPolicies& tenants) = 0;
  virtual absl::Time Now() = 0;
  virtual void Advance(absl::Duration duration) = 0;
};

std::unique_ptr<DatabaseUnderTest> MakeDatabase(Database database);

}  // namespace valuescope::store

#endif  // VALUESCOPE_TESTS_STORE_STORE_UNDER_TEST_H_
