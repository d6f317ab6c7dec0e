// The store over a database that speaks SQL (store/sql_database.h): each call is one transaction.
#ifndef VALUESCOPE_STORE_SQL_STORE_H_
#define VALUESCOPE_STORE_SQL_STORE_H_

#include <memory>

#include "base/tenant_policy.h"
#include "store/sql_database.h"
#include "store/store.h"

namespace valuescope::store {

// `tenants` are asked in each transaction what they may have; null: what all have by default.
std::unique_ptr<Store> MakeSqlStore(std::unique_ptr<SqlDatabase> database,
                                    const RetryPolicy& policy,
                                    std::shared_ptr<const TenantPolicySource> tenants);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_SQL_STORE_H_
