// A job's spec as the server keeps it and sends it back. What a spec has inline, such as responses,
// may take as much as a request, 64 MiB; a client takes 4 MiB of a reply by default, and one that
// cannot read its job can do nothing about it. The job works on its own, tokenised copy.
#ifndef VALUESCOPE_SERVICES_JOB_SPECS_H_
#define VALUESCOPE_SERVICES_JOB_SPECS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "valuescope/v1/jobs.pb.h"

namespace valuescope::services {

inline constexpr int64_t kMostSpecBytes = int64_t{1} << 20;

// Of a spec with more than kMostSpecBytes clears every repeated field and names it in `omitted`;
// those of messages within it where it is too large even so.
void LeaveOutLargeFields(v1::JobSpec& spec);

// INVALID_ARGUMENT naming "spec" where it has more than kMostSpecBytes even so.
absl::Status CheckSpecSize(const v1::JobSpec& spec);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_JOB_SPECS_H_
