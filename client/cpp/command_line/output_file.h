// A file that a command writes. It is written beside its target and renamed at the end, so that a
// file under its name is always whole and checked; "-" is standard output.
#ifndef VALUESCOPE_COMMAND_LINE_OUTPUT_FILE_H_
#define VALUESCOPE_COMMAND_LINE_OUTPUT_FILE_H_

#include <fstream>
#include <string>

#include "absl/status/status.h"

namespace valuescope::command_line {

class OutputFile {
 public:
  explicit OutputFile(std::string path);
  // Leaves nothing behind of a file that was not kept.
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // INVALID_ARGUMENT where it cannot be written, in all of them.
  absl::Status Open();
  absl::Status Write(const std::string& bytes);
  absl::Status Keep();

  bool is_standard_output() const { return path_ == "-"; }

 private:
  absl::Status CannotWrite() const;

  const std::string path_;
  const std::string partial_;
  std::ofstream file_;
  bool kept_ = false;
};

}  // namespace valuescope::command_line

#endif  // VALUESCOPE_COMMAND_LINE_OUTPUT_FILE_H_
