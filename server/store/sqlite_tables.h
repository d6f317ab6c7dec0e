// The tables that this version reads and writes, in SQLite, and how older ones become them.
#ifndef VALUESCOPE_STORE_SQLITE_TABLES_H_
#define VALUESCOPE_STORE_SQLITE_TABLES_H_

#include "SQLiteCpp/SQLiteCpp.h"
#include "absl/status/status.h"

namespace valuescope::store {

// Makes the tables, or brings older ones to the present format, in one transaction.
// FAILED_PRECONDITION: the file is another application's (NOT_A_STORE) or of a later version
// (STORE_TOO_NEW). Throws SQLite::Exception.
absl::Status BringToPresentFormat(SQLite::Database& database);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_SQLITE_TABLES_H_
