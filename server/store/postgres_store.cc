#include "store/postgres_store.h"

#include <utility>

#include "base/status_macros.h"
#include "store/postgres_database.h"
#include "store/sql_store.h"

namespace valuescope::store {

absl::StatusOr<std::unique_ptr<Store>> OpenPostgresStore(
    const std::string& url, const RetryPolicy& retry,
    std::shared_ptr<const TenantPolicySource> tenants) {
  VS_ASSIGN_OR_RETURN(std::unique_ptr<PostgresDatabase> database, PostgresDatabase::Open(url));
  return MakeSqlStore(std::move(database), retry, std::move(tenants));
}

}  // namespace valuescope::store
