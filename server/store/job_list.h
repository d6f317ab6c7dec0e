// Lists of jobs. A filter becomes a statement that walks an index in the list's own order and stops
// with the page, so that a page costs what it has and not what the table has.
#ifndef VALUESCOPE_STORE_JOB_LIST_H_
#define VALUESCOPE_STORE_JOB_LIST_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "store/sql_database.h"
#include "store/store.h"

namespace valuescope::store {

absl::StatusOr<JobPage> ListJobs(SqlTransaction& transaction, absl::string_view tenant,
                                 const JobFilter& filter, const Page& page);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_JOB_LIST_H_
