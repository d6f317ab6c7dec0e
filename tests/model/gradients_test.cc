// Steps that are recorded for gradients, and the weights that these need: what they cost, whose
// memory it is, and that less of them changes no bit. The gradients themselves are held against
// transformers in families_test.cc.
#include "model/gradients.h"

#include <ATen/ATen.h>
#include <ATen/SequenceNumber.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/GradMode.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/device_types.h"
#include "model/kernels.h"
#include "tests/model/forward_harness.h"
#include "tests/model/model_folder.h"
#include "tests/model/some_stages.h"
#include "tests/model/tensor_bytes.h"

namespace valuescope::model {
namespace {

// While it lives a CPU has memory for so many more tensors.
class RoomForTensors : public c10::Allocator {
 public:
  explicit RoomForTensors(int count) : left_(count), real_(c10::GetCPUAllocator()) {
    c10::SetCPUAllocator(this);
  }
  ~RoomForTensors() override { c10::SetCPUAllocator(real_); }

  c10::DataPtr allocate(size_t bytes) override {
    if (left_-- <= 0) throw std::bad_alloc();
    return real_->allocate(bytes);
  }
  c10::DeleterFnPtr raw_deleter() const override { return real_->raw_deleter(); }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    real_->copy_data(to, from, bytes);
  }

 private:
  int left_;
  c10::Allocator* const real_;
};

class Gradients : public ::testing::TestWithParam<Golden> {
 protected:
  void SetUp() override { at::manual_seed(22); }

  static std::filesystem::path Folder() {
    return std::filesystem::path(VALUESCOPE_SOURCE_DIR) / "tests/golden/families" / GetParam().name;
  }

  static std::unique_ptr<Transformer> Load(const std::filesystem::path& folder = Folder(),
                                           MemoryLedger* memory = nullptr) {
    auto loaded = Transformer::Load(folder, {.dtype = GetParam().dtype, .memory = memory});
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return *std::move(loaded);
  }

  std::vector<int64_t> Ids(const Transformer& model, int64_t length) const {
    const at::Tensor ids = at::randint(model.architecture().vocabulary, {length}, at::kLong);
    return {ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + length};
  }

  // Every wire in the order of the forward pass, but for the logits.
  static std::vector<Wire> Wires(const Architecture& a) {
    std::vector<Wire> wires = {{Site::kEmbedding, 0}};
    for (int layer = 0; layer < a.num_layers; ++layer) {
      for (const Site site : {Site::kAttentionHeads, Site::kAttentionOutput, Site::kResidualMid,
                              Site::kMlpNeurons, Site::kMlpOutput, Site::kResidualPost}) {
        wires.push_back({site, layer});
      }
    }
    wires.push_back({Site::kFinalNorm, 0});
    return wires;
  }

  static std::vector<int> IndicesOf(const std::vector<Wire>& wires, const Architecture& a) {
    std::vector<int> indices;
    for (const Wire& wire : wires) indices.push_back(WireIndex(wire, a));
    return indices;
  }

  // d <wanted, logits of every token> / d each wire, recorded with `weights`.
  static std::vector<at::Tensor> GradientsBy(const std::vector<Wire>& wires,
                                             std::shared_ptr<const GradientWeights> weights,
                                             const at::Tensor& wanted, ForwardHarness& harness,
                                             const Architecture& a,
                                             const std::vector<Piece>& pieces) {
    GradientTape tape{.weights = std::move(weights), .wires = IndicesOf(wires, a)};
    const at::Tensor logits = harness.Run(pieces, {}, &tape);
    const c10::AutoGradMode gradients(true);
    return GradientsOf((logits * wanted).sum(), tape.values);
  }

  static bool Packs() { return CanPack(c10::kCPU, ScalarTypeOf(GetParam().dtype)); }
};

INSTANTIATE_TEST_SUITE_P(Golden, Gradients,
                         ::testing::Values(Golden{"llama_tied"}, Golden{"llama3_rope"},
                                           Golden{"qwen2"}, Golden{"qwen3"}, Golden{"gemma2"},
                                           Golden{"gemma2_bf16", DType::kBFloat16},
                                           Golden{"mistral_bf16", DType::kBFloat16},
                                           Golden{"mistral_fp16", DType::kFloat16}),
                         [](const auto& info) { return info.param.name; });

// Also where tokens are edited: every wire, and the logits.
TEST_P(Gradients, AStepWithATapeGivesTheBitsOfOneWithout) {
  const auto model = Load();
  const Architecture& a = model->architecture();
  const int64_t length = 23;
  const std::vector<int64_t> ids = Ids(*model, length);
  std::vector<int64_t> table_rows(length, 0);
  table_rows[3] = table_rows[20] = 1;
  table_rows[11] = 2;
  const std::vector<Wire> wires = Wires(a);
  const auto run = [&](GradientTape* tape) {
    ForwardHarness harness(*model, {ids});
    std::vector<at::Tensor> taps;  // of each wire
    at::manual_seed(1);            // the same edits
    const auto edit = [&](Wire wire, Stage stage) {
      harness.program()[WireIndex(wire, a)].stages.push_back(std::move(stage));
    };
    edit({Site::kResidualPost, 0}, SomeAddition(a.hidden));
    edit({Site::kMlpNeurons, 1}, SomeScaling(a.intermediate));
    edit({Site::kAttentionOutput, 1}, SomeProjection(a.hidden));
    for (const Wire& wire : wires) {
      taps.push_back(at::zeros({length, WidthOf(wire.site, a)}));
      harness.program()[WireIndex(wire, a)].taps = {{.operation = TapOperation::kCopy,
                                                     .tokens = at::arange(length, at::kLong),
                                                     .rows = at::arange(length, at::kLong),
                                                     .destination = taps.back()}};
    }
    taps.push_back(harness.Run({{0, 0, length}}, table_rows, tape).detach());
    return taps;
  };
  GradientTape tape{.weights = WeightsFor(*model), .wires = IndicesOf(wires, a)};
  const std::vector<at::Tensor> serving = run(nullptr), taped = run(&tape);
  for (size_t i = 0; i < wires.size(); ++i) {
    const auto name = NameOf(wires[i].site);
    EXPECT_TRUE(taped[i].equal(serving[i])) << name << " " << wires[i].layer;
    EXPECT_TRUE(tape.values[i].to(at::kFloat).equal(serving[i])) << name << " " << wires[i].layer;
    EXPECT_TRUE(tape.values[i].requires_grad()) << name << " " << wires[i].layer;
  }
  EXPECT_TRUE(taped.back().equal(serving.back()));
}

// Every node of a graph has a number of its own.
TEST_P(Gradients, AServingStepMakesNoGraph) {
  const auto model = Load();
  ForwardHarness harness(*model, {Ids(*model, 9)});
  GradientTape tape{.weights = WeightsFor(*model),
                    .wires = {WireIndex({Site::kEmbedding, 0}, model->architecture())}};
  const c10::AutoGradMode gradients(true);
  const uint64_t before = at::sequence_number::peek();
  EXPECT_FALSE(harness.Run({{0, 0, 9}}).requires_grad());
  EXPECT_EQ(at::sequence_number::peek(), before);
  EXPECT_TRUE(harness.Run({{0, 0, 9}}, {}, &tape).requires_grad());
  EXPECT_GT(at::sequence_number::peek(), before) << "it counts";
}

// From each wire on: with the weights behind it alone, recorded from it on alone.
TEST_P(Gradients, ThoseOfAPathEqualThoseOfTheWholeModelToTheBit) {
  const auto model = Load();
  const Architecture& a = model->architecture();
  const int64_t length = 9;
  ForwardHarness harness(*model, {Ids(*model, length)});
  const at::Tensor wanted = at::randn({length, a.vocabulary});
  const std::vector<Wire> wires = Wires(a);
  const auto all = GradientsBy(wires, WeightsFor(*model), wanted, harness, a, {{0, 0, length}});
  size_t weights_before = 5 * static_cast<size_t>(a.num_layers);
  for (size_t i = 0; i < wires.size(); ++i) {
    const auto weights = WeightsFor(*model, {.from = wires[i]});
    EXPECT_LE(weights->transposed.size(), weights_before);
    weights_before = weights->transposed.size();
    const auto one = GradientsBy({wires[i]}, weights, wanted, harness, a, {{0, 0, length}});
    EXPECT_TRUE(one[0].equal(all[i])) << NameOf(wires[i].site) << " " << wires[i].layer;
    EXPECT_TRUE(one[0].isfinite().all().item<bool>());
    EXPECT_FALSE(one[0].eq(0).all().item<bool>());
  }
  EXPECT_EQ(weights_before, 1u) << "the unembedding is behind the last wire";
}

TEST_P(Gradients, OfSequencesBesideEachOtherAndOfAChunkBehindACacheEqualThoseOfAWholeSequence) {
  const auto model = Load();
  const Architecture& a = model->architecture();
  const std::vector<int64_t> first = Ids(*model, 40), second = Ids(*model, 23);
  const at::Tensor wanted = at::randn({40, a.vocabulary});
  const std::vector<Wire> wires = Wires(a);
  const double tolerance = GetParam().dtype == DType::kFloat32   ? 1e-5
                           : GetParam().dtype == DType::kFloat16 ? 5e-3
                                                                 : 4e-2;
  ForwardHarness alone(*model, {first}), beside(*model, {second, first}), behind(*model, {first});
  // Only the last tokens' logits are wanted, but of what all tokens are made.
  at::Tensor last = wanted.clone();
  last.narrow(0, 0, 30).zero_();
  const auto weights = WeightsFor(*model);
  const auto whole = GradientsBy(wires, weights, last, alone, a, {{0, 0, 40}});
  const auto together = GradientsBy(wires, weights, at::cat({at::zeros({23, a.vocabulary}), last}),
                                    beside, a, {{0, 0, 23}, {1, 0, 40}});
  behind.Run({{0, 0, 25}});
  const auto chunk = GradientsBy(wires, weights, last.narrow(0, 25, 15), behind, a, {{0, 25, 15}});
  for (size_t i = 0; i < wires.size(); ++i) {
    const auto name = NameOf(wires[i].site);
    EXPECT_LT(RelativeError(together[i].narrow(0, 23, 40), whole[i]), tolerance) << name;
    EXPECT_TRUE(together[i].narrow(0, 0, 23).eq(0).all().item<bool>()) << name;
    EXPECT_LT(RelativeError(chunk[i], whole[i].narrow(0, 25, 15)), tolerance) << name;
  }
}

TEST_P(Gradients, APathHasTheProjectionsBetweenItsWiresAndNoMore) {
  const auto model = Load();
  std::vector<Wire> wires = Wires(model->architecture());
  wires.push_back({Site::kLogits, 0});
  for (size_t i = 0; i + 1 < wires.size(); ++i) {
    // What a norm alone leads to is multiplied by nothing.
    const Site to = wires[i + 1].site;
    const bool is_product = to == Site::kAttentionHeads || to == Site::kAttentionOutput ||
                            to == Site::kMlpNeurons || to == Site::kMlpOutput ||
                            to == Site::kLogits;
    const auto weights = WeightsFor(*model, {.from = wires[i], .to = wires[i + 1]});
    EXPECT_EQ(weights->transposed.size(), is_product ? 1 : 0)
        << NameOf(to) << " " << wires[i].layer;
  }
}

// --- The weights ---------------------------------------------------------------------------------

TEST_P(Gradients, TheWeightsTakeNoMoreBytesThanAreTold) {
  MemoryLedger ledger(1 << 30);
  const auto model = Load(Folder(), &ledger);
  const Architecture& a = model->architecture();
  int64_t told_before = INT64_MAX;
  for (const Wire& from : Wires(a)) {
    for (const Wire& to : {Wire{Site::kLogits, 0}, Wire{Site::kResidualPost, a.num_layers - 2}}) {
      const GradientPath path{.from = from, .to = to};
      const int64_t told = model->GradientWeightBytes(path);
      const auto bytes = std::make_shared<TensorBytes>();
      const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, bytes);
      auto weights = WeightsFor(*model, path);
      EXPECT_LE(bytes->net(), told);
      // Of small weights much is padding; our own packed ones are not the allocator's.
      EXPECT_TRUE(bytes->net() == 0 || bytes->net() >= told / 4) << bytes->net();
      EXPECT_EQ(ledger.used(), told);
      if (to.site == Site::kLogits) {
        EXPECT_LE(told, told_before);
        told_before = told;
      }
      weights.reset();
      EXPECT_EQ(bytes->net(), 0);
      EXPECT_EQ(ledger.used(), 0);
    }
  }
  EXPECT_EQ(model->GradientWeightBytes({}) > 0, Packs());
  // A tied unembedding is the embedding, which the model keeps.
  EXPECT_EQ(told_before > 0, Packs() && !a.tied_embeddings);
}

TEST_P(Gradients, TheWeightsAreGivenBackWithTheirLastCopyWhichAGraphIsToo) {
  if (!Packs()) GTEST_SKIP() << "nothing is made";
  MemoryLedger ledger(1 << 30);
  const auto model = Load(Folder(), &ledger);
  ForwardHarness harness(*model, {Ids(*model, 9)});
  const std::vector<int> wires = {WireIndex({Site::kEmbedding, 0}, model->architecture())};
  auto weights = WeightsFor(*model);
  const int64_t taken = ledger.used();
  EXPECT_GT(taken, 0);
  GradientTape tape{.weights = weights, .wires = wires};
  weights.reset();
  EXPECT_EQ(ledger.used(), taken);
  at::Tensor scalar = harness.Run({{0, 0, 9}}, {}, &tape).select(0, 8).select(0, 1);
  tape.weights.reset();
  EXPECT_EQ(ledger.used(), taken) << "of the graph";
  GradientsOf(scalar, tape.values);
  EXPECT_EQ(ledger.used(), 0);
}

TEST_P(Gradients, WhatTheLedgerDoesNotHaveIsRefusedAndNothingIsHeld) {
  if (!Packs()) GTEST_SKIP() << "nothing is taken";
  const int64_t needed = Load()->GradientWeightBytes({});
  const auto refusal = [&](int64_t capacity, int64_t others) {
    MemoryLedger ledger(capacity);
    const auto model = Load(Folder(), &ledger);
    const auto held = ledger.Take(others);
    const auto bytes = std::make_shared<TensorBytes>();
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, bytes);
    const absl::Status status = model->MakeGradientWeights({}, {}).status();
    EXPECT_EQ(bytes->net(), 0);
    EXPECT_EQ(ledger.used(), others);
    return status;
  };
  EXPECT_TRUE(refusal(needed, 0).ok());
  const absl::Status never = refusal(needed - 1, 0), later = refusal(needed, 1);
  EXPECT_EQ(never.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailsOf(never).reason, "GRADIENT_WEIGHTS_TOO_LARGE");
  EXPECT_FALSE(DetailsOf(never).retry_after.has_value());
  EXPECT_EQ(later.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailsOf(later).reason, "GRADIENT_MEMORY_FULL");
  EXPECT_TRUE(DetailsOf(later).retry_after.has_value());
}

// At the first tensor and in the middle.
TEST_P(Gradients, MemoryThatEndsIsAStatusAndNothingIsHeld) {
  if (!Packs()) GTEST_SKIP() << "nothing is made";
  MemoryLedger ledger(1 << 30);
  const auto model = Load(Folder(), &ledger);
  const auto bytes = std::make_shared<TensorBytes>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, bytes);
  for (const int tensors : {0, 1, 7}) {
    absl::Status status;
    {
      const RoomForTensors room(tensors);
      status = model->MakeGradientWeights({}, {}).status();
    }
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_EQ(DetailsOf(status).reason, "GRADIENT_WEIGHTS_TOO_LARGE");
    EXPECT_EQ(ledger.used(), 0);
    EXPECT_EQ(bytes->net(), 0);
  }
  EXPECT_TRUE(model->MakeGradientWeights({}, {}).ok());
}

// Before they are made, written over in place and cut short.
TEST_P(Gradients, AFileThatChangedIsAStatusAndNothingIsHeld) {
  const ModelFolder folder;
  folder.CopyFrom(Folder());
  MemoryLedger ledger(1 << 30);
  const auto model = Load(folder.path(), &ledger);
  const auto check = [&] {
    const auto weights = model->MakeGradientWeights({}, {});
    EXPECT_EQ(weights.ok(), !Packs()) << "what is plain is not read again";
    if (Packs()) {
      EXPECT_EQ(weights.status().code(), absl::StatusCode::kFailedPrecondition);
      EXPECT_EQ(DetailsOf(weights.status()).reason, "MODEL_FILES_CHANGED");
    }
    EXPECT_EQ(ledger.used(), 0);
  };
  std::filesystem::path file;  // the last one, where there are several
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    const std::filesystem::path& path = entry.path();
    const bool weights =
        path.extension() == ".safetensors" && path.filename() != "expected.safetensors";
    if (weights && path > file) file = path;
  }
  std::string bytes = ReadFile(file);
  bytes.back() ^= 1;
  std::fstream(file, std::ios::in | std::ios::out | std::ios::binary) << bytes;
  check();
  std::filesystem::resize_file(file, 100);
  check();
}

TEST_P(Gradients, ACancelledMakeIsAStatusAndNothingIsHeld) {
  MemoryLedger ledger(1 << 30);
  const auto model = Load(Folder(), &ledger);
  Cancellation cancellation;
  cancellation.Cancel();
  EXPECT_EQ(model->MakeGradientWeights({}, cancellation).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(ledger.used(), 0);
}

}  // namespace
}  // namespace valuescope::model
