#include "services/value_labels.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::services {
namespace {

absl::Status CheckLabel(const v1::ValueLabel& label) {
  if (label.value().empty()) return InvalidField("value", "must not be empty");
  VS_RETURN_IF_ERROR(CheckValueName("value", label.value()));
  if (label.has_expresses()) return absl::OkStatus();
  return InvalidField("expresses", "must be set: true or false");
}

absl::Status CheckLabels(const v1::LabelledResponse& response) {
  if (response.labels_size() > studies::kMostValues) {
    return InvalidField(
        "labels", absl::StrCat("has ", response.labels_size(), " labels, allowed are at most ",
                               studies::kMostValues));
  }
  absl::flat_hash_set<absl::string_view> values;
  for (int i = 0; i < response.labels_size(); ++i) {
    const v1::ValueLabel& label = response.labels(i);
    const std::string field = absl::StrCat("labels[", i, "]");
    VS_RETURN_IF_ERROR(InField(field, CheckLabel(label)));
    if (values.insert(label.value()).second) continue;
    return InvalidField(absl::StrCat(field, ".value"),
                        "must be another than those of the labels before");
  }
  return absl::OkStatus();
}

void Read(const AskedLabels& asked, const std::string& value, bool expresses,
          studies::ValueLabels& labels) {
  const auto found = asked.values.find(value);
  if (found == asked.values.end()) return;
  labels.known |= uint64_t{1} << found->second;
  if (expresses) labels.expressed |= uint64_t{1} << found->second;
}

}  // namespace

absl::Status CheckValueName(absl::string_view field, absl::string_view value) {
  if (value.size() <= kMaxValueBytes) return absl::OkStatus();
  return InvalidField(
      field, absl::StrCat("has ", value.size(), " bytes, allowed are at most ", kMaxValueBytes));
}

absl::StatusOr<studies::ValueLabels> ReadValueLabels(absl::string_view place,
                                                     const v1::LabelledResponse& response,
                                                     const AskedLabels& asked) {
  VS_RETURN_IF_ERROR(InField(place, CheckLabels(response)));
  studies::ValueLabels labels;
  for (const v1::ValueLabel& label : response.labels()) {
    Read(asked, label.value(), label.expresses(), labels);
  }
  if (response.has_expresses()) Read(asked, "", response.expresses(), labels);
  const auto condition = asked.conditions.find(response.condition());
  if (condition != asked.conditions.end()) labels.condition = condition->second;
  return labels;
}

absl::Status CheckRoomForLabel(absl::string_view place, const v1::LabelledResponse& response,
                               const std::string& value) {
  v1::LabelledResponse with_label;
  *with_label.mutable_labels() = response.labels();
  VS_RETURN_IF_ERROR(InField(place, CheckLabels(with_label)));
  SetValueLabel(value, /*expresses=*/false, with_label);
  return InField(place, CheckLabels(with_label));
}

void SetValueLabel(const std::string& value, bool expresses, v1::LabelledResponse& response) {
  auto& labels = *response.mutable_labels();
  auto label = std::find_if(labels.begin(), labels.end(),
                            [&](const v1::ValueLabel& other) { return other.value() == value; });
  if (label == labels.end()) {
    labels.Add()->set_value(value);
    label = labels.end() - 1;
  }
  label->set_expresses(expresses);
}

}  // namespace valuescope::services
