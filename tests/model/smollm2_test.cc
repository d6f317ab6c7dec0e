// SmolLM2-135M-Instruct against transformers: greedy tokens, log-probabilities and activations
// (tests/golden/smollm2/served.json).
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/model/forward_harness.h"

namespace valuescope::model {
namespace {

using nlohmann::json;

class SmolLm2 : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const std::string folder = std::string(VALUESCOPE_CACHE_DIR) + "/models/SmolLM2-135M-Instruct";
    ASSERT_TRUE(std::filesystem::exists(folder)) << "run docker/setup";
    auto loaded = Transformer::Load(folder, {});
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    model_ = *std::move(loaded);
    std::ifstream(std::string(VALUESCOPE_SOURCE_DIR) + "/tests/golden/smollm2/served.json") >>
        golden_;
  }
  static void TearDownTestSuite() { model_.reset(); }

  static inline std::unique_ptr<Transformer> model_;
  static inline json golden_;
};

TEST_F(SmolLm2, GreedyTokensAndLogProbabilitiesEqualTransformers) {
  for (const json& example : golden_["cases"]) {
    const auto prompt = example["prompt_ids"].get<std::vector<int64_t>>();
    const auto expected = example["greedy_ids"].get<std::vector<int64_t>>();
    ForwardHarness harness(*model_, {prompt});
    at::Tensor last = harness.RunWhole(0)[-1];
    for (size_t i = 0; i < expected.size(); ++i) {
      const int64_t token = last.argmax().item<int64_t>();
      EXPECT_EQ(token, expected[i]) << "token " << i;
      const double logprob = at::log_softmax(last.to(at::kDouble), -1)[expected[i]].item<double>();
      EXPECT_NEAR(logprob, example["greedy_logprobs"][i].get<double>(), 1e-4);
      harness.sequences()[0].push_back(expected[i]);
      last = harness.Run({{0, static_cast<int64_t>(prompt.size() + i), 1}})[0];
    }
  }
}

TEST_F(SmolLm2, MeansOverResponseTokensEqualTransformers) {
  const json& example = golden_["cases"][0];
  auto ids = example["prompt_ids"].get<std::vector<int64_t>>();
  const int64_t prompt_size = static_cast<int64_t>(ids.size());
  const auto response = example["greedy_ids"].get<std::vector<int64_t>>();
  ids.insert(ids.end(), response.begin(), response.end());
  ForwardHarness harness(*model_, {ids});
  const auto layers = golden_["capture_layers"].get<std::vector<int>>();
  std::map<std::pair<Site, int>, at::Tensor> sums;
  for (const int layer : layers) {
    for (const Site site : {Site::kResidualPost, Site::kMlpNeurons}) {
      const Architecture& a = model_->architecture();
      at::Tensor sum = at::zeros({1, WidthOf(site, a)}, at::kDouble);
      harness.program()[WireIndex({site, layer}, a)].taps.push_back(
          {.operation = TapOperation::kSum,
           .tokens = at::arange(prompt_size, static_cast<int64_t>(ids.size()), at::kLong),
           .rows = at::zeros({static_cast<int64_t>(response.size())}, at::kLong),
           .destination = sum});
      sums[{site, layer}] = sum;
    }
  }
  harness.RunWhole(0);
  for (size_t i = 0; i < layers.size(); ++i) {
    for (const auto& [site, name] : {std::pair(Site::kResidualPost, "residual_post_mean"),
                                     std::pair(Site::kMlpNeurons, "mlp_neurons_mean")}) {
      const at::Tensor expected =
          at::tensor(example[name][i].get<std::vector<double>>(), at::kDouble);
      const at::Tensor mean = sums[{site, layers[i]}][0] / static_cast<double>(response.size());
      EXPECT_LT(RelativeError(mean, expected), 1e-5) << name << " of layer " << layers[i];
    }
  }
}

TEST_F(SmolLm2, SteeringAtABlockEqualsTransformersWithAHook) {
  const json& steering = golden_["steering"];
  const Architecture& a = model_->architecture();
  at::Tensor rows = at::zeros({2, a.hidden});
  rows[1] = steering["coefficient"].get<double>() *
            at::tensor(steering["vector"].get<std::vector<double>>(), at::kDouble).to(at::kFloat);
  for (const json& example : steering["cases"]) {
    const auto prompt = example["prompt_ids"].get<std::vector<int64_t>>();
    const auto expected = example["greedy_ids"].get<std::vector<int64_t>>();
    ForwardHarness harness(*model_, {prompt});
    harness.program()[WireIndex({Site::kResidualPost, steering["layer"].get<int>()}, a)].stages = {
        AddStage{.active = EveryRowActive(2), .rows = rows}};
    std::vector<int64_t> table_rows(prompt.size());
    table_rows.back() = 1;
    at::Tensor last = harness.Run({{0, 0, static_cast<int64_t>(prompt.size())}}, table_rows)[-1];
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(last.argmax().item<int64_t>(), expected[i]) << "token " << i;
      harness.sequences()[0].push_back(expected[i]);
      last = harness.Run({{0, static_cast<int64_t>(prompt.size() + i), 1}}, {1})[0];
    }
  }
}

TEST_F(SmolLm2, ChunksAndCompanyChangeNoBit) {
  std::vector<std::vector<int64_t>> sequences;
  for (const json& example : golden_["cases"]) {
    sequences.push_back(example["prompt_ids"].get<std::vector<int64_t>>());
  }
  std::vector<at::Tensor> alone;
  for (size_t i = 0; i < sequences.size(); ++i) {
    ForwardHarness harness(*model_, {sequences[i]});
    alone.push_back(harness.RunWhole(0)[-1]);
  }
  // All side by side in chunks of seven tokens, so that chunks of different sequences and sizes
  // meet.
  ForwardHarness together(*model_, sequences);
  std::vector<at::Tensor> last(sequences.size());
  for (int64_t first = 0;; first += 7) {
    std::vector<Piece> pieces;
    for (size_t i = 0; i < sequences.size(); ++i) {
      const int64_t left = static_cast<int64_t>(sequences[i].size()) - first;
      if (left > 0) pieces.push_back({static_cast<int>(i), first, std::min<int64_t>(7, left)});
    }
    if (pieces.empty()) break;
    const at::Tensor logits = together.Run(pieces);
    int64_t end = 0;
    for (const Piece& piece : pieces) {
      end += piece.count;
      last[piece.sequence] = logits[end - 1];
    }
  }
  for (size_t i = 0; i < sequences.size(); ++i)
    EXPECT_TRUE(last[i].equal(alone[i])) << "sequence " << i;
}

}  // namespace
}  // namespace valuescope::model
