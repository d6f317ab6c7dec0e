// The parts of the forward pass put together are the forward pass.
#include "model/forward_parts.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "model/device_types.h"
#include "model/kernels.h"
#include "model/reference.h"
#include "tests/model/forward_harness.h"

namespace valuescope::model {
namespace {

class Parts : public ::testing::TestWithParam<Golden> {
 protected:
  void SetUp() override {
    at::manual_seed(3);
    auto loaded = Transformer::Load(
        std::string(VALUESCOPE_SOURCE_DIR) + "/tests/golden/families/" + GetParam().name,
        {.dtype = GetParam().dtype, .batch_invariant = true});
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    model_ = *std::move(loaded);
    const at::Tensor ids = at::randint(architecture().vocabulary, {kLength}, at::kLong);
    harness_ = std::make_unique<ForwardHarness>(
        *model_, std::vector<std::vector<int64_t>>{
                     {ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + kLength}});
  }

  const Architecture& architecture() const { return model_->architecture(); }
  int last() const { return architecture().num_layers - 1; }
  // Relative, of a product that goes another way.
  static double Tolerance() { return GetParam().dtype == DType::kFloat32 ? 1e-6 : 1e-2; }

  // What the next run leaves there.
  at::Tensor Kept(Site site, int layer) {
    const at::Tensor all = at::arange(kLength, at::kLong);
    const at::Tensor kept = at::zeros({kLength, WidthOf(site, architecture())}, at::kFloat);
    harness_->program()[WireIndex({site, layer}, architecture())].taps.push_back(
        {.operation = TapOperation::kCopy, .tokens = all, .rows = all, .destination = kept});
    return kept;
  }
  // A copy of the model's type.
  at::Tensor Own(const at::Tensor& x) const {
    return x.to(ScalarTypeOf(model_->dtype()), /*non_blocking=*/false, /*copy=*/true);
  }

  static constexpr int64_t kLength = 19;
  std::unique_ptr<Transformer> model_;
  std::unique_ptr<ForwardHarness> harness_;
};

INSTANTIATE_TEST_SUITE_P(Families, Parts,
                         ::testing::Values(Golden{"llama_tied"}, Golden{"llama3_rope"},
                                           Golden{"qwen2"}, Golden{"qwen3"}, Golden{"gemma2"},
                                           Golden{"gemma2_bf16", DType::kBFloat16},
                                           Golden{"mistral_bf16", DType::kBFloat16}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(Parts, BlocksBehindOneGiveTheBitsOfAWholePass) {
  const at::Tensor first = Kept(Site::kResidualPost, 0), end = Kept(Site::kResidualPost, last());
  const at::Tensor logits = harness_->RunWhole(0);
  auto cache = KvCache::Allocate(architecture(), 2, kBlockSize, model_->dtype(), c10::kCPU);
  ASSERT_TRUE(cache.ok());
  const at::Tensor positions = at::arange(kLength, at::kLong);
  const at::Tensor none = at::zeros({kLength}, at::kLong);
  const StepBatch batch{.token_ids = none,
                        .positions = positions,
                        .sequences = none,
                        .cache_slots = positions,
                        .block_tables = at::arange(2, at::kLong).view({1, 2}),
                        .table_rows = none,
                        .logit_tokens = at::zeros({0}, at::kLong),
                        .most_tokens = kLength};
  const at::Tensor x = model_->RunBlocks(1, last(), Own(first), batch, *cache);
  EXPECT_TRUE(at::equal(x.to(at::kFloat), end));
  EXPECT_TRUE(at::equal(model_->Logits(x), logits));
  EXPECT_TRUE(at::equal(model_->RunBlocks(1, 0, Own(first), batch, *cache), Own(first)));
}

TEST_P(Parts, AnMlpIsItsNeuronsProjectedAndNormed) {
  const at::Tensor neurons = Kept(Site::kMlpNeurons, 1), output = Kept(Site::kMlpOutput, 1);
  harness_->RunWhole(0);
  const at::Tensor projected = model_->DownProjected(1, Own(neurons));
  EXPECT_TRUE(at::equal(model_->MlpOutput(1, projected, {}).to(at::kFloat), output));
  const at::Tensor factor = reference::RmsFactor(projected, architecture().rms_norm_epsilon);
  EXPECT_LT(RelativeError(model_->MlpOutput(1, projected, factor), output), Tolerance());
}

TEST_P(Parts, ColumnsAreWhatNeuronsWrite) {
  const std::vector<int64_t> some = {0, 5, architecture().intermediate - 1};
  const at::Tensor neurons = at::tensor(some, at::kLong);
  const at::Tensor columns = model_->DownColumns(1, neurons);
  const at::Tensor one = at::ones({3, 1});
  EXPECT_EQ(columns.scalar_type(), at::kFloat);
  EXPECT_LT(RelativeError(model_->MlpOutput(1, columns, one),
                          model_->WriteDirections(1)->index_select(1, neurons).t()),
            Tolerance());
}

TEST_P(Parts, UnscaledLogitsAreLinear) {
  const at::Tensor end = Kept(Site::kResidualPost, last());
  const at::Tensor logits = harness_->RunWhole(0);
  const at::Tensor factor = reference::RmsFactor(end, architecture().rms_norm_epsilon);
  at::Tensor scaled = model_->UnscaledLogits(end) * factor;
  if (architecture().final_soft_cap > 0) SoftCap(scaled, architecture().final_soft_cap);
  EXPECT_LT(RelativeError(scaled, logits), Tolerance());
}

}  // namespace
}  // namespace valuescope::model
