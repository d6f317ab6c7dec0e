// The processes that work on the jobs of one store, as rows that each renews by its heartbeat.
#ifndef VALUESCOPE_STORE_REPLICA_ROWS_H_
#define VALUESCOPE_STORE_REPLICA_ROWS_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "store/sql_database.h"
#include "store/store.h"

namespace valuescope::store {

// Announces what it has, where that is new. Forgets those that were not heard of since `silence`
// ago.
void PutReplica(SqlTransaction& transaction, const Replica& replica, absl::Duration silence);
// Announces it too.
void RemoveReplica(SqlTransaction& transaction, absl::string_view id);
// All: those of a store that its one process has just opened are dead.
void RemoveReplicas(SqlTransaction& transaction);
// DATA_LOSS.
absl::StatusOr<std::vector<Replica>> ListReplicas(SqlTransaction& transaction,
                                                  absl::Duration silence);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_REPLICA_ROWS_H_
