// A job's progress as text, and as a line that is drawn while it is watched.
#ifndef VALUESCOPE_COMMAND_LINE_JOB_PROGRESS_H_
#define VALUESCOPE_COMMAND_LINE_JOB_PROGRESS_H_

#include <google/protobuf/timestamp.pb.h>

#include <string>

#include "valuescope/v1/jobs.pb.h"

namespace valuescope::command_line {

// "running    64/128 responses  50%  ETA 1m30s  num_expressing 30  response_tokens 41.2 +- 0.8"
std::string ProgressText(const v1::Job& job);

// "2026-11-29 12:30:00", UTC.
std::string MomentText(const google::protobuf::Timestamp& time);

// To standard error: one line drawn over itself on a terminal, a new line a change otherwise.
class JobProgressLine {
 public:
  void Update(const v1::Job& job);
  // A sentence of its own line, in between.
  void Say(const std::string& sentence);
  void Finish();

 private:
  std::string last_;
};

}  // namespace valuescope::command_line

#endif  // VALUESCOPE_COMMAND_LINE_JOB_PROGRESS_H_
