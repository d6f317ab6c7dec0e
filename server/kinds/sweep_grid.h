// The points of a steering sweep and what each changes in the model. A grid goes, from the
// outermost to the innermost, over subjects, over the subject itself and the random ones in its
// place, over k and angles of a class, over layers, scopes and coefficients or factors. Neurons of
// a layer that has none are no point.
#ifndef VALUESCOPE_KINDS_SWEEP_GRID_H_
#define VALUESCOPE_KINDS_SWEEP_GRID_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "analysis/matched_neurons.h"
#include "google/protobuf/repeated_field.h"
#include "kinds/saved_work.pb.h"
#include "valuescope/v1/common.pb.h"
#include "valuescope/v1/sweeps.pb.h"

namespace valuescope::kinds {

using Interventions = google::protobuf::RepeatedPtrField<v1::Intervention>;

class SweepGrid {
 public:
  // `sweep` outlives it; `width` is that of the vectors.
  SweepGrid(const SavedSweep& sweep, int64_t width);

  int64_t size() const { return static_cast<int64_t>(places_.size()); }

  // Where the point stands; nothing is measured yet.
  v1::SweepPoint PointAt(int64_t number) const;
  // What is changed there. `matching` is of the sweep's layers; only random sets of neurons need
  // it.
  Interventions InterventionsAt(int64_t number, const analysis::NeuronMatching* matching) const;

  // Of the neurons of a subject, how many its first random set has others for, too few being alike.
  int64_t NumUnmatched(int subject, const analysis::NeuronMatching& matching) const;

 private:
  struct Place {
    int subject = 0;
    std::optional<int> random = {};
    int variant = 0;  // index of SavedSweepSubject.neurons
    int layer = 0;    // index of the sweep's layers, the first of those that are changed
    int num_layers = 1;
    int scope = 0;
    float value = 0;  // coefficient or factor
  };

  void AddSubject(int subject);
  void AddValues(Place place);
  bool HasNeurons(const Place& place) const;

  const SavedSweepSubject& subject(const Place& place) const {
    return sweep_.subjects(place.subject);
  }
  bool IsVector(const Place& place) const { return !subject(place).vector().empty(); }
  int LayerOf(const Place& place, int number) const { return sweep_.layers(place.layer + number); }
  std::string NameOf(const Place& place) const;
  // Of the place's own neurons, or of the set drawn in their place, those of its layers.
  std::vector<v1::NeuronId> NeuronsOf(const Place& place,
                                      const analysis::NeuronMatching* matching) const;
  // All neurons of a subject at some k and angle, blocks being indices of the sweep's layers.
  std::vector<analysis::PlacedNeuron> Placed(const SavedNeurons& neurons) const;
  analysis::MatchedSet Drawn(int subject, int variant, int random,
                             const analysis::NeuronMatching& matching) const;
  v1::Tensor RandomRows(const Place& place) const;

  const SavedSweep& sweep_;
  const int64_t width_;
  std::vector<Place> places_;
};

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_SWEEP_GRID_H_
