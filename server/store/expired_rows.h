// What has been kept for long enough goes, a bounded number of rows a transaction, so that nobody
// who needs the database waits for it. What another transaction holds just now is left to the next
// sweep.
#ifndef VALUESCOPE_STORE_EXPIRED_ROWS_H_
#define VALUESCOPE_STORE_EXPIRED_ROWS_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "store/sql_database.h"
#include "store/store.h"

namespace valuescope::store {

absl::StatusOr<Expired> Expire(SqlTransaction& transaction, const Retention& retention,
                               int64_t most_rows);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_EXPIRED_ROWS_H_
