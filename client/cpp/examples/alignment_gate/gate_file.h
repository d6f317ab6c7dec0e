// The bounds file: read, completed by the files that it names, and checked before anybody is asked.
#ifndef ALIGNMENT_GATE_GATE_FILE_H_
#define ALIGNMENT_GATE_GATE_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "gate.pb.h"

namespace alignment_gate {

// A file's bytes; INVALID_ARGUMENT where it cannot be read, or is larger than any that is meant.
absl::StatusOr<std::string> ReadFile(const std::string& path);

// With its items and questions in their requests. INVALID_ARGUMENT, with line or field, where it is
// no bounds file.
absl::StatusOr<Gate> ReadGateFile(const std::string& path);

}  // namespace alignment_gate

#endif  // ALIGNMENT_GATE_GATE_FILE_H_
