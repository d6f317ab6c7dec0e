#include "services/model_needs.h"

#include <memory>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "jobs/job_kind.h"
#include "studies/provenance.h"

namespace valuescope::services {
namespace {

constexpr char kModels[] = "models/";
constexpr char kWork[] = "work/";
// Behind the name; then what tells how the model was, each part behind another.
constexpr char kParts = ';';

// Weights, type, determinism, hardware, arithmetic: five parts without a separator in them.
std::vector<std::string> PartsOf(absl::string_view weights_digest,
                                 const v1::Provenance& provenance) {
  absl::string_view dtype = v1::DataType_Name(provenance.compute_dtype());
  absl::ConsumePrefix(&dtype, "DATA_TYPE_");
  std::vector<std::string> parts = {std::string(weights_digest), std::string(dtype),
                                    provenance.determinism(), provenance.hardware_class(),
                                    absl::StrCat("numerics ", kNumericsVersion)};
  for (std::string& part : parts) {
    absl::StrReplaceAll({{" ", "_"}, {";", "_"}}, &part);
  }
  return parts;
}

// Of a need, in the words of people; empty parts where it has none.
struct ReadNeed {
  absl::string_view name;
  std::vector<std::string> parts;
};

ReadNeed ReadOf(absl::string_view need) {
  std::vector<absl::string_view> pieces = absl::StrSplit(need, kParts);
  ReadNeed read{.name = pieces.front(), .parts = {}};
  for (size_t i = 1; i < pieces.size(); ++i) {
    read.parts.push_back(absl::StrReplaceAll(pieces[i], {{"_", " "}}));
  }
  return read;
}

// What differs between the model as it was needed and as it is here.
std::string Difference(const ReadNeed& needed, const ReadNeed& here) {
  if (needed.parts.size() != here.parts.size()) {
    return absl::StrCat("`", needed.name, "` is needed as another version of the server had it");
  }
  if (needed.parts[0] != here.parts[0]) {
    return absl::StrCat("`", needed.name, "` has other weights (SHA-256 ",
                        here.parts[0].substr(0, 12), "...) than when the job was created (",
                        needed.parts[0].substr(0, 12), "...)");
  }
  std::string had, has;
  for (size_t i = 1; i < needed.parts.size(); ++i) {
    if (needed.parts[i] == here.parts[i]) continue;
    absl::StrAppend(&had, had.empty() ? "" : ", ", needed.parts[i]);
    absl::StrAppend(&has, has.empty() ? "" : ", ", here.parts[i]);
  }
  return absl::StrCat("`", needed.name, "` computes in another way (", has,
                      ") than when the job was created (", had, ")");
}

absl::Status CheckFormat(absl::string_view need) {
  int format = 0;
  if (absl::SimpleAtoi(absl::StripPrefix(need, kWork), &format) && format <= kLatestWork) {
    return absl::OkStatus();
  }
  return jobs::NotReady("the job was created by a later version of the server, which can run it");
}

}  // namespace

std::string NeedOfModel(const engine::ServedModel& model) {
  return NeedOfModel(model.id, model.weights_digest,
                     studies::ProvenanceOf(model, /*rendered_chat=*/false));
}

std::string NeedOfModel(absl::string_view id, absl::string_view weights_digest,
                        const v1::Provenance& provenance) {
  std::string need = absl::StrCat(kModels, id);
  for (const std::string& part : PartsOf(weights_digest, provenance)) {
    need.push_back(kParts);
    need.append(part);
  }
  return need;
}

std::string NeedOfWork(int format) { return absl::StrCat(kWork, format); }

absl::string_view ModelNameOf(absl::string_view need) {
  if (!absl::StartsWith(need, kModels)) return "";
  return need.substr(0, need.find(kParts));
}

absl::Status CheckNeed(const engine::ServedModel& model, absl::string_view need) {
  if (ModelNameOf(need) == need) return absl::OkStatus();
  const std::string here = NeedOfModel(model);
  if (here == need) return absl::OkStatus();
  return jobs::NotReady(Difference(ReadOf(need), ReadOf(here)));
}

absl::Status CheckNeeds(const engine::ModelRegistry& models, absl::string_view needs) {
  if (needs.empty()) return absl::OkStatus();
  for (const absl::string_view need : absl::StrSplit(needs, kNeedsSeparator)) {
    if (absl::StartsWith(need, kWork)) {
      VS_RETURN_IF_ERROR(CheckFormat(need));
      continue;
    }
    const auto model = models.Get(absl::StripPrefix(ModelNameOf(need), kModels));
    if (!model.ok()) return jobs::NotReady(model.status().message());
    VS_RETURN_IF_ERROR(CheckNeed(**model, need));
  }
  return absl::OkStatus();
}

}  // namespace valuescope::services
