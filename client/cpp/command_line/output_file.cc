#include "output_file.h"

#include <cstdio>
#include <iostream>
#include <utility>

#include "absl/strings/str_cat.h"

namespace valuescope::command_line {

OutputFile::OutputFile(std::string path)
    : path_(std::move(path)), partial_(absl::StrCat(path_, ".partial")) {}

OutputFile::~OutputFile() {
  if (file_.is_open() && !kept_) std::remove(partial_.c_str());
}

absl::Status OutputFile::Open() {
  if (is_standard_output()) return absl::OkStatus();
  file_.open(partial_, std::ios::binary);
  return file_ ? absl::OkStatus() : CannotWrite();
}

absl::Status OutputFile::Write(const std::string& bytes) {
  std::ostream& out = is_standard_output() ? std::cout : file_;
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return out ? absl::OkStatus() : CannotWrite();
}

absl::Status OutputFile::Keep() {
  if (is_standard_output()) return absl::OkStatus();
  file_.flush();
  if (!file_ || std::rename(partial_.c_str(), path_.c_str()) != 0) return CannotWrite();
  kept_ = true;
  return absl::OkStatus();
}

absl::Status OutputFile::CannotWrite() const {
  return absl::InvalidArgumentError(is_standard_output()
                                        ? std::string("cannot write the output")
                                        : absl::StrCat("cannot write '", path_, "'"));
}

}  // namespace valuescope::command_line
