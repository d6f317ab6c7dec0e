// Where a result comes from, enough to make it again. The record enters artifacts and names, so it
// depends on inputs and options alone: no dates, hosts or attempts. What is true of a part only is
// said of it only: a vector that somebody gave was computed by no model, whatever it belongs to.
#ifndef VALUESCOPE_STUDIES_PROVENANCE_H_
#define VALUESCOPE_STUDIES_PROVENANCE_H_

#include <span>

#include "absl/status/statusor.h"
#include "engine/served_model.h"
#include "store/store.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::studies {

inline constexpr char kDifferenceSign[] = "mean(expressing) - mean(non-expressing)";
// Names of inputs that go by their content: every upload of a file has a name of its own.
inline constexpr char kResponsesInput[] = "responses";  // the labelled responses, tokenised
inline constexpr char kDataSetInput[] = "data set";     // the file that they came in
inline constexpr char kQueriesInput[] = "queries";      // the file of what was asked

// What everything that lives in `model` records, whoever made it.
v1::Provenance ProvenanceWithin(const engine::ServedModel& model);

// What every result that `model` computed records. The rest is the study's to fill in; the template
// is recorded where the study rendered chats (`rendered_chat`).
v1::Provenance ProvenanceOf(const engine::ServedModel& model, bool rendered_chat);

// Of what was derived from `sources`, at least one, all of one model: what all of them agree on,
// texts in which they differ one after another, counts added up, seeds in order. Inputs, options
// and sign are the study's to fill in.
v1::Provenance DerivedProvenance(std::span<const v1::Provenance* const> sources);

// What an artifact's metadata tells; an empty message of an upload. DATA_LOSS where it is damaged.
absl::StatusOr<v1::Provenance> ProvenanceOfArtifact(const store::Resource& artifact);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_PROVENANCE_H_
