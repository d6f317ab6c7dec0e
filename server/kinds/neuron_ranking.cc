#include "kinds/neuron_ranking.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "analysis/matched_neurons.h"
#include "base/error.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "studies/contract_enums.h"
#include "studies/stored_neuron_set.h"

namespace valuescope::kinds {
namespace {

using analysis::PlacedNeuron;

constexpr int kMostSizes = 64;
constexpr int kMostRankings = 16;
// Stored columns in memory: their bytes, and the numbers.
constexpr int64_t kFormsOfColumns = 2;
// Of a neuron while it is ranked: as ranked, and while it is sorted.
constexpr int64_t kBytesOfRanked = 48;

std::optional<int32_t> BlockOf(int layer, std::span<const int> layers) {
  const auto place = std::lower_bound(layers.begin(), layers.end(), layer);
  if (place == layers.end() || *place != layer) return std::nullopt;
  return static_cast<int32_t>(place - layers.begin());
}

absl::StatusOr<std::vector<PlacedNeuron>> GivenOneByOne(const v1::NeuronRanking& asked,
                                                        std::span<const int> layers,
                                                        const model::Architecture& architecture) {
  std::vector<PlacedNeuron> ranking;
  std::set<std::pair<int, int>> seen;
  for (int i = 0; i < asked.neurons_size(); ++i) {
    const v1::NeuronId& neuron = asked.neurons(i);
    const std::string field = absl::StrCat("neurons[", i, "]");
    if (neuron.layer() < 0 || neuron.layer() >= architecture.num_layers) {
      return OutOfRange(field + ".layer", neuron.layer(), 0, architecture.num_layers - 1);
    }
    const std::optional<int32_t> block = BlockOf(neuron.layer(), layers);
    if (!block) {
      return InvalidField(field + ".layer",
                          absl::StrCat("is ", neuron.layer(), ", which is none of `layers`"));
    }
    if (neuron.index() < 0 || neuron.index() >= architecture.intermediate) {
      return OutOfRange(field + ".index", neuron.index(), 0,
                        static_cast<double>(architecture.intermediate - 1));
    }
    if (!seen.emplace(neuron.layer(), neuron.index()).second) {
      return InvalidField(field, "names a neuron twice");
    }
    ranking.push_back({.block = *block, .index = neuron.index()});
  }
  return ranking;
}

// Ties by layer, then index.
std::vector<PlacedNeuron> Ranked(std::span<const studies::NeuronColumns> columns,
                                 std::span<const int> layers, const v1::NeuronRanking& asked) {
  std::vector<std::pair<double, PlacedNeuron>> scored;
  for (const studies::NeuronColumns& column : columns) {
    const std::optional<int32_t> block = BlockOf(column.layer, layers);
    if (!block) continue;
    for (size_t i = 0; i < column.scores.size(); ++i) {
      const bool chosen = asked.class_() == v1::NEURON_CLASS_UNSPECIFIED ||
                          studies::ClassToProto(column.classes[i]) == asked.class_();
      if (!chosen) continue;
      const double score = asked.signed_scores() ? column.scores[i] : std::abs(column.scores[i]);
      scored.push_back({score, {.block = *block, .index = static_cast<int32_t>(i)}});
    }
  }
  std::stable_sort(scored.begin(), scored.end(),
                   [](const auto& one, const auto& other) { return one.first > other.first; });
  std::vector<PlacedNeuron> ranking;
  for (const auto& [score, neuron] : scored) ranking.push_back(neuron);
  return ranking;
}

absl::StatusOr<std::vector<PlacedNeuron>> OfStoredSet(
    const v1::NeuronRanking& asked, std::span<const int> layers, const engine::ServedModel& model,
    const rpc::CallContext& context, const Sources& sources, services::UsedResources& used) {
  constexpr char kField[] = "neuron_set";
  // That the set is one of this model, and has classes where one is asked for.
  VS_RETURN_IF_ERROR(
      sources.vectors
          ->CountNeurons(context.tenant, asked.neuron_set(), asked.class_(), model, kField)
          .status());
  VS_ASSIGN_OR_RETURN(const std::string id,
                      services::IdOfName(kField, "neuronSets", asked.neuron_set()));
  VS_ASSIGN_OR_RETURN(
      const store::Resource resource,
      sources.store->GetResource(context.tenant, store::ResourceKind::kNeuronSet, id));
  VS_RETURN_IF_ERROR(context.Hold(kFormsOfColumns * resource.blob_size +
                                  static_cast<int64_t>(layers.size()) *
                                      model.architecture.intermediate * kBytesOfRanked));
  VS_ASSIGN_OR_RETURN(const auto columns, studies::ReadColumns(*sources.blobs, resource));
  used[asked.neuron_set()] = resource.digest;
  std::vector<PlacedNeuron> ranking = Ranked(columns, layers, asked);
  if (ranking.empty()) return InvalidField(kField, "has no such neuron in these layers");
  return ranking;
}

absl::StatusOr<std::vector<PlacedNeuron>> NeuronsOf(
    const v1::NeuronRanking& asked, std::span<const int> layers, const engine::ServedModel& model,
    const rpc::CallContext& context, const Sources& sources, services::UsedResources& used) {
  if (!v1::NeuronClass_IsValid(asked.class_())) {
    return InvalidField("class", "must be a value of NeuronClass");
  }
  if (!asked.neuron_set().empty()) {
    if (asked.neurons().empty()) return OfStoredSet(asked, layers, model, context, sources, used);
    return InvalidField("neuron_set", "and neurons exclude each other");
  }
  if (asked.class_() != v1::NEURON_CLASS_UNSPECIFIED) {
    return InvalidField("class", "goes only with neuron_set");
  }
  if (asked.signed_scores()) return InvalidField("signed_scores", "goes only with neuron_set");
  if (asked.neurons().empty())
    return InvalidField("neurons", "or neuron_set or rankings must be given");
  return GivenOneByOne(asked, layers, model.architecture);
}

absl::StatusOr<std::vector<int32_t>> SizesOf(const v1::TestNeuronsRequest& request,
                                             int64_t num_ranked) {
  std::vector<int32_t> sizes(request.sizes().begin(), request.sizes().end());
  if (sizes.empty()) {
    for (int64_t size = 1; size < num_ranked; size *= 2) {
      sizes.push_back(static_cast<int32_t>(size));
    }
    sizes.push_back(static_cast<int32_t>(num_ranked));
  }
  if (sizes.size() > kMostSizes) {
    return InvalidField("sizes",
                        absl::StrCat("are ", sizes.size(), ", allowed are at most ", kMostSizes));
  }
  for (size_t i = 0; i < sizes.size(); ++i) {
    const std::string field = absl::StrCat("sizes[", i, "]");
    if (sizes[i] < 1 || sizes[i] > num_ranked) {
      return OutOfRange(field, sizes[i], 1, static_cast<double>(num_ranked));
    }
    if (i > 0 && sizes[i] <= sizes[i - 1])
      return InvalidField(field, "must be above the one before");
  }
  return sizes;
}

SavedRanking AsTested(absl::string_view label, std::span<const PlacedNeuron> neurons,
                      const std::vector<int32_t>& sizes) {
  SavedRanking saved;
  saved.set_label(std::string(label));
  saved.mutable_sizes()->Assign(sizes.begin(), sizes.end());
  for (const PlacedNeuron& neuron : neurons.first(static_cast<size_t>(sizes.back()))) {
    saved.add_ranked_blocks(neuron.block);
    saved.add_ranked_indices(neuron.index);
  }
  return saved;
}

v1::NeuronRanking TheOnlyOne(const v1::TestNeuronsRequest& request) {
  v1::NeuronRanking only;
  *only.mutable_neurons() = request.neurons();
  only.set_neuron_set(request.neuron_set());
  only.set_class_(request.class_());
  only.set_signed_scores(request.signed_scores());
  return only;
}

absl::Status CheckLabels(const v1::TestNeuronsRequest& request) {
  if (request.rankings_size() > kMostRankings) {
    return InvalidField("rankings", absl::StrCat("are ", request.rankings_size(),
                                                 ", allowed are at most ", kMostRankings));
  }
  const bool has_another = !request.neurons().empty() || !request.neuron_set().empty() ||
                           request.class_() != v1::NEURON_CLASS_UNSPECIFIED ||
                           request.signed_scores();
  if (has_another) {
    return InvalidField("rankings",
                        "and neurons, neuron_set, class and signed_scores exclude each other");
  }
  std::set<std::string> labels;
  for (int i = 0; i < request.rankings_size(); ++i) {
    const std::string& label = request.rankings(i).label();
    const std::string field = absl::StrCat("rankings[", i, "].label");
    if (label.empty()) return InvalidField(field, "must be given");
    VS_RETURN_IF_ERROR(CheckDisplayName(field, label));
    if (!labels.insert(label).second) return InvalidField(field, "is that of another one");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<SavedRanking>> RankingsOf(const v1::TestNeuronsRequest& request,
                                                     std::span<const int> layers,
                                                     const engine::ServedModel& model,
                                                     const rpc::CallContext& context,
                                                     const Sources& sources,
                                                     services::UsedResources& used) {
  const auto tested = [&](const v1::NeuronRanking& asked) -> absl::StatusOr<SavedRanking> {
    VS_ASSIGN_OR_RETURN(const std::vector<PlacedNeuron> neurons,
                        NeuronsOf(asked, layers, model, context, sources, used));
    VS_ASSIGN_OR_RETURN(const std::vector<int32_t> sizes,
                        SizesOf(request, static_cast<int64_t>(neurons.size())));
    return AsTested(asked.label(), neurons, sizes);
  };
  std::vector<SavedRanking> rankings;
  if (request.rankings().empty()) {
    VS_ASSIGN_OR_RETURN(rankings.emplace_back(), tested(TheOnlyOne(request)));
    return rankings;
  }
  VS_RETURN_IF_ERROR(CheckLabels(request));
  for (int i = 0; i < request.rankings_size(); ++i) {
    absl::StatusOr<SavedRanking> ranking = tested(request.rankings(i));
    const bool of_sizes = absl::StartsWith(DetailsOf(ranking.status()).field, "sizes");
    if (!ranking.ok() && of_sizes) return ranking.status();
    if (!ranking.ok()) return InField(absl::StrCat("rankings[", i, "]"), ranking.status());
    rankings.push_back(*std::move(ranking));
  }
  return rankings;
}

}  // namespace valuescope::kinds
