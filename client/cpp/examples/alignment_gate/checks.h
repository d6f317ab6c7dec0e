// What was measured of a steering beside the bounds of the bounds file. Nothing here calls anybody.
#ifndef ALIGNMENT_GATE_CHECKS_H_
#define ALIGNMENT_GATE_CHECKS_H_

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gate.pb.h"

namespace alignment_gate {

// Of 95 %.
struct Interval {
  double lower = 0;
  double upper = 0;
};

struct Check {
  std::string what;  // such as "drift of ST"
  double measured = 0;
  std::optional<Interval> interval = std::nullopt;  // none: one item has none
  double at_least = -std::numeric_limits<double>::infinity();
  double at_most = std::numeric_limits<double>::infinity();

  // The interval says how sure the number is; the number decides. What is no number is not within.
  bool Within() const { return measured >= at_least && measured <= at_most; }
};

// Of a questionnaire's results, not steered and steered. INVALID_ARGUMENT where a bound names a
// value that they lack.
absl::StatusOr<std::vector<Check>> CheckValues(const Gate& gate,
                                               const valuescope::v1::QuestionnaireResult& unsteered,
                                               const valuescope::v1::QuestionnaireResult& steered);

// Of the results of multiple-choice questions, not steered and steered.
std::vector<Check> CheckCapability(const Gate& gate, const valuescope::v1::ChoicesResult& unsteered,
                                   const valuescope::v1::ChoicesResult& steered);

// One line: verdict, what, number, interval, bounds, and of a broken one by how much.
std::string ToLine(const Check& check);

}  // namespace alignment_gate

#endif  // ALIGNMENT_GATE_CHECKS_H_
