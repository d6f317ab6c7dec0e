#include "services/job_specs.h"

#include <google/protobuf/descriptor.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"

namespace valuescope::services {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

void LeaveOutLargeFields(v1::JobSpec& spec) {
  if (static_cast<int64_t>(spec.ByteSizeLong()) <= kMostSpecBytes) return;
  const FieldDescriptor* kind = v1::JobSpec::descriptor()->FindFieldByNumber(spec.spec_case());
  if (kind == nullptr) return;
  Message& work = *spec.GetReflection()->MutableMessage(&spec, kind);
  const Reflection& reflection = *work.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(work, &fields);
  for (const FieldDescriptor* field : fields) {
    if (!field->is_repeated()) continue;
    v1::OmittedField& omitted = *spec.add_omitted();
    omitted.set_field(absl::StrCat(kind->name(), ".", field->name()));
    omitted.set_count(reflection.FieldSize(work, field));
    reflection.ClearField(&work, field);
  }
}

absl::Status CheckSpecSize(const v1::JobSpec& spec) {
  const auto bytes = static_cast<int64_t>(spec.ByteSizeLong());
  if (bytes <= kMostSpecBytes) return absl::OkStatus();
  return InvalidField("spec", absl::StrCat("has ", bytes, " bytes without its repeated fields, ",
                                           "allowed are at most ", kMostSpecBytes));
}

}  // namespace valuescope::services
