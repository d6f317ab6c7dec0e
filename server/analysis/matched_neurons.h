// Random sets of neurons like given ones, against which an effect of those is held: as many in each
// block, of about the same |w| (what a neuron can write) and mean |a| (how strongly it speaks), so
// that a set whose neurons are merely large has no more effect than they.
//
// Within a block, log |w| and log mean |a| are measured in standard deviations from their means
// over the block's neurons, and neurons are as far apart as they are in the plane of the two. A set
// is drawn in the order of the given neurons: in the place of each comes one of the kFewest nearest
// others of its block that are not yet drawn, all with the same probability. The nearest and not
// all within some distance, because towards the ends, where the neurons of interest are, most
// within a distance are smaller ones. A set of few neurons would be one of few sets: then so many
// of the nearest may come that there are about kFewestSets, as long as they are no farther than
// kAlike. A given neuron counts as unmatched where one of the kFewest is farther: too few like it
// were left. Given neurons are not drawn, unless their block has fewer others than given ones.
//
// Matching on nearness within a caliper is that of observational studies (Rubin, 1973; Austin,
// 2011, takes .2 standard deviations of one measure, here are two).
#ifndef VALUESCOPE_ANALYSIS_MATCHED_NEURONS_H_
#define VALUESCOPE_ANALYSIS_MATCHED_NEURONS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace valuescope::analysis {

inline constexpr float kAlike = .25f;  // standard deviations
inline constexpr int64_t kFewest = 10;
inline constexpr int64_t kFewestSets = 100;

// Of all neurons of a block, [intermediate] each, finite and not negative. One that is 0 counts as
// the smallest of the block that is not.
struct NeuronTraits {
  std::span<const float> norms;       // |w_i|
  std::span<const float> magnitudes;  // mean |a_i|
};

struct PlacedNeuron {
  int32_t block = 0;  // index of its traits
  int32_t index = 0;  // within the block

  bool operator==(const PlacedNeuron&) const = default;
};

// Which draw it is: equal ones of equal neurons give equal sets.
struct DrawSeed {
  uint64_t seed = 0;
  uint64_t draw = 0;
};

struct MatchedSet {
  std::vector<PlacedNeuron> neurons;  // in the order of the given ones, each of its block; distinct
  int64_t num_unmatched = 0;
};

// The neurons of some blocks, made ready once for many draws. Thread-safe.
class NeuronMatching {
 public:
  // INVALID_ARGUMENT: norms and magnitudes of different lengths, numbers that are negative or not
  // finite.
  static absl::StatusOr<NeuronMatching> Of(std::span<const NeuronTraits> blocks);

  // `given` are distinct neurons of the blocks.
  MatchedSet Draw(std::span<const PlacedNeuron> given, const DrawSeed& seed) const;

 private:
  struct Block {
    // [intermediate], in standard deviations from the mean.
    std::vector<float> norms, magnitudes;
    // Neurons by magnitude, ascending, and the place of each among them.
    std::vector<int32_t> ordered, places;
  };
  class Pool;

  std::vector<Block> blocks_;
};

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_MATCHED_NEURONS_H_
