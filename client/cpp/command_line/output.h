// What people and programs see: aligned tables, a progress line, JSON, and errors that say what to
// do next.
#ifndef VALUESCOPE_COMMAND_LINE_OUTPUT_H_
#define VALUESCOPE_COMMAND_LINE_OUTPUT_H_

#include <google/protobuf/message.h>
#include <google/protobuf/repeated_field.h>

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace valuescope::command_line {

// Exit codes: who has to do something about it.
inline constexpr int kOk = 0;
inline constexpr int kServerError =
    1;  // the server or the way to it: try again, or call its operator
inline constexpr int kUsageError = 2;      // the command line itself
inline constexpr int kRequestRefused = 3;  // understood and refused: change the request
inline constexpr int kInterrupted = 130;   // Ctrl-C

int ExitCodeOf(const absl::Status& status);

// Prints "error: ..." with fields, retry delay and advice to standard error; returns the exit code.
int Fail(const absl::Status& status);

// The same of what was typed, and of files that were named; returns kUsageError.
int FailUsage(const absl::Status& status);

// Columns padded to their widest cell; the first row is the header.
void PrintTable(const std::vector<std::vector<std::string>>& rows);

// A cell: four digits, or nothing where the number is unset.
std::string NumberOrNothing(bool is_set, double number);

// "warning: ..." for each, to standard error.
void PrintWarnings(const google::protobuf::RepeatedPtrField<std::string>& warnings);

// The message's JSON mapping with field names as in the contract, on one line.
void PrintJson(const google::protobuf::Message& message);

// Enough of a digest to tell two apart.
std::string ShortDigest(const std::string& digest);

// "JOB_STATE_RUNNING" -> "running".
std::string LowerWithoutPrefix(const std::string& name, const std::string& prefix);

}  // namespace valuescope::command_line

#endif  // VALUESCOPE_COMMAND_LINE_OUTPUT_H_
