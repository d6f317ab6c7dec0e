#include "services/named_resources.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::services {
namespace {

// Of what is read: the file, its tensors, their numbers, and these by row.
constexpr int64_t kCopiesWhileRead = 4;

// What `map` holds for `key`, which `make` makes where nothing is there yet.
template <typename Map, typename Make>
absl::StatusOr<const typename Map::mapped_type*> FindOrMake(Map& map,
                                                            const typename Map::key_type& key,
                                                            Make make) {
  auto found = map.find(key);
  if (found == map.end()) {
    VS_ASSIGN_OR_RETURN(typename Map::mapped_type made, make());
    found = map.emplace(key, std::move(made)).first;
  }
  return &found->second;
}

}  // namespace

void NamedResources::NeedRows(const NamedVector& vector, const std::vector<int>& layers) {
  needed_[vector].insert(layers.begin(), layers.end());
}

absl::StatusOr<const NeuronCounts*> NamedResources::NeedNeurons(const NamedNeurons& neurons,
                                                                absl::string_view field) {
  return FindOrMake(counts_, neurons, [&] {
    return resolver_.CountNeurons(tenant_, neurons.name, neurons.neuron_class, model_, field);
  });
}

int64_t NamedResources::bytes() const {
  int64_t kept = 0, reading = 0;
  for (const auto& [vector, layers] : needed_) {
    const int64_t row =
        model::WidthOf(vector.site, model_.architecture) * static_cast<int64_t>(sizeof(float));
    const int64_t rows = model::IsPerLayer(vector.site) ? model_.architecture.num_layers : 1;
    kept += row * static_cast<int64_t>(layers.size());
    reading = std::max(reading, kCopiesWhileRead * rows * row);
  }
  for (const auto& [neurons, counts] : counts_) {
    for (const auto& [layer, count] : counts.by_layer) {
      kept += count * static_cast<int64_t>(sizeof(int64_t));
    }
    reading = std::max(reading, kCopiesWhileRead * counts.bytes_to_read);
  }
  return kept + reading;
}

absl::StatusOr<std::span<const float>> NamedResources::Row(const NamedVector& vector, int layer,
                                                           absl::string_view field,
                                                           absl::string_view row_field) {
  const auto read = [&]() -> absl::StatusOr<ResolvedVector> {
    VS_ASSIGN_OR_RETURN(ResolvedVector resolved,
                        resolver_.Resolve(tenant_, vector.name, model_, vector.site, field));
    const std::set<int>& needed = needed_.at(vector);
    std::erase_if(resolved.rows, [&](const auto& row) { return !needed.contains(row.first); });
    used_[resolved.name] = resolved.digest;
    return resolved;
  };
  VS_ASSIGN_OR_RETURN(const ResolvedVector* resolved, FindOrMake(vectors_, vector, read));
  const auto row = resolved->rows.find(layer);
  if (row != resolved->rows.end()) return std::span<const float>(row->second);
  return InvalidField(row_field,
                      absl::StrCat("`", resolved->name, "` has no row for layer ", layer));
}

absl::StatusOr<const ResolvedNeurons*> NamedResources::Neurons(const NamedNeurons& neurons,
                                                               absl::string_view field) {
  return FindOrMake(neurons_, neurons, [&]() -> absl::StatusOr<ResolvedNeurons> {
    VS_ASSIGN_OR_RETURN(
        ResolvedNeurons resolved,
        resolver_.ResolveNeurons(tenant_, neurons.name, neurons.neuron_class, model_, field));
    used_[resolved.name] = resolved.digest;
    return resolved;
  });
}

}  // namespace valuescope::services
