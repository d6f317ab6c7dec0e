// Where a result comes from, enough to make it again. The record enters artifacts and names, so it
// depends on inputs and options alone: no dates, hosts or attempts. What is true of a part only is
// said of it only: a vector that somebody gave was computed by no model, whatever it belongs to.
#ifndef VALUESCOPE_STUDIES_PROVENANCE_H_
#define VALUESCOPE_STUDIES_PROVENANCE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/dtype.h"
#include "engine/served_model.h"
#include "model/site.h"

namespace valuescope::studies {

// The exact content behind a name.
struct InputDigest {
  std::string name;    // "vectors/ID", ... or what it is to the study, such as "responses"
  std::string digest;  // SHA-256, hexadecimal

  bool operator==(const InputDigest&) const = default;
};

struct Provenance {
  std::string model;  // "models/ID"
  std::string model_digest;
  std::string tokenizer_digest;
  std::string template_digest;  // empty where no chat was rendered
  model::Site site = model::Site::kResidualPost;
  std::string pooling;    // "response mean"; empty where no tokens were pooled
  std::string sign_rule;  // "mean(expressing) - mean(non-expressing)"
  std::string judge;      // source of the labels; empty where there are none
  std::vector<uint64_t> seeds;
  int64_t num_expressing = 0;
  int64_t num_non_expressing = 0;
  int64_t num_dropped = 0;
  std::vector<InputDigest> inputs;
  std::string options;                 // what was chosen beside the inputs, a JSON object; or empty
  std::optional<DType> compute_dtype;  // none where no model computed
  std::string determinism;             // "bitwise on cpu float32", "to rounding"
  std::string hardware_class;          // "x86_64 avx2", "NVIDIA H200"

  bool operator==(const Provenance&) const = default;
};

inline constexpr int kProvenanceVersion = 1;
inline constexpr char kLayerConvention[] = "block, 0-based";
inline constexpr char kResponseMeanPooling[] = "response mean";
inline constexpr char kDifferenceSign[] = "mean(expressing) - mean(non-expressing)";
// Names of inputs that go by their content: every upload of a file has a name of its own.
inline constexpr char kResponsesInput[] = "responses";  // the labelled responses, tokenised
inline constexpr char kDataSetInput[] = "data set";     // the file that they came in

// What everything that lives in `model` records, whoever made it.
Provenance ProvenanceWithin(const engine::ServedModel& model);

// What every result that `model` computed records. The rest is the study's to fill in; the template
// is recorded where the study rendered chats (`rendered_chat`).
Provenance ProvenanceOf(const engine::ServedModel& model, bool rendered_chat);

// Of what was derived from `sources`, at least one, all of one model: what all of them agree on,
// texts in which they differ one after another, counts added up, seeds in order. Inputs, options
// and sign are the study's to fill in.
Provenance DerivedProvenance(std::span<const Provenance* const> sources);

// "RESIDUAL_POST" and so on, as model::NameOf writes them. DATA_LOSS for other names.
absl::StatusOr<model::Site> ParseSite(absl::string_view name);
// "float32" and so on, as valuescope::NameOf writes them. DATA_LOSS for other names.
absl::StatusOr<DType> ParseDType(absl::string_view name);

// A JSON object with a format version; equal records give equal text.
std::string ProvenanceToJson(const Provenance& provenance);
// DATA_LOSS for text of another format.
absl::StatusOr<Provenance> ProvenanceFromJson(absl::string_view json);

// The provenance within a resource's metadata (JSON with a member "provenance"); DATA_LOSS where
// there is none.
absl::StatusOr<Provenance> ProvenanceOfMetadata(absl::string_view metadata);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_PROVENANCE_H_
