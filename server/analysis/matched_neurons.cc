#include "analysis/matched_neurons.h"

#include <algorithm>
#include <cmath>
#include <compare>
#include <numeric>
#include <random>

#include "analysis/inner_product.h"
#include "base/check.h"
#include "base/error.h"

namespace valuescope::analysis {
namespace {

// Logarithms in standard deviations from their mean; all 0 where they are equal.
std::vector<float> Standardised(std::span<const float> values) {
  float least = 0;
  for (const float value : values) {
    if (value > 0 && (least == 0 || value < least)) least = value;
  }
  std::vector<double> logs(values.size(), 0.0);
  for (size_t i = 0; i < values.size() && least > 0; ++i) {
    logs[i] = std::log(double{std::max(values[i], least)});
  }
  const auto count = static_cast<double>(values.size());
  const double mean = std::accumulate(logs.begin(), logs.end(), 0.0) / count;
  double squares = 0;
  for (const double log : logs) squares += (log - mean) * (log - mean);
  const double deviation = std::sqrt(squares / count);
  std::vector<float> result(values.size(), 0.0f);
  for (size_t i = 0; i < values.size() && deviation > 0; ++i) {
    result[i] = static_cast<float>((logs[i] - mean) / deviation);
  }
  return result;
}

bool AllUsable(std::span<const float> values) {
  return AllFinite(values) &&
         std::all_of(values.begin(), values.end(), [](float value) { return value >= 0; });
}

// Bits of the generator are the same on every machine, those of the library's distributions are
// not.
std::mt19937_64 GeneratorOf(const DrawSeed& seed) {
  std::seed_seq words{seed.seed & 0xffffffff, seed.seed >> 32, seed.draw & 0xffffffff,
                      seed.draw >> 32};
  return std::mt19937_64(words);
}

// 0 .. count - 1, all with the same probability.
size_t Below(size_t count, std::mt19937_64& random) {
  const uint64_t most = std::mt19937_64::max() - std::mt19937_64::max() % count;
  uint64_t bits = random();
  while (bits >= most) bits = random();
  return static_cast<size_t>(bits % count);
}

}  // namespace

// Of one block, the neurons that a set can still have.
class NeuronMatching::Pool {
 public:
  explicit Pool(const Block& block)
      : block_(&block), free_(block.norms.size(), true), left_(block.norms.size()) {}

  int64_t left() const { return static_cast<int64_t>(left_); }
  void Take(int32_t neuron) {
    free_[static_cast<size_t>(neuron)] = false;
    --left_;
  }

  struct Candidate {
    float square = 0;  // of its distance
    int32_t neuron = 0;

    auto operator<=>(const Candidate&) const = default;
  };
  // The `count` nearest to `neuron`, or as many as are left, the nearest first, ties by index.
  std::vector<Candidate> NearestTo(int32_t neuron, int64_t count) const {
    std::vector<Candidate> found;  // a heap, the farthest first
    Outward(neuron, [&](int32_t other) {
      const float along = Apart(block_->magnitudes, neuron, other);
      const bool full = static_cast<int64_t>(found.size()) == count;
      if (full && along * along > found.front().square) return false;
      if (!free_[static_cast<size_t>(other)]) return true;
      const float across = Apart(block_->norms, neuron, other);
      found.push_back({.square = along * along + across * across, .neuron = other});
      std::push_heap(found.begin(), found.end());
      if (full) {
        std::pop_heap(found.begin(), found.end());
        found.pop_back();
      }
      return true;
    });
    std::sort_heap(found.begin(), found.end());
    return found;
  }

 private:
  // Calls `look` with the block's neurons by how far their magnitude is from that of `neuron`,
  // first upwards and then downwards, each way until it says that it has seen enough.
  template <typename Look>
  void Outward(int32_t neuron, const Look& look) const {
    const std::vector<int32_t>& ordered = block_->ordered;
    const auto place = static_cast<size_t>(block_->places[static_cast<size_t>(neuron)]);
    size_t at = place;
    while (at < ordered.size() && look(ordered[at])) ++at;
    at = place;
    while (at > 0 && look(ordered[at - 1])) --at;
  }

  static float Apart(const std::vector<float>& trait, int32_t one, int32_t other) {
    return std::abs(trait[static_cast<size_t>(one)] - trait[static_cast<size_t>(other)]);
  }

  const Block* block_;
  std::vector<bool> free_;
  size_t left_;
};

absl::StatusOr<NeuronMatching> NeuronMatching::Of(std::span<const NeuronTraits> blocks) {
  NeuronMatching matching;
  for (const NeuronTraits& traits : blocks) {
    if (traits.norms.size() != traits.magnitudes.size()) {
      return InvalidField("magnitudes", "must be as many as norms");
    }
    if (!AllUsable(traits.norms) || !AllUsable(traits.magnitudes)) {
      return InvalidField("norms", "and magnitudes must be finite and not negative", "NOT_FINITE");
    }
    Block& block = matching.blocks_.emplace_back();
    block.norms = Standardised(traits.norms);
    block.magnitudes = Standardised(traits.magnitudes);
    block.ordered.resize(block.norms.size());
    std::iota(block.ordered.begin(), block.ordered.end(), 0);
    std::stable_sort(block.ordered.begin(), block.ordered.end(), [&](int32_t a, int32_t b) {
      return block.magnitudes[static_cast<size_t>(a)] < block.magnitudes[static_cast<size_t>(b)];
    });
    block.places.resize(block.ordered.size());
    for (size_t at = 0; at < block.ordered.size(); ++at) {
      block.places[static_cast<size_t>(block.ordered[at])] = static_cast<int32_t>(at);
    }
  }
  return matching;
}

MatchedSet NeuronMatching::Draw(std::span<const PlacedNeuron> given, const DrawSeed& seed) const {
  std::vector<int64_t> wanted(blocks_.size(), 0);
  for (const PlacedNeuron& neuron : given) ++wanted[static_cast<size_t>(neuron.block)];
  std::vector<Pool> pools;
  for (const Block& block : blocks_) pools.emplace_back(block);
  for (const PlacedNeuron& neuron : given) {
    const auto block = static_cast<size_t>(neuron.block);
    const auto size = static_cast<int64_t>(blocks_[block].norms.size());
    if (size - wanted[block] >= wanted[block]) pools[block].Take(neuron.index);
  }
  const auto for_many_sets = kFewestSets / std::max<int64_t>(1, static_cast<int64_t>(given.size()));
  std::mt19937_64 random = GeneratorOf(seed);
  MatchedSet set;
  for (const PlacedNeuron& neuron : given) {
    Pool& pool = pools[static_cast<size_t>(neuron.block)];
    VS_CHECK(pool.left() > 0);
    const auto candidates = pool.NearestTo(neuron.index, std::max(kFewest, for_many_sets));
    const int64_t alike =
        std::count_if(candidates.begin(), candidates.end(),
                      [](const Pool::Candidate& each) { return each.square <= kAlike * kAlike; });
    if (alike < kFewest) ++set.num_unmatched;
    const int64_t count =
        std::min(std::max(kFewest, alike), static_cast<int64_t>(candidates.size()));
    const int32_t drawn = candidates[Below(static_cast<size_t>(count), random)].neuron;
    pool.Take(drawn);
    set.neurons.push_back({.block = neuron.block, .index = drawn});
  }
  return set;
}

}  // namespace valuescope::analysis
