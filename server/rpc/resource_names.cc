#include "rpc/resource_names.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/id.h"

namespace valuescope::rpc {
namespace {

constexpr int kMostParts = 4096;
constexpr int kMostElements = 64;  // of one list
constexpr size_t kLongestModel = 512;

bool IsResourceName(absl::string_view text) {
  // A model's may have folders.
  if (absl::ConsumePrefix(&text, "models/")) {
    const std::vector<absl::string_view> folders = absl::StrSplit(text, '/');
    return text.size() <= kLongestModel &&
           std::all_of(folders.begin(), folders.end(), [](absl::string_view folder) {
             return CheckResourceId("name", folder).ok();
           });
  }
  for (const absl::string_view kind : {"artifacts/", "jobs/", "neuronSets/", "vectors/"}) {
    if (absl::ConsumePrefix(&text, kind)) return CheckResourceId("name", text).ok();
  }
  return false;
}

class NamesIn {
 public:
  explicit NamesIn(std::set<std::string>& names) : names_(names) {}

  void Walk(const google::protobuf::Message& message) {
    const google::protobuf::Reflection& reflection = *message.GetReflection();
    std::vector<const google::protobuf::FieldDescriptor*> fields;
    reflection.ListFields(message, &fields);
    for (const auto* field : fields) {
      const bool is_message =
          field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE;
      const bool is_text = field->type() == google::protobuf::FieldDescriptor::TYPE_STRING;
      if ((!is_message && !is_text) || field->is_map()) continue;
      const int elements =
          field->is_repeated() ? std::min(kMostElements, reflection.FieldSize(message, field)) : 1;
      for (int i = 0; i < elements; ++i) {
        if (++parts_ > kMostParts || names_.size() >= kMostResourceNames) return;
        Look(message, *field, i, is_message);
      }
    }
  }

 private:
  void Look(const google::protobuf::Message& message,
            const google::protobuf::FieldDescriptor& field, int element, bool is_message) {
    const google::protobuf::Reflection& reflection = *message.GetReflection();
    if (is_message) {
      return Walk(field.is_repeated() ? reflection.GetRepeatedMessage(message, &field, element)
                                      : reflection.GetMessage(message, &field));
    }
    std::string scratch;
    const std::string& text =
        field.is_repeated()
            ? reflection.GetRepeatedStringReference(message, &field, element, &scratch)
            : reflection.GetStringReference(message, &field, &scratch);
    if (IsResourceName(text)) names_.insert(text);
  }

  std::set<std::string>& names_;
  int parts_ = 0;
};

}  // namespace

void AddResourceNames(const google::protobuf::Message& message, std::set<std::string>& names) {
  NamesIn(names).Walk(message);
}

}  // namespace valuescope::rpc
