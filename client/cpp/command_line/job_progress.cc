#include "job_progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "output.h"

namespace valuescope::command_line {
namespace {

std::string StatisticText(const v1::PartialStatistic& statistic) {
  std::string text = statistic.name();
  if (statistic.has_layer()) absl::StrAppend(&text, "@", statistic.layer());
  absl::StrAppendFormat(&text, " %.4g", statistic.value());
  if (statistic.has_standard_error()) {
    absl::StrAppendFormat(&text, " +- %.2g", statistic.standard_error());
  }
  return text;
}

}  // namespace

std::string ProgressText(const v1::Job& job) {
  const v1::JobProgress& progress = job.progress();
  std::string text = absl::StrFormat(
      "%-10s %d/%d %s", LowerWithoutPrefix(v1::JobState_Name(job.state()), "JOB_STATE_"),
      progress.done(), progress.total(), progress.unit());
  if (progress.total() > 0) {
    absl::StrAppendFormat(&text, "  %d%%", 100 * progress.done() / progress.total());
  }
  if (progress.has_eta()) {
    absl::StrAppend(&text, "  ETA ", absl::FormatDuration(absl::Seconds(progress.eta().seconds())));
  }
  for (const v1::PartialStatistic& statistic : progress.statistics()) {
    absl::StrAppend(&text, "  ", StatisticText(statistic));
  }
  if (!job.waiting_for().empty()) absl::StrAppend(&text, "  waits: ", job.waiting_for());
  return text;
}

std::string MomentText(const google::protobuf::Timestamp& time) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", absl::FromUnixSeconds(time.seconds()),
                          absl::UTCTimeZone());
}

void JobProgressLine::Update(const v1::Job& job) {
  const std::string text = ProgressText(job);
  if (text == last_) return;
  last_ = text;
  if (!isatty(STDERR_FILENO)) {
    std::cerr << text << "\n";
    return;
  }
  constexpr int64_t kWidth = 30;
  const int64_t total = std::max<int64_t>(1, job.progress().total());
  const int64_t filled = std::clamp<int64_t>(kWidth * job.progress().done() / total, 0, kWidth);
  std::cerr << "\r[" << std::string(filled, '#') << std::string(kWidth - filled, '.') << "] "
            << text << "\x1b[K" << std::flush;
}

void JobProgressLine::Say(const std::string& sentence) {
  Finish();
  last_.clear();
  std::cerr << sentence << "\n";
}

void JobProgressLine::Finish() {
  if (isatty(STDERR_FILENO) && !last_.empty()) std::cerr << "\n";
}

}  // namespace valuescope::command_line
