// A model that answers at once, for tests of the engine around it.
#ifndef VALUESCOPE_TESTS_ENGINE_FAKE_TRANSFORMER_H_
#define VALUESCOPE_TESTS_ENGINE_FAKE_TRANSFORMER_H_

#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "engine/engine_loop.h"
#include "engine/engine_options.h"
#include "model/transformer.h"
#include "tests/model/model_folder.h"
#include "text/text_model.h"

namespace valuescope::engine {

inline constexpr int kVocabulary = 97;

inline int32_t After(int64_t token) {
  return static_cast<int32_t>((token * 5 + 7) % (kVocabulary - 3) + 3);
}

// Says After(t) behind every token t.
class FakeTransformer : public model::Transformer {
 public:
  // `before_step` runs on the engine's thread before every step, and may throw.
  explicit FakeTransformer(std::function<void(const model::StepBatch&)> before_step)
      : before_step_(std::move(before_step)) {
    architecture_.num_layers = 1;
    architecture_.hidden = 4;
    architecture_.intermediate = 4;
    architecture_.num_heads = architecture_.num_kv_heads = 1;
    architecture_.head_dim = 4;
    architecture_.vocabulary = kVocabulary;
    architecture_.max_positions = 128;
    architecture_.windows = {0};
  }

  const model::Architecture& architecture() const override { return architecture_; }
  DType dtype() const override { return DType::kFloat32; }
  c10::Device device() const override { return c10::kCPU; }
  const std::string& weights_digest() const override { return digest_; }
  absl::StatusOr<at::Tensor> WriteDirections(int) const override { return at::full({4, 4}, 0.0f); }
  absl::StatusOr<at::Tensor> UnembeddingRows(int64_t, int64_t count) const override {
    return at::full({count, 4}, 0.0f);
  }
  at::Tensor NeuronGradients(int, const at::Tensor& neurons, const at::Tensor&,
                             const model::GradientWeights&) const override {
    return at::full(neurons.sizes(), 0.0f);
  }
  at::Tensor NeuronBias(int) const override { return {}; }
  at::Tensor RunBlocks(int, int, at::Tensor x, const model::StepBatch&, model::KvCache&,
                       model::GradientTape*) const override {
    return x;
  }
  at::Tensor DownProjected(int, const at::Tensor& neurons) const override { return neurons; }
  at::Tensor DownColumns(int, const at::Tensor& neurons) const override {
    return at::full({neurons.numel(), 4}, 0.0f);
  }
  at::Tensor MlpOutput(int, const at::Tensor& projected, const at::Tensor&) const override {
    return projected;
  }
  using Transformer::Logits;
  at::Tensor Logits(const at::Tensor& x, model::GradientTape*) const override {
    return at::full({x.size(0), kVocabulary}, 0.0f);
  }
  at::Tensor UnscaledLogits(const at::Tensor& x) const override { return Logits(x); }
  int64_t GradientWeightBytes(const model::GradientPath&) const override { return 0; }
  absl::StatusOr<std::shared_ptr<const model::GradientWeights>> MakeGradientWeights(
      const model::GradientPath&, const Cancellation&) const override {
    return std::make_shared<const model::GradientWeights>();
  }

  at::Tensor Forward(const model::StepBatch& batch, model::KvCache&, const model::StepProgram&,
                     model::GradientTape*) const override {
    before_step_(batch);
    const int64_t count = batch.logit_tokens.numel();
    at::Tensor logits = at::full({count, kVocabulary}, -1.0f);  // [num_logits, vocabulary]
    const auto* rows = batch.logit_tokens.const_data_ptr<int64_t>();
    const auto* tokens = batch.token_ids.const_data_ptr<int64_t>();
    for (int64_t i = 0; i < count; ++i) {
      logits.mutable_data_ptr<float>()[i * kVocabulary + After(tokens[rows[i]])] = 1.0f;
    }
    return logits;
  }

 private:
  const std::function<void(const model::StepBatch&)> before_step_;
  model::Architecture architecture_;
  const std::string digest_ = "fake";
};

// Without a chat template, which the text library compiles on a thread that is not followed.
inline std::shared_ptr<const text::TextModel> TextWithoutTemplate() {
  const model::ModelFolder folder;
  folder.Write("tokenizer.json",
               model::ReadFile(std::string(VALUESCOPE_SOURCE_DIR) +
                               "/tests/golden/families/llama_tied/tokenizer.json"));
  folder.Write("tokenizer_config.json", "{}");
  folder.Write("config.json", "{}");
  auto text = text::TextModel::Load(folder.path());
  EXPECT_TRUE(text.ok()) << text.status();
  return *std::move(text);
}

// An engine around a FakeTransformer, or a failed expectation.
inline std::unique_ptr<Engine> StartFake(
    const EngineOptions& options,
    std::function<void(const model::StepBatch&)> before_step = [](const model::StepBatch&) {}) {
  auto engine = StartEngine(std::make_unique<FakeTransformer>(std::move(before_step)),
                            TextWithoutTemplate(), options);
  EXPECT_TRUE(engine.ok()) << engine.status();
  return engine.ok() ? *std::move(engine) : nullptr;
}

}  // namespace valuescope::engine

#endif  // VALUESCOPE_TESTS_ENGINE_FAKE_TRANSFORMER_H_
