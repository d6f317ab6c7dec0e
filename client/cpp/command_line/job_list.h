// What `valuescope jobs list` lets through, from text to the contract.
#ifndef VALUESCOPE_COMMAND_LINE_JOB_LIST_H_
#define VALUESCOPE_COMMAND_LINE_JOB_LIST_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "commands.h"
#include "valuescope/v1/jobs.pb.h"

namespace valuescope::command_line {

// "2026-11-29", "2026-11-29T12:30:00Z", or how long before `now`: "36h", "2d".
absl::StatusOr<absl::Time> ParseMoment(const std::string& text, absl::Time now);

// The same into a timestamp. INVALID_ARGUMENT naming `flag`.
absl::Status SetMoment(const char* flag, const std::string& text, absl::Time now,
                       google::protobuf::Timestamp* timestamp);

// INVALID_ARGUMENT naming the flag.
absl::StatusOr<v1::ListJobsRequest> ListRequestOf(const JobListFlags& flags, absl::Time now);

}  // namespace valuescope::command_line

#endif  // VALUESCOPE_COMMAND_LINE_JOB_LIST_H_
