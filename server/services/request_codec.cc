#include "services/request_codec.h"

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/id.h"
#include "base/split_mix.h"
#include "base/status_macros.h"
#include "services/tensor_codec.h"
#include "studies/contract_enums.h"

namespace valuescope::services {
namespace {

constexpr int kDefaultMaxTokens = 256;
constexpr size_t kMostServersTold = 8;  // in an error

std::string At(absl::string_view field, int index) { return absl::StrCat(field, "[", index, "]"); }

absl::StatusOr<engine::Reduction> ReductionFromProto(absl::string_view field,
                                                     v1::Reduction reduction) {
  switch (reduction) {
    case v1::REDUCTION_UNSPECIFIED:
    case v1::REDUCTION_NONE:
      return engine::Reduction::kNone;
    case v1::REDUCTION_MEAN:
      return engine::Reduction::kMean;
    case v1::REDUCTION_SUM:
      return engine::Reduction::kSum;
    case v1::REDUCTION_MAX:
      return engine::Reduction::kMax;
    case v1::REDUCTION_LAST:
      return engine::Reduction::kLast;
    default:
      return InvalidField(field, "must be NONE, MEAN, SUM, MAX or LAST (REDUCTION_...)");
  }
}

// Why a model cannot be used here, and the servers that have it.
absl::Status TellWhere(const absl::Status& here, std::vector<std::string> servers) {
  if (servers.empty()) return here;
  const size_t more = servers.size() - std::min(servers.size(), kMostServersTold);
  servers.resize(servers.size() - more);
  std::string told = absl::StrCat(here.message(), "; of the servers that share the store `",
                                  absl::StrJoin(servers, "`, `"), "`");
  if (more > 0) absl::StrAppend(&told, " and ", more, " more");
  absl::StrAppend(&told, servers.size() == 1 ? " has it READY" : " have it READY");
  return ErrorWithReason(here.code(), DetailsOf(here).reason, told);
}

}  // namespace

absl::StatusOr<std::string> IdOfName(absl::string_view field, absl::string_view collection,
                                     absl::string_view name) {
  if (!absl::StartsWith(name, collection) || name.size() <= collection.size() ||
      name[collection.size()] != '/') {
    return InvalidField(field, absl::StrCat("must be ", collection, "/ID"));
  }
  const absl::string_view id = name.substr(collection.size() + 1);
  VS_RETURN_IF_ERROR(CheckResourceId(field, id));
  return std::string(id);
}

absl::StatusOr<std::shared_ptr<const engine::ServedModel>> ModelOfName(
    absl::string_view field, absl::string_view name, const engine::ModelRegistry& models) {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName(field, "models", name));
  absl::StatusOr<std::shared_ptr<const engine::ServedModel>> model = models.Get(id);
  if (model.ok()) return model;
  return TellWhere(model.status(), models.ReadyElsewhere(id));
}

absl::StatusOr<model::Site> SiteFromProto(absl::string_view field, v1::Site site,
                                          model::Site otherwise) {
  if (site == v1::SITE_UNSPECIFIED) return otherwise;
  if (const std::optional<model::Site> ours = studies::SiteOf(site)) return *ours;
  return InvalidField(field, "must be a SITE_... of the contract");
}

absl::StatusOr<std::vector<int>> LayersFromProto(absl::string_view field, const v1::Layers* layers,
                                                 const LayersOptions& options) {
  const bool chosen = layers != nullptr && layers->layers_case() != v1::Layers::LAYERS_NOT_SET;
  if (!model::IsPerLayer(options.site)) {
    if (!chosen) return std::vector<int>();
    return InvalidField(
        field, absl::StrCat("must be unset: ", model::NameOf(options.site), " has no layers"));
  }
  const int last_layer = options.num_layers - 1;
  if (layers != nullptr && !chosen) {
    return InvalidField(field, absl::StrCat("chooses nothing: all, list or range of 0 to ",
                                            last_layer, ", or leave it out"));
  }
  const auto check = [&](absl::string_view path, int layer) {
    if (layer >= 0 && layer <= last_layer) return absl::OkStatus();
    return OutOfRange(path, layer, 0, last_layer);
  };
  std::set<int> result;
  if (!chosen) {
    if (!options.all_by_default) {
      return InvalidField(field,
                          absl::StrCat("is required: all, list or range of 0 to ", last_layer));
    }
    for (int layer = 0; layer <= last_layer; ++layer) result.insert(layer);
  } else if (layers->layers_case() == v1::Layers::kAll) {
    if (!layers->all()) return InvalidField(absl::StrCat(field, ".all"), "must be true");
    for (int layer = 0; layer <= last_layer; ++layer) result.insert(layer);
  } else if (layers->layers_case() == v1::Layers::kRange) {
    const v1::LayerRange& range = layers->range();
    VS_RETURN_IF_ERROR(check(absl::StrCat(field, ".range.first"), range.first()));
    VS_RETURN_IF_ERROR(check(absl::StrCat(field, ".range.last"), range.last()));
    if (range.last() < range.first()) {
      return OutOfRange(absl::StrCat(field, ".range.last"), range.last(), range.first(),
                        last_layer);
    }
    for (int layer = range.first(); layer <= range.last(); ++layer) result.insert(layer);
  } else {
    const v1::LayerList& list = layers->list();
    const std::string path = absl::StrCat(field, ".list.layers");
    if (list.layers_size() == 0) return InvalidField(path, "must name at least one layer");
    for (int i = 0; i < list.layers_size(); ++i) {
      VS_RETURN_IF_ERROR(check(At(path, i), list.layers(i)));
      if (!result.insert(list.layers(i)).second) {
        return InvalidField(At(path, i), absl::StrCat("names layer ", list.layers(i), " twice"));
      }
    }
  }
  return std::vector<int>(result.begin(), result.end());
}

absl::StatusOr<engine::TokenSelection> TokensFromProto(absl::string_view field,
                                                       const v1::TokenSelection& tokens,
                                                       int64_t context,
                                                       engine::TokenKind otherwise) {
  if (tokens.positions_size() > context) {
    return InvalidField(absl::StrCat(field, ".positions"),
                        absl::StrCat("are ", tokens.positions_size(), ", allowed are at most the ",
                                     context, " of this model's context"),
                        "OUT_OF_RANGE");
  }
  engine::TokenSelection selection;
  selection.positions.assign(tokens.positions().begin(), tokens.positions().end());
  switch (tokens.kind()) {
    case v1::TOKEN_KIND_UNSPECIFIED:
      selection.kind = selection.positions.empty() ? otherwise : engine::TokenKind::kPositions;
      return selection;
    case v1::TOKEN_KIND_ALL:
      selection.kind = engine::TokenKind::kAll;
      break;
    case v1::TOKEN_KIND_PROMPT:
      selection.kind = engine::TokenKind::kPrompt;
      break;
    case v1::TOKEN_KIND_RESPONSE:
    case v1::TOKEN_KIND_GENERATED:
      selection.kind = engine::TokenKind::kResponse;
      break;
    case v1::TOKEN_KIND_LAST_PROMPT:
      selection.kind = engine::TokenKind::kLastPrompt;
      break;
    case v1::TOKEN_KIND_LAST:
      selection.kind = engine::TokenKind::kLast;
      break;
    case v1::TOKEN_KIND_FROM_LAST_PROMPT:
      selection.kind = engine::TokenKind::kFromLastPrompt;
      break;
    case v1::TOKEN_KIND_POSITIONS:
      selection.kind = engine::TokenKind::kPositions;
      return selection;
    default:
      return InvalidField(absl::StrCat(field, ".kind"), "must be a TOKEN_KIND_... of the contract");
  }
  if (!selection.positions.empty()) {
    return InvalidField(absl::StrCat(field, ".positions"), "go only with TOKEN_KIND_POSITIONS");
  }
  return selection;
}

namespace {

// A tap of some neurons reads only the layers that have one.
absl::Status ChooseNeurons(const std::string& field, const v1::Tap& proto,
                           const engine::ServedModel& model, engine::Tap& tap) {
  if (proto.neurons_size() == 0) return absl::OkStatus();
  if (tap.site != model::Site::kMlpNeurons) {
    return InvalidField(field, "may be chosen at MLP_NEURONS only");
  }
  std::map<int, std::set<int64_t>> by_layer;
  for (int i = 0; i < proto.neurons_size(); ++i) {
    const v1::NeuronId& neuron = proto.neurons(i);
    const std::string name = At(field, i);
    if (std::find(tap.layers.begin(), tap.layers.end(), neuron.layer()) == tap.layers.end()) {
      return InvalidField(
          absl::StrCat(name, ".layer"),
          absl::StrCat("is ", neuron.layer(), ", which the tap's layers do not hold"));
    }
    if (neuron.index() < 0 || neuron.index() >= model.architecture.intermediate) {
      return OutOfRange(absl::StrCat(name, ".index"), neuron.index(), 0,
                        static_cast<double>(model.architecture.intermediate - 1));
    }
    if (!by_layer[neuron.layer()].insert(neuron.index()).second) {
      return InvalidField(name, "is there twice");
    }
  }
  tap.layers.clear();
  for (const auto& [layer, columns] : by_layer) {
    tap.layers.push_back(layer);
    tap.columns.emplace_back(std::vector<int64_t>(columns.begin(), columns.end()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckNeuronId(absl::string_view field, const v1::NeuronId& neuron, int num_layers,
                           int64_t count) {
  if (neuron.layer() < 0 || neuron.layer() >= num_layers) {
    return OutOfRange(absl::StrCat(field, ".layer"), neuron.layer(), 0, num_layers - 1);
  }
  if (neuron.index() >= 0 && neuron.index() < count) return absl::OkStatus();
  return OutOfRange(absl::StrCat(field, ".index"), neuron.index(), 0,
                    static_cast<double>(count - 1));
}

absl::StatusOr<std::vector<engine::Tap>> TapsFromProto(
    const google::protobuf::RepeatedPtrField<v1::Tap>& taps, const engine::ServedModel& model) {
  std::vector<engine::Tap> result;
  for (int i = 0; i < taps.size(); ++i) {
    const std::string field = At("taps", i);
    const v1::Tap& proto = taps[i];
    engine::Tap tap;
    if (proto.dtype() != v1::DATA_TYPE_UNSPECIFIED) {
      VS_ASSIGN_OR_RETURN(tap.dtype,
                          DataTypeFromProto(absl::StrCat(field, ".dtype"), proto.dtype()));
      if (tap.dtype == DType::kInt32 || tap.dtype == DType::kInt64) {
        return InvalidField(absl::StrCat(field, ".dtype"),
                            "must be FLOAT32, FLOAT16, BFLOAT16 or FLOAT64");
      }
    }
    VS_ASSIGN_OR_RETURN(tap.site, SiteFromProto(absl::StrCat(field, ".site"), proto.site()));
    VS_ASSIGN_OR_RETURN(tap.layers, LayersFromProto(absl::StrCat(field, ".layers"),
                                                    proto.has_layers() ? &proto.layers() : nullptr,
                                                    {.site = tap.site,
                                                     .num_layers = model.architecture.num_layers,
                                                     .all_by_default = true}));
    VS_ASSIGN_OR_RETURN(tap.tokens,
                        TokensFromProto(absl::StrCat(field, ".tokens"), proto.tokens(),
                                        model.architecture.max_positions, engine::TokenKind::kAll));
    VS_ASSIGN_OR_RETURN(tap.reduction,
                        ReductionFromProto(absl::StrCat(field, ".reduction"), proto.reduction()));
    VS_RETURN_IF_ERROR(ChooseNeurons(absl::StrCat(field, ".neurons"), proto, model, tap));
    result.push_back(std::move(tap));
  }
  return result;
}

engine::Sampling SamplingFromProto(const v1::SamplingParams& proto, std::optional<int32_t> logprobs,
                                   int64_t room) {
  engine::Sampling sampling;
  sampling.max_tokens = proto.has_max_tokens()
                            ? proto.max_tokens()
                            : static_cast<int>(std::clamp<int64_t>(room, 1, kDefaultMaxTokens));
  if (proto.has_temperature()) sampling.temperature = proto.temperature();
  if (proto.has_top_p()) sampling.top_p = proto.top_p();
  sampling.top_k = proto.top_k();
  sampling.min_p = proto.min_p();
  if (proto.has_repetition_penalty()) sampling.repetition_penalty = proto.repetition_penalty();
  if (proto.has_seed()) {
    sampling.seed = proto.seed();
  } else {
    std::random_device random;
    sampling.seed = uint64_t{random()} << 32 | random();
  }
  sampling.stop.assign(proto.stop().begin(), proto.stop().end());
  const std::set<int32_t> stop_token_ids(proto.stop_token_ids().begin(),
                                         proto.stop_token_ids().end());
  sampling.stop_token_ids.assign(stop_token_ids.begin(), stop_token_ids.end());
  sampling.ignore_eos = proto.ignore_eos();
  if (logprobs) sampling.top_logprobs = *logprobs;
  return sampling;
}

uint64_t SeedOfCompletion(uint64_t seed, int index) {
  return index == 0 ? seed : SplitMix64(seed, static_cast<uint64_t>(index) - 1);
}

}  // namespace valuescope::services
