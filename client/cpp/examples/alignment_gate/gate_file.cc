#include "gate_file.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/json_util.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace alignment_gate {
namespace {

constexpr uintmax_t kMaxFileBytes = 16 << 20;
// Messages within messages; the contract's own are not as deep.
constexpr int kMaxDepth = 32;

template <typename... Parts>
absl::Status Bad(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

// Keeps the first error of a text that does not parse.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (text_.empty())
      text_ = absl::StrCat("line ", line + 1, ", column ", column + 1, ": ", message);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

absl::StatusOr<Gate> ParseText(const std::string& path, const std::string& text) {
  FirstError error;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  parser.SetRecursionLimit(kMaxDepth);
  Gate gate;
  if (!parser.ParseFromString(text, &gate)) return Bad(path, ": ", error.text());
  return gate;
}

// Appends a message a line of JSON, empty lines left out.
template <typename Message>
absl::Status ReadLines(const std::string& path,
                       google::protobuf::RepeatedPtrField<Message>& messages) {
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return text.status();
  int line = 0;
  for (const absl::string_view json : absl::StrSplit(*text, '\n')) {
    ++line;
    if (json.find_first_not_of(" \t\r") == absl::string_view::npos) continue;
    const auto parsed =
        google::protobuf::util::JsonStringToMessage(std::string(json), messages.Add());
    if (!parsed.ok()) return Bad(path, ": line ", line, ": ", std::string(parsed.message()));
  }
  return absl::OkStatus();
}

// Whether one of a request's own data sets is there: inline, or on the server.
bool HasItems(const Gate& gate) {
  return gate.questionnaire().items_size() > 0 || !gate.questionnaire().artifact().empty();
}
bool HasQuestions(const Gate& gate) {
  return gate.choices().questions_size() > 0 || !gate.choices().artifact().empty();
}

// What the gate fills in must not stand there, lest somebody thinks that it counts.
absl::Status CheckWhatIsAsked(const Gate& gate) {
  if (!gate.unsteered().name().empty() || !gate.steered().name().empty()) {
    return Bad("`name` of a condition is the gate's; leave it out");
  }
  if (!gate.questionnaire().model().empty() || gate.questionnaire().conditions_size() > 0 ||
      !gate.choices().model().empty() || gate.choices().conditions_size() > 0) {
    return Bad(
        "`model` and `conditions` of questionnaire and choices are the gate's; say them once, in "
        "`model`, `unsteered` and `steered`");
  }
  if (gate.has_questionnaire() && !HasItems(gate)) {
    return Bad("`questionnaire` has no items; name them in `items_file`");
  }
  if (gate.has_choices() && !HasQuestions(gate)) {
    return Bad("`choices` has no questions; name them in `questions_file`");
  }
  return absl::OkStatus();
}

absl::Status CheckDrift(const Gate& gate) {
  std::set<std::string> names;
  for (const DriftBound& bound : gate.drift()) {
    const std::string& name = bound.value();
    if (name.empty()) return Bad("`value` of a `drift` is missing");
    if (!names.insert(name).second) return Bad("`drift` names '", name, "' twice");
    if (!bound.has_at_least() && !bound.has_at_most()) {
      return Bad("`drift` of '", name, "' needs at_least, at_most or both");
    }
    if (std::isnan(bound.at_least()) || std::isnan(bound.at_most()) ||
        (bound.has_at_least() && bound.has_at_most() && bound.at_least() > bound.at_most())) {
      return Bad("`drift` of '", name, "' lets nothing through: at_least ", bound.at_least(),
                 ", at_most ", bound.at_most());
    }
  }
  if (gate.has_max_other_drift() && !(gate.max_other_drift() >= 0)) {
    return Bad("`max_other_drift` is ", gate.max_other_drift(), "; it must be at least 0");
  }
  return absl::OkStatus();
}

absl::Status CheckShare(absl::string_view field, bool is_set, double share) {
  if (!is_set || (share >= 0 && share <= 1)) return absl::OkStatus();
  return Bad("`", field, "` is ", share, "; it must be from 0 to 1");
}

// Text can be written as bytes that are none, in which case no server reads it.
absl::Status CheckText(const Gate& gate) {
  if (Gate().ParseFromString(gate.SerializeAsString())) return absl::OkStatus();
  return Bad("it holds text that is not UTF-8");
}

// That something is bounded, and whatever is bounded is asked.
absl::Status CheckBounds(const Gate& gate) {
  const bool bounds_values = gate.drift_size() > 0 || gate.has_max_other_drift();
  const bool bounds_capability = gate.has_min_accuracy() || gate.has_max_accuracy_loss();
  if (!bounds_values && !bounds_capability) {
    return Bad(
        "nothing is bounded; set one of drift, max_other_drift, min_accuracy, "
        "max_accuracy_loss");
  }
  if (bounds_values && !gate.has_questionnaire()) return Bad("`questionnaire` is missing");
  if (bounds_capability && !gate.has_choices()) return Bad("`choices` is missing");
  absl::Status status = CheckDrift(gate);
  status.Update(CheckShare("min_accuracy", gate.has_min_accuracy(), gate.min_accuracy()));
  status.Update(
      CheckShare("max_accuracy_loss", gate.has_max_accuracy_loss(), gate.max_accuracy_loss()));
  status.Update(CheckShare("min_label_mass", gate.has_min_label_mass(), gate.min_label_mass()));
  return status;
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);  // an error for what is no file
  if (error) return Bad("cannot read '", path, "': ", error.message());
  if (size > kMaxFileBytes) {
    return Bad("'", path, "' has ", size, " bytes; ", kMaxFileBytes, " are allowed");
  }
  std::string bytes(size, '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(bytes.data(), static_cast<std::streamsize>(size))) {
    return Bad("cannot read '", path, "'");
  }
  return bytes;
}

absl::StatusOr<Gate> ReadGateFile(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return text.status();
  absl::StatusOr<Gate> gate = ParseText(path, *text);
  if (!gate.ok()) return gate;
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (!gate->items_file().empty()) {
    absl::Status read =
        ReadLines(folder / gate->items_file(), *gate->mutable_questionnaire()->mutable_items());
    if (!read.ok()) return read;
  }
  if (!gate->questions_file().empty()) {
    absl::Status read =
        ReadLines(folder / gate->questions_file(), *gate->mutable_choices()->mutable_questions());
    if (!read.ok()) return read;
  }
  absl::Status status = CheckText(*gate);
  status.Update(CheckWhatIsAsked(*gate));
  status.Update(CheckBounds(*gate));
  if (!status.ok()) return Bad(path, ": ", status.message());
  return gate;
}

}  // namespace alignment_gate
