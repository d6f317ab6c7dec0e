// The tables of a store in PostgreSQL, by format: like SQLite's (store/sqlite_tables.cc), and
// commits, which tells of a transaction whether it was committed. They lie in the first schema of
// the connection's search_path.
//
// Servers of two versions share them while one replaces the other, one server after the other: the
// first of the newer version brings them to its format, and those of the older one go on, and may
// start again, as long as they know the format that store_format.compatible_from tells. A version
// therefore only adds to what the version before knows, and takes away what that did not use.
#ifndef VALUESCOPE_STORE_POSTGRES_TABLES_H_
#define VALUESCOPE_STORE_POSTGRES_TABLES_H_

#include "absl/status/status.h"
#include "store/postgres_connection.h"

namespace valuescope::store {

// Makes the tables, or brings those of an earlier format to the present one; of several servers
// that start at once one does it. Those of a newer version stay as they are. Throws PostgresError.
// FAILED_PRECONDITION with reason STORE_TOO_NEW (made by a newer version, for which this one is too
// old), NOT_A_STORE (the database has tables of these names that
// are not ours), STORE_FORBIDDEN (its user may not make tables) or STORE_UNSUITABLE (an old server,
// or no UTF-8).
absl::Status BringToPresentFormat(PostgresConnection& connection);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_POSTGRES_TABLES_H_
