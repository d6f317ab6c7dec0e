// Shards as tests of stores make them: of one kind, which every server can run.
#ifndef VALUESCOPE_TESTS_STORE_ANY_WORK_H_
#define VALUESCOPE_TESTS_STORE_ANY_WORK_H_

#include "store/store.h"

namespace valuescope::store {

inline const LeaseRequest kAnyWork = {.can_run = {{.kind = "count", .needs = ""}}};

}  // namespace valuescope::store

#endif  // VALUESCOPE_TESTS_STORE_ANY_WORK_H_
