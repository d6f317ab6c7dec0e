// Labels of a response for several values (LabelledResponse.labels), as studies of several values
// take them.
#ifndef VALUESCOPE_SERVICES_VALUE_LABELS_H_
#define VALUESCOPE_SERVICES_VALUE_LABELS_H_

#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "studies/response_selection.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::services {

inline constexpr size_t kMaxValueBytes = 128;

// INVALID_ARGUMENT naming `field` where a value's name is longer than kMaxValueBytes.
absl::Status CheckValueName(absl::string_view field, absl::string_view value);

// What is read of responses, by name, with its number. At most studies::kMostValues and
// kMostConditions.
struct AskedLabels {
  // "" is LabelledResponse.expresses.
  absl::flat_hash_map<std::string, int> values;
  absl::flat_hash_map<std::string, int> conditions;
};

// INVALID_ARGUMENT naming `place`.labels...: more than kMostValues of them, a value without a name,
// with one that is too long or that another label has, a label that is neither true nor false.
absl::StatusOr<studies::ValueLabels> ReadValueLabels(absl::string_view place,
                                                     const v1::LabelledResponse& response,
                                                     const AskedLabels& asked);

// INVALID_ARGUMENT naming `place`.labels... where the labels are none that ReadValueLabels takes,
// or would not be with one of `value`.
absl::Status CheckRoomForLabel(absl::string_view place, const v1::LabelledResponse& response,
                               const std::string& value);
// Writes the label of a value, in place of one of the same value.
void SetValueLabel(const std::string& value, bool expresses, v1::LabelledResponse& response);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_VALUE_LABELS_H_
