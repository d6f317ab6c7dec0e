#include "services/job_specs.h"

#include <google/protobuf/descriptor.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"

namespace valuescope::services {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

namespace {

bool IsLarge(const v1::JobSpec& spec) {
  return static_cast<int64_t>(spec.ByteSizeLong()) > kMostSpecBytes;
}

// Of `work`, a part of the spec; where that does not help, of what is in it too.
void LeaveOutRepeatedFields(const std::string& path, Message& work, v1::JobSpec& spec) {
  const Reflection& reflection = *work.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(work, &fields);
  for (const FieldDescriptor* field : fields) {
    if (!field->is_repeated()) continue;
    v1::OmittedField& omitted = *spec.add_omitted();
    omitted.set_field(absl::StrCat(path, ".", field->name()));
    omitted.set_count(reflection.FieldSize(work, field));
    reflection.ClearField(&work, field);
  }
  for (const FieldDescriptor* field : fields) {
    if (field->is_repeated() || field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (!IsLarge(spec)) return;
    LeaveOutRepeatedFields(absl::StrCat(path, ".", field->name()),
                           *reflection.MutableMessage(&work, field), spec);
  }
}

}  // namespace

void LeaveOutLargeFields(v1::JobSpec& spec) {
  if (!IsLarge(spec)) return;
  const FieldDescriptor* kind = v1::JobSpec::descriptor()->FindFieldByNumber(spec.spec_case());
  if (kind == nullptr) return;
  LeaveOutRepeatedFields(kind->name(), *spec.GetReflection()->MutableMessage(&spec, kind), spec);
}

absl::Status CheckSpecSize(const v1::JobSpec& spec) {
  const auto bytes = static_cast<int64_t>(spec.ByteSizeLong());
  if (bytes <= kMostSpecBytes) return absl::OkStatus();
  return InvalidField("spec", absl::StrCat("has ", bytes, " bytes without its repeated fields, ",
                                           "allowed are at most ", kMostSpecBytes));
}

}  // namespace valuescope::services
