// Requests of the contract as the engine takes them: names resolved, defaults filled in, layers
// spelled out; prompts stand in prompt_codec.h. Errors name the field by its whole path
// ("interventions[2].layers .list.layers[0]") and the values it may have. Ranges that depend on the
// whole request (prompt length, sampling parameters, scopes that touch nothing) are the engine's to
// check.
#ifndef VALUESCOPE_SERVICES_REQUEST_CODEC_H_
#define VALUESCOPE_SERVICES_REQUEST_CODEC_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/model_registry.h"
#include "engine/request.h"
#include "engine/served_model.h"
#include "model/site.h"
#include "valuescope/v1/common.pb.h"
#include "valuescope/v1/generation.pb.h"

namespace valuescope::services {

// "x" of "models/x". INVALID_ARGUMENT naming `field` unless `name` is `collection`/ID.
absl::StatusOr<std::string> IdOfName(absl::string_view field, absl::string_view collection,
                                     absl::string_view name);

// The model that a request's field names. Errors: INVALID_ARGUMENT, and those of
// engine::ModelRegistry::Get, which say too which other servers have it READY.
absl::StatusOr<std::shared_ptr<const engine::ServedModel>> ModelOfName(
    absl::string_view field, absl::string_view name, const engine::ModelRegistry& models);

// `site` of a request, UNSPECIFIED being `otherwise`.
absl::StatusOr<model::Site> SiteFromProto(absl::string_view field, v1::Site site,
                                          model::Site otherwise = model::Site::kResidualPost);

// The blocks chosen, ascending, each 0 .. num_layers - 1. `layers` null means all where
// `all_by_default`, else INVALID_ARGUMENT, as for one without a choice. At a site without layers:
// empty, and INVALID_ARGUMENT where a choice is made.
struct LayersOptions {
  model::Site site = model::Site::kResidualPost;
  int num_layers = 0;
  bool all_by_default = false;
};
absl::StatusOr<std::vector<int>> LayersFromProto(absl::string_view field, const v1::Layers* layers,
                                                 const LayersOptions& options);

// `otherwise` stands for a selection that is not given. No sequence has more than `context`
// positions to name.
absl::StatusOr<engine::TokenSelection> TokensFromProto(absl::string_view field,
                                                       const v1::TokenSelection& tokens,
                                                       int64_t context,
                                                       engine::TokenKind otherwise);

// Resources that a request used, by name.
using UsedResources = std::map<std::string, std::string>;  // name, digest

// That `neuron` is one of `count` in each of `num_layers` blocks: INVALID_ARGUMENT naming
// `field`.layer or `field`.index.
absl::Status CheckNeuronId(absl::string_view field, const v1::NeuronId& neuron, int num_layers,
                           int64_t count);

absl::StatusOr<std::vector<engine::Tap>> TapsFromProto(
    const google::protobuf::RepeatedPtrField<v1::Tap>& taps, const engine::ServedModel& model);

// `room` is how many tokens fit behind the prompt. A seed that is not given is drawn.
engine::Sampling SamplingFromProto(const v1::SamplingParams& sampling,
                                   std::optional<int32_t> logprobs, int64_t room);

// The seed of completion `index` of a request: the request's own for the first.
uint64_t SeedOfCompletion(uint64_t seed, int index);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_REQUEST_CODEC_H_
