// The command line of the gate.
#ifndef ALIGNMENT_GATE_OPTIONS_H_
#define ALIGNMENT_GATE_OPTIONS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace alignment_gate {

struct Options {
  std::string server = "127.0.0.1:50051";
  std::string bounds;       // path of the bounds file
  std::string model;        // empty: that of the bounds file
  std::string vector;       // vectors/ID; with vector_file empty: the bounds file says what steers
  std::string vector_file;  // path of a vector in safetensors
  float coefficient = 1;
  std::vector<int> layers;  // where the vector is added, 0-based blocks
  absl::Duration timeout = absl::Minutes(30);
};

// INVALID_ARGUMENT, naming the flag, where the command line cannot be understood.
absl::StatusOr<Options> ParseOptions(const std::vector<std::string>& arguments);

// What the program does, for --help.
const char* HelpText();

}  // namespace alignment_gate

#endif  // ALIGNMENT_GATE_OPTIONS_H_
