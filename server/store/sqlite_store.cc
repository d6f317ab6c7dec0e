#include "store/sqlite_store.h"

#include <utility>

#include "base/status_macros.h"
#include "store/lease_rows.h"
#include "store/replica_rows.h"
#include "store/sql_store.h"
#include "store/sqlite_database.h"

namespace valuescope::store {

absl::StatusOr<std::unique_ptr<Store>> OpenSqliteStore(const std::string& path,
                                                       const SqliteStoreOptions& options) {
  VS_ASSIGN_OR_RETURN(std::unique_ptr<SqliteDatabase> database,
                      SqliteDatabase::Open(path, options.clock));
  // Leases in a file that nobody else holds open are a dead process's.
  VS_RETURN_IF_ERROR(database->Transact([&](SqlTransaction& transaction) {
    TakeBackLeases(transaction, /*expired_by=*/absl::FromUnixSeconds(int64_t{1} << 40),
                   options.retry);
    RemoveReplicas(transaction);
    return absl::OkStatus();
  }));
  return MakeSqlStore(std::move(database), options.retry, options.tenants);
}

}  // namespace valuescope::store
