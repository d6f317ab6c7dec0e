// The store over a database that speaks SQL (store/sql_database.h): each call is one transaction.
#ifndef VALUESCOPE_STORE_SQL_STORE_H_
#define VALUESCOPE_STORE_SQL_STORE_H_

#include <memory>

#include "base/tenant_policy.h"
#include "store/sql_database.h"
#include "store/store.h"

namespace valuescope::store {

std::unique_ptr<Store> MakeSqlStore(std::unique_ptr<SqlDatabase> database,
                                    const RetryPolicy& policy, const TenantPolicies& tenants);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_SQL_STORE_H_
