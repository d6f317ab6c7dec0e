#include "kinds/sweep_grid.h"

#include <algorithm>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "analysis/random_direction.h"
#include "base/check.h"
#include "base/number_bytes.h"
#include "kinds/generated_responses.h"

namespace valuescope::kinds {

SweepGrid::SweepGrid(const SavedSweep& sweep, int64_t width) : sweep_(sweep), width_(width) {
  for (int subject = 0; subject < sweep.subjects_size(); ++subject) AddSubject(subject);
}

void SweepGrid::AddSubject(int subject) {
  const int variants = std::max(1, sweep_.subjects(subject).neurons_size());
  const int steps = sweep_.layers_together() ? 1 : sweep_.layers_size();
  const int num_layers = sweep_.layers_together() ? sweep_.layers_size() : 1;
  for (int random = -1; random < sweep_.num_random(); ++random) {
    for (int variant = 0; variant < variants; ++variant) {
      for (int layer = 0; layer < steps; ++layer) {
        Place place{
            .subject = subject, .variant = variant, .layer = layer, .num_layers = num_layers};
        if (random >= 0) place.random = random;
        if (IsVector(place) || HasNeurons(place)) AddValues(place);
      }
    }
  }
}

void SweepGrid::AddValues(Place place) {
  for (place.scope = 0; place.scope < sweep_.scopes_size(); ++place.scope) {
    for (const float value : IsVector(place) ? sweep_.coefficients() : sweep_.factors()) {
      place.value = value;
      places_.push_back(place);
    }
  }
}

bool SweepGrid::HasNeurons(const Place& place) const {
  const auto& of_layers = subject(place).neurons(place.variant).layers();
  return std::any_of(of_layers.begin(), of_layers.end(), [&](const SavedLayerNeurons& of) {
    return of.layer() >= LayerOf(place, 0) && of.layer() <= LayerOf(place, place.num_layers - 1);
  });
}

std::string SweepGrid::NameOf(const Place& place) const {
  std::string name = subject(place).name();
  if (place.random) absl::StrAppend(&name, "~random", *place.random);
  if (!IsVector(place)) {
    const SavedNeurons& neurons = subject(place).neurons(place.variant);
    if (neurons.has_top_percent()) {
      absl::StrAppend(&name, absl::StrFormat("[k=%.17g,angle=%.17g]", neurons.top_percent(),
                                             neurons.max_angle()));
    }
  }
  absl::StrAppend(&name, absl::StrFormat("*%.9g@", place.value));
  absl::StrAppend(&name, sweep_.layers_together() ? "all" : absl::StrCat(LayerOf(place, 0)));
  if (sweep_.scopes_size() > 1) absl::StrAppend(&name, "/scope", place.scope);
  return name;
}

v1::SweepPoint SweepGrid::PointAt(int64_t number) const {
  const Place& place = places_[static_cast<size_t>(number)];
  v1::SweepPoint point;
  point.set_name(NameOf(place));
  point.set_subject(subject(place).name());
  if (place.random) point.set_random(*place.random);
  point.set_scope(place.scope);
  if (IsVector(place)) {
    point.set_coefficient(place.value);
    for (int i = 0; i < place.num_layers; ++i) point.add_layers(LayerOf(place, i));
    return point;
  }
  point.set_factor(place.value);
  const SavedNeurons& neurons = subject(place).neurons(place.variant);
  if (neurons.has_top_percent()) point.set_top_percent(neurons.top_percent());
  if (neurons.has_max_angle()) point.set_max_angle(neurons.max_angle());
  // A random set has as many in each layer.
  for (const SavedLayerNeurons& of : neurons.layers()) {
    if (of.layer() < LayerOf(place, 0) || of.layer() > LayerOf(place, place.num_layers - 1)) {
      continue;
    }
    point.add_layers(of.layer());
    point.set_num_neurons(point.num_neurons() + of.indices_size());
  }
  return point;
}

Interventions SweepGrid::InterventionsAt(int64_t number,
                                         const analysis::NeuronMatching* matching) const {
  const Place& place = places_[static_cast<size_t>(number)];
  Interventions interventions;
  v1::Intervention& change = *interventions.Add();
  *change.mutable_tokens() = sweep_.scopes(place.scope);
  if (!IsVector(place)) {
    v1::ScaleNeurons& scaled = *change.mutable_scale_neurons();
    scaled.set_factor(place.value);
    for (v1::NeuronId& neuron : NeuronsOf(place, matching)) {
      *scaled.add_neurons() = std::move(neuron);
    }
    return interventions;
  }
  for (int i = 0; i < place.num_layers; ++i) {
    change.mutable_layers()->mutable_list()->add_layers(LayerOf(place, i));
  }
  v1::AddVector& add = *change.mutable_add();
  add.set_coefficient(place.value);
  if (place.random) {
    *add.mutable_tensor() = RandomRows(place);
  } else {
    add.set_vector(subject(place).vector());
  }
  return interventions;
}

v1::Tensor SweepGrid::RandomRows(const Place& place) const {
  const uint64_t of_vector = SeedOf(sweep_.seed(), place.subject);
  const uint64_t of_direction = SeedOf(of_vector, *place.random);
  v1::Tensor rows;
  rows.set_dtype(v1::DATA_TYPE_FLOAT32);
  rows.add_shape(place.num_layers);
  rows.add_shape(width_);
  for (int i = 0; i < place.num_layers; ++i) {
    const std::vector<float> row = analysis::RandomDirection(
        width_, subject(place).norms(place.layer + i), SeedOf(of_direction, LayerOf(place, i)));
    absl::StrAppend(rows.mutable_data(), BytesOfNumbers(row));
  }
  return rows;
}

// --- Neurons -------------------------------------------------------------------------------------

std::vector<analysis::PlacedNeuron> SweepGrid::Placed(const SavedNeurons& neurons) const {
  std::vector<analysis::PlacedNeuron> placed;
  for (const SavedLayerNeurons& of : neurons.layers()) {
    const auto layer = std::find(sweep_.layers().begin(), sweep_.layers().end(), of.layer());
    for (const int32_t index : of.indices()) {
      placed.push_back(
          {.block = static_cast<int32_t>(layer - sweep_.layers().begin()), .index = index});
    }
  }
  return placed;
}

analysis::MatchedSet SweepGrid::Drawn(int subject, int variant, int random,
                                      const analysis::NeuronMatching& matching) const {
  return matching.Draw(Placed(sweep_.subjects(subject).neurons(variant)),
                       {.seed = SeedOf(SeedOf(sweep_.seed(), subject), variant),
                        .draw = static_cast<uint64_t>(random)});
}

std::vector<v1::NeuronId> SweepGrid::NeuronsOf(const Place& place,
                                               const analysis::NeuronMatching* matching) const {
  VS_CHECK(!place.random || matching != nullptr);
  const std::vector<analysis::PlacedNeuron> all =
      place.random ? Drawn(place.subject, place.variant, *place.random, *matching).neurons
                   : Placed(subject(place).neurons(place.variant));
  std::vector<v1::NeuronId> chosen;
  for (const analysis::PlacedNeuron& neuron : all) {
    if (neuron.block < place.layer || neuron.block >= place.layer + place.num_layers) continue;
    v1::NeuronId& id = chosen.emplace_back();
    id.set_layer(sweep_.layers(neuron.block));
    id.set_index(neuron.index);
  }
  return chosen;
}

int64_t SweepGrid::NumUnmatched(int subject, const analysis::NeuronMatching& matching) const {
  int64_t unmatched = 0;
  for (int variant = 0; variant < sweep_.subjects(subject).neurons_size(); ++variant) {
    unmatched += Drawn(subject, variant, /*random=*/0, matching).num_unmatched;
  }
  return unmatched;
}

}  // namespace valuescope::kinds
