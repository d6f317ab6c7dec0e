#include "job_list.h"

#include <cstdint>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "arguments.h"
#include "output.h"

namespace valuescope::command_line {
namespace {

absl::StatusOr<v1::JobState> ParseState(const std::string& text) {
  std::vector<std::string> names;
  for (int number = v1::JOB_STATE_QUEUED; number <= v1::JobState_MAX; ++number) {
    const auto state = static_cast<v1::JobState>(number);
    names.push_back(LowerWithoutPrefix(v1::JobState_Name(state), "JOB_STATE_"));
    if (names.back() == absl::AsciiStrToLower(text)) return state;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--state must be one of ", absl::StrJoin(names, ", "), ", not ", text));
}

}  // namespace

absl::StatusOr<absl::Time> ParseMoment(const std::string& text, absl::Time now) {
  int64_t days = 0;
  absl::string_view number = text;
  if (absl::ConsumeSuffix(&number, "d") && absl::SimpleAtoi(number, &days) && days >= 0) {
    return now - days * absl::Hours(24);
  }
  absl::Duration ago;
  if (absl::ParseDuration(text, &ago) && ago >= absl::ZeroDuration()) return now - ago;
  absl::Time time;
  std::string error;
  if (absl::ParseTime(absl::RFC3339_full, text, &time, &error) ||
      absl::ParseTime("%Y-%m-%d", text, &time, &error)) {
    return time;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "must be a date (2026-11-29), a time (2026-11-29T12:30:00Z) or how long ago (36h, 2d), not ",
      text));
}

absl::Status SetMoment(const char* flag, const std::string& text, absl::Time now,
                       google::protobuf::Timestamp* timestamp) {
  const absl::StatusOr<absl::Time> time = ParseMoment(text, now);
  if (!time.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(flag, " ", time.status().message()));
  }
  timestamp->set_seconds(absl::ToUnixSeconds(*time));
  timestamp->set_nanos(static_cast<int32_t>(
      absl::ToInt64Nanoseconds(*time - absl::FromUnixSeconds(timestamp->seconds()))));
  return absl::OkStatus();
}

absl::StatusOr<v1::ListJobsRequest> ListRequestOf(const JobListFlags& flags, absl::Time now) {
  v1::ListJobsRequest request;
  for (const std::string& text : flags.states) {
    const absl::StatusOr<v1::JobState> state = ParseState(text);
    if (!state.ok()) return state.status();
    request.add_states(*state);
  }
  request.set_kind(flags.kind);
  request.set_display_name_prefix(flags.display_name);
  if (!flags.model.empty()) request.set_model(ResourceName("models", flags.model));
  if (!flags.created_after.empty()) {
    const absl::Status set =
        SetMoment("--created_after", flags.created_after, now, request.mutable_created_after());
    if (!set.ok()) return set;
  }
  if (!flags.created_before.empty()) {
    const absl::Status set =
        SetMoment("--created_before", flags.created_before, now, request.mutable_created_before());
    if (!set.ok()) return set;
  }
  return request;
}

}  // namespace valuescope::command_line
