#include "analysis/matched_neurons.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <utility>
#include <vector>

namespace valuescope::analysis {
namespace {

using testing::Each;
using testing::Not;

// Two measures of a block, log-normal and correlated like those of real blocks.
struct Traits {
  std::vector<float> norms, magnitudes;

  operator NeuronTraits() const { return {.norms = norms, .magnitudes = magnitudes}; }
};

Traits RandomTraits(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  Traits traits;
  for (size_t i = 0; i < count; ++i) {
    const float shared = normal(random);
    traits.norms.push_back(std::exp(.2f * (shared + normal(random))));
    traits.magnitudes.push_back(std::exp(shared + normal(random)));
  }
  return traits;
}

NeuronMatching MatchingOf(const std::vector<Traits>& blocks) {
  const std::vector<NeuronTraits> views(blocks.begin(), blocks.end());
  auto matching = NeuronMatching::Of(views);
  EXPECT_TRUE(matching.ok()) << matching.status();
  return *std::move(matching);
}

// The `count` largest magnitudes of each block, block after block.
std::vector<PlacedNeuron> Loudest(const std::vector<Traits>& blocks, size_t count) {
  std::vector<PlacedNeuron> given;
  for (size_t b = 0; b < blocks.size(); ++b) {
    std::vector<int32_t> order(blocks[b].magnitudes.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int32_t one, int32_t other) {
      return blocks[b].magnitudes[static_cast<size_t>(one)] >
             blocks[b].magnitudes[static_cast<size_t>(other)];
    });
    for (size_t i = 0; i < count; ++i) {
      given.push_back({.block = static_cast<int32_t>(b), .index = order[i]});
    }
  }
  return given;
}

using Keys = std::set<std::pair<int32_t, int32_t>>;

Keys KeysOf(const std::vector<PlacedNeuron>& neurons) {
  Keys keys;
  for (const PlacedNeuron& neuron : neurons) keys.emplace(neuron.block, neuron.index);
  return keys;
}

std::map<int32_t, int> CountsOf(const std::vector<PlacedNeuron>& neurons) {
  std::map<int32_t, int> counts;
  for (const PlacedNeuron& neuron : neurons) ++counts[neuron.block];
  return counts;
}

double MeanLog(const std::vector<Traits>& blocks, const std::vector<PlacedNeuron>& neurons,
               std::vector<float> Traits::*trait) {
  double sum = 0;
  for (const PlacedNeuron& neuron : neurons) {
    sum += std::log(
        (blocks[static_cast<size_t>(neuron.block)].*trait)[static_cast<size_t>(neuron.index)]);
  }
  return sum / static_cast<double>(neurons.size());
}

TEST(NeuronMatching, DrawsOthersOfTheSameBlocksEachOnce) {
  const std::vector<Traits> blocks = {RandomTraits(300, 1), RandomTraits(200, 2)};
  const NeuronMatching matching = MatchingOf(blocks);
  std::vector<PlacedNeuron> given = Loudest(blocks, 20);
  given.resize(33);  // 20 of one block, 13 of the other
  const Keys ranked = KeysOf(given);
  for (uint64_t draw = 0; draw < 50; ++draw) {
    const MatchedSet set = matching.Draw(given, {.seed = 7, .draw = draw});
    ASSERT_EQ(set.neurons.size(), given.size());
    EXPECT_EQ(CountsOf(set.neurons), CountsOf(given));
    EXPECT_EQ(KeysOf(set.neurons).size(), given.size()) << "none twice";
    for (size_t i = 0; i < given.size(); ++i) {
      EXPECT_EQ(set.neurons[i].block, given[i].block);
      EXPECT_FALSE(ranked.contains({set.neurons[i].block, set.neurons[i].index}));
    }
  }
}

// Loud neurons have larger norms too. A set drawn from all others would be .9 lower in mean log |a|
// and .2 in log |w|.
TEST(NeuronMatching, SetsAreAsLoudAndAsLongAsTheGivenNeurons) {
  const std::vector<Traits> blocks = {RandomTraits(2000, 3), RandomTraits(2000, 4)};
  const NeuronMatching matching = MatchingOf(blocks);
  std::vector<PlacedNeuron> given;
  const std::vector<PlacedNeuron> loud = Loudest(blocks, 200);
  for (size_t i = 3; i < loud.size(); i += 6) given.push_back(loud[i]);
  double magnitudes = 0, norms = 0;
  constexpr int kDraws = 40;
  for (uint64_t draw = 0; draw < kDraws; ++draw) {
    const auto set = matching.Draw(given, {.seed = 1, .draw = draw}).neurons;
    magnitudes += MeanLog(blocks, set, &Traits::magnitudes) / kDraws;
    norms += MeanLog(blocks, set, &Traits::norms) / kDraws;
  }
  // A tenth of a standard deviation, in log units.
  EXPECT_NEAR(magnitudes, MeanLog(blocks, given, &Traits::magnitudes), .14);
  EXPECT_NEAR(norms, MeanLog(blocks, given, &Traits::norms), .03);
}

TEST(NeuronMatching, AMatchedNeuronIsWithinTheCaliperAndOthersAreCounted) {
  // In standard deviations: 30 alike, and one that stands alone.
  Traits traits;
  for (int i = 0; i < 30; ++i) {
    traits.norms.push_back(1);
    traits.magnitudes.push_back(1 + .001f * static_cast<float>(i));
  }
  traits.norms.push_back(50);
  traits.magnitudes.push_back(50);
  const NeuronMatching matching = MatchingOf({traits});
  const std::vector<PlacedNeuron> common = {{.block = 0, .index = 3}};
  const std::vector<PlacedNeuron> alone = {{.block = 0, .index = 30}};
  const std::vector<PlacedNeuron> both = {common[0], alone[0]};
  for (uint64_t draw = 0; draw < 20; ++draw) {
    EXPECT_EQ(matching.Draw(common, {.seed = 1, .draw = draw}).num_unmatched, 0);
    EXPECT_EQ(matching.Draw(alone, {.seed = 1, .draw = draw}).num_unmatched, 1);
    EXPECT_EQ(matching.Draw(both, {.seed = 1, .draw = draw}).num_unmatched, 1);
    // The nearest ones, which are the loudest of the rest.
    EXPECT_GE(matching.Draw(alone, {.seed = 1, .draw = draw}).neurons[0].index, 30 - kFewest);
  }
}

TEST(NeuronMatching, DrawsEveryNeuronThatIsAlikeWithTheSameProbability) {
  const Traits traits = {.norms = std::vector<float>(21, 2),
                         .magnitudes = std::vector<float>(21, 3)};
  const NeuronMatching matching = MatchingOf({traits});
  const std::vector<PlacedNeuron> given = {{.block = 0, .index = 5}};
  std::vector<int> counts(21, 0);
  constexpr int kDraws = 20'000;
  for (uint64_t draw = 0; draw < kDraws; ++draw) {
    ++counts[static_cast<size_t>(matching.Draw(given, {.seed = 9, .draw = draw}).neurons[0].index)];
  }
  EXPECT_EQ(counts[5], 0);
  counts.erase(counts.begin() + 5);
  // 1,000 each; five standard deviations of a count are 154.
  EXPECT_THAT(counts, Each(testing::AllOf(testing::Gt(846), testing::Lt(1154))));
}

TEST(NeuronMatching, TheSameSeedGivesTheSameSetAndAnotherOneAnother) {
  const std::vector<Traits> blocks = {RandomTraits(500, 5)};
  const NeuronMatching matching = MatchingOf(blocks);
  std::vector<PlacedNeuron> given = Loudest(blocks, 40);
  given.erase(given.begin(), given.begin() + 20);
  const auto draw = [&](uint64_t seed, uint64_t number) {
    return matching.Draw(given, {.seed = seed, .draw = number}).neurons;
  };
  EXPECT_EQ(draw(1, 2), MatchingOf(blocks).Draw(given, {.seed = 1, .draw = 2}).neurons);
  EXPECT_THAT(draw(1, 3), Not(testing::ContainerEq(draw(1, 2))));
  EXPECT_THAT(draw(2, 2), Not(testing::ContainerEq(draw(1, 2))));
  EXPECT_THAT(draw(uint64_t{1} << 40, 2), Not(testing::ContainerEq(draw(0, 2))));
}

TEST(NeuronMatching, WhereABlockHasTooFewOthersTheGivenOnesAreDrawnToo) {
  const std::vector<Traits> blocks = {RandomTraits(30, 6)};
  const NeuronMatching matching = MatchingOf(blocks);
  const auto all = matching.Draw(Loudest(blocks, 30), {.seed = 1});
  EXPECT_EQ(KeysOf(all.neurons).size(), 30u);
  const auto half = matching.Draw(Loudest(blocks, 15), {.seed = 1});
  for (const auto& key : KeysOf(half.neurons)) {
    EXPECT_FALSE(KeysOf(Loudest(blocks, 15)).contains(key));
  }
}

TEST(NeuronMatching, NeuronsThatAreNeverActiveCountAsTheQuietestThatIs) {
  Traits traits = RandomTraits(100, 7);
  std::fill(traits.magnitudes.begin(), traits.magnitudes.begin() + 40, 0.0f);
  const NeuronMatching matching = MatchingOf({traits});
  const std::vector<PlacedNeuron> silent = {{.block = 0, .index = 0}};
  for (uint64_t draw = 0; draw < 20; ++draw) {
    const MatchedSet set = matching.Draw(silent, {.seed = 1, .draw = draw});
    EXPECT_LE(traits.magnitudes[static_cast<size_t>(set.neurons[0].index)],
              2 * *std::min_element(traits.magnitudes.begin() + 40, traits.magnitudes.end()));
  }
  const Traits dead = {.norms = std::vector<float>(20, 0), .magnitudes = std::vector<float>(20, 0)};
  EXPECT_EQ(MatchingOf({dead}).Draw(silent, {.seed = 1}).num_unmatched, 0);
}

TEST(NeuronMatching, NumbersThatAreNoneAreRefused) {
  const std::vector<float> good = {1, 2}, negative = {1, -1}, endless = {1, HUGE_VALF}, one = {1};
  const auto status_of = [](const NeuronTraits& traits) {
    return NeuronMatching::Of(std::span<const NeuronTraits>(&traits, 1)).status().code();
  };
  EXPECT_EQ(status_of({.norms = good, .magnitudes = good}), absl::StatusCode::kOk);
  for (const auto* bad : {&negative, &endless, &one}) {
    EXPECT_EQ(status_of({.norms = good, .magnitudes = *bad}), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(status_of({.norms = *bad, .magnitudes = good}), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace valuescope::analysis
