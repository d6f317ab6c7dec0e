// Every family against transformers (tests/golden/make_families.py): all sites of all blocks, alone
// and beside sequences of other lengths, in chunks and whole, and the greedy tokens.
#include <ATen/record_function.h>
#include <c10/core/GradMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "tests/model/forward_harness.h"
#include "tests/model/golden_values.h"

namespace valuescope::model {
namespace {

using nlohmann::json;

std::filesystem::path Families() {
  return std::filesystem::path(VALUESCOPE_SOURCE_DIR) / "tests/golden/families";
}

std::vector<std::string> FamilyNames() {
  std::vector<std::string> names;
  for (const auto& folder : std::filesystem::directory_iterator(Families())) {
    names.push_back(folder.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// Rounding of each type over a few blocks, relative to a tensor's norm.
double ToleranceOf(DType dtype) {
  switch (dtype) {
    case DType::kBFloat16:
      return 2e-2;
    case DType::kFloat16:
      return 2.5e-3;
    default:
      return 1e-5;
  }
}

class FamilyTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const std::filesystem::path folder = Families() / GetParam();
    const json description = json::parse(ReadFile(folder / "expected.json"));
    sequences_ = description["sequences"].get<std::vector<std::vector<int64_t>>>();
    kept_ = description["site_positions"].get<std::vector<std::vector<int64_t>>>();
    greedy_prompt_ = description["greedy_prompt"].get<int>();
    values_ = std::make_unique<GoldenValues>(folder / "expected.safetensors");
    for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
      if (description["dtype"] == std::string(NameOf(dtype))) dtype_ = dtype;
    }
    auto loaded = Transformer::Load(folder, {.dtype = dtype_, .threads = 0, .progress = {}});
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    model_ = *std::move(loaded);
  }

  // Every wire under the name that the golden file gives it.
  std::vector<std::pair<std::string, Wire>> Wires() const {
    std::vector<std::pair<std::string, Wire>> wires = {{"embedding", {Site::kEmbedding, 0}},
                                                       {"final_norm", {Site::kFinalNorm, 0}}};
    for (int layer = 0; layer < model_->architecture().num_layers; ++layer) {
      for (const Site site : {Site::kAttentionHeads, Site::kAttentionOutput, Site::kResidualMid,
                              Site::kMlpNeurons, Site::kMlpOutput, Site::kResidualPost}) {
        const std::string name = absl::AsciiStrToLower(std::string(NameOf(site)));
        wires.push_back({absl::StrCat(name, ".", layer), {site, layer}});
      }
    }
    return wires;
  }

  // The logits without any rounding of a half type: the same weights computed in float32.
  at::Tensor Exact(int sequence) const {
    const std::string exact = absl::StrCat(sequence, ".logits_float32");
    return values_->Get(values_->Has(exact) ? exact : absl::StrCat(sequence, ".logits"));
  }

  // Runs sequences in steps of at most `chunk` tokens a sequence, all wires tapped, and compares
  // everything that is expected of them.
  void ExpectEqual(const std::vector<int>& which, int64_t chunk) {
    std::vector<std::vector<int64_t>> sequences;
    int64_t longest = 0;
    for (const int k : which) {
      sequences.push_back(sequences_[k]);
      longest = std::max(longest, static_cast<int64_t>(sequences_[k].size()));
    }
    ForwardHarness harness(*model_, sequences);
    const Architecture& a = model_->architecture();
    const int64_t rows = longest * static_cast<int64_t>(which.size());
    std::map<std::string, at::Tensor> seen;
    for (const auto& [name, wire] : Wires()) {
      seen[name] = at::full({rows, WidthOf(wire.site, a)}, -1e30f);
    }
    at::Tensor logits = at::zeros({rows, a.vocabulary});
    for (int64_t first = 0; first < longest; first += chunk) {
      std::vector<Piece> pieces;
      std::vector<int64_t> places;
      for (size_t s = 0; s < which.size(); ++s) {
        const int64_t length = static_cast<int64_t>(sequences[s].size());
        if (first >= length) continue;
        pieces.push_back({static_cast<int>(s), first, std::min(chunk, length - first)});
        for (int64_t p = 0; p < pieces.back().count; ++p) {
          places.push_back(static_cast<int64_t>(s) * longest + first + p);
        }
      }
      const at::Tensor rows_of_step = at::tensor(places, at::kLong);
      for (const auto& [name, wire] : Wires()) {
        harness.program()[WireIndex(wire, a)].taps = {
            {.operation = TapOperation::kCopy,
             .tokens = at::arange(static_cast<int64_t>(places.size()), at::kLong),
             .rows = rows_of_step,
             .destination = seen[name]}};
      }
      logits.index_copy_(0, rows_of_step, harness.Run(pieces));
    }
    for (size_t s = 0; s < which.size(); ++s) {
      const std::string prefix = absl::StrCat(which[s], ".");
      const int64_t begin = static_cast<int64_t>(s) * longest;
      const at::Tensor own = logits.narrow(0, begin, static_cast<int64_t>(sequences[s].size()));
      EXPECT_LT(RelativeError(own, values_->Get(prefix + "logits")), ToleranceOf(dtype_));
      EXPECT_LT(RelativeError(own, Exact(which[s])), ToleranceOf(dtype_));
      const at::Tensor kept = at::tensor(kept_[which[s]], at::kLong) + begin;
      for (const auto& [name, value] : seen) {
        EXPECT_LT(RelativeError(value.index_select(0, kept), values_->Get(prefix + name)),
                  ToleranceOf(dtype_))
            << prefix << name;
      }
    }
  }

  std::vector<std::vector<int64_t>> sequences_;
  std::vector<std::vector<int64_t>> kept_;  // positions whose sites are expected
  int greedy_prompt_ = 0;
  DType dtype_ = DType::kFloat32;
  std::unique_ptr<GoldenValues> values_;
  std::unique_ptr<Transformer> model_;
};

INSTANTIATE_TEST_SUITE_P(Golden, FamilyTest, ::testing::ValuesIn(FamilyNames()),
                         [](const auto& info) { return info.param; });

TEST(Families, AreAllThere) {
  std::map<std::string, std::set<std::string>> families;  // by type
  for (const std::string& name : FamilyNames()) {
    const auto architecture = ReadArchitecture(Families() / name);
    ASSERT_TRUE(architecture.ok()) << name << architecture.status();
    const json expected = json::parse(ReadFile(Families() / name / "expected.json"));
    families[expected["dtype"].get<std::string>()].insert(architecture->family);
  }
  for (const char* dtype : {"float32", "bfloat16"}) {
    EXPECT_THAT(families[dtype],
                ::testing::UnorderedElementsAre("gemma2", "llama", "mistral", "qwen2", "qwen3"))
        << dtype;
  }
}

TEST_P(FamilyTest, EverySiteEqualsTransformersAlone) {
  for (int k = 0; k < static_cast<int>(sequences_.size()); ++k) ExpectEqual({k}, 1000);
}

TEST_P(FamilyTest, EverySiteEqualsTransformersBesideSequencesOfOtherLengths) {
  ExpectEqual({0, 1, 2, 3}, 1000);
  ExpectEqual({3, 1, 2, 3, 0}, 7);
}

TEST_P(FamilyTest, GreedyTokensEqualTransformers) {
  const std::vector<int64_t> expected = values_->Tokens("greedy");
  ASSERT_EQ(expected.size(), 64u);
  ForwardHarness harness(*model_, {sequences_[greedy_prompt_]});
  std::vector<int64_t>& ids = harness.sequences()[0];
  at::Tensor last = harness.RunWhole(0);
  std::vector<int64_t> greedy;
  for (size_t i = 0; i < expected.size(); ++i) {
    greedy.push_back(last[last.size(0) - 1].argmax().item<int64_t>());
    ids.push_back(greedy.back());
    last = harness.Run({{0, static_cast<int64_t>(ids.size()) - 1, 1}});
  }
  EXPECT_EQ(greedy, expected);
}

TEST_P(FamilyTest, CompanyAndChunksChangeNoBitInFloat32) {
  if (dtype_ != DType::kFloat32) GTEST_SKIP() << "promised for float32 on a CPU";
  const auto logits_of = [&](const std::vector<int>& which, int64_t chunk) {
    std::vector<std::vector<int64_t>> sequences;
    for (const int k : which) sequences.push_back(sequences_[k]);
    ForwardHarness harness(*model_, sequences);
    std::vector<at::Tensor> own;  // of the first
    const int64_t length = static_cast<int64_t>(sequences[0].size());
    for (int64_t first = 0; first < length; first += chunk) {
      std::vector<Piece> pieces;
      for (size_t s = 0; s < which.size(); ++s) {
        const int64_t left = static_cast<int64_t>(sequences[s].size()) - first;
        if (left > 0) pieces.push_back({static_cast<int>(s), first, std::min(chunk, left)});
      }
      own.push_back(harness.Run(pieces).narrow(0, 0, pieces[0].count));
    }
    return at::cat(own);
  };
  const at::Tensor alone = logits_of({3}, 1000);
  EXPECT_TRUE(logits_of({3, 0, 1, 2, 3}, 1000).equal(alone));
  EXPECT_TRUE(logits_of({3, 2}, 5).equal(alone));
  EXPECT_TRUE(logits_of({3}, 1).equal(alone));
}

// <v, the sum of residual_post.(layers - 2) over the last three positions> by every site below it.
TEST_P(FamilyTest, GradientsEqualTransformers) {
  if (dtype_ != DType::kFloat32) GTEST_SKIP() << "expected in float32 only";
  const Architecture& a = model_->architecture();
  const int target = a.num_layers - 2;
  // The first wire is the lowest.
  const auto gradients_of = [&](const std::vector<Wire>& wires, int held) {
    ForwardHarness harness(*model_, {sequences_[1]});
    const Wire of{Site::kResidualPost, target};
    GradientTape tape{.weights = WeightsFor(*model_, {.from = wires[0], .to = of}),
                      .wires = {WireIndex(of, a)},
                      .held_post_norm = held};
    for (const Wire& wire : wires) tape.wires.push_back(WireIndex(wire, a));
    const int64_t length = static_cast<int64_t>(sequences_[1].size());
    harness.Run({{0, 0, length}}, {}, &tape);
    const c10::AutoGradMode gradients(true);
    const at::Tensor scalar =
        at::mv(tape.values[0].narrow(0, length - 3, 3), values_->Get("grad.v")).sum();
    return GradientsOf(scalar, {tape.values.begin() + 1, tape.values.end()});
  };
  std::vector<Wire> wires;
  std::vector<std::string> names;
  for (int layer = 0; layer <= target; ++layer) {
    wires.push_back({Site::kMlpNeurons, layer});
    names.push_back(absl::StrCat("mlp_neurons.", layer));
    wires.push_back({Site::kResidualPost, layer});
    names.push_back(absl::StrCat("residual_post.", layer));
  }
  const auto found = gradients_of(wires, -1);
  for (size_t i = 0; i < wires.size(); ++i) {
    EXPECT_LT(RelativeError(found[i], values_->Get("grad." + names[i])), 2e-5) << names[i];
    if (wires[i].site != Site::kMlpNeurons) continue;
    const std::string held = "grad_norm_held." + names[i];
    ASSERT_EQ(values_->Has(held), a.post_norms);
    if (!a.post_norms) continue;
    EXPECT_LT(RelativeError(gradients_of({wires[i]}, wires[i].layer)[0], values_->Get(held)), 2e-5)
        << held;
  }
}

// --- What a step may do
// --------------------------------------------------------------------------- A GPU launches a
// kernel an operator and stalls whenever the host looks at a value. Both are counted here, where
// there is no GPU.

// Operators that only look at a tensor in another way, or make room for one.
bool LaunchesNothing(absl::string_view name) {
  static const auto* names = new std::set<absl::string_view>{
      "aten::alias",      "aten::as_strided",    "aten::empty",
      "aten::empty_like", "aten::empty_strided", "aten::expand",
      "aten::narrow",     "aten::permute",       "aten::reshape",
      "aten::resize_",    "aten::select",        "aten::slice",
      "aten::t",          "aten::transpose",     "aten::unsqueeze",
      "aten::view",       "aten::_unsafe_view",  "aten::_reshape_alias",
      "aten::linear",     "aten::matmul",        "aten::to",
      "aten::numpy_T",    "aten::detach"};
  return names->contains(name);
}

// What is one kernel on a GPU and, on tensors without values, made of others.
bool IsOneKernel(absl::string_view name) {
  return name == "aten::scaled_dot_product_attention" || name == "aten::_fused_rms_norm";
}

// Operators that an observer sees during its life: all, those that no other operator called, and
// those that a GPU would launch: the innermost.
class OperatorCount {
 public:
  OperatorCount() {
    current_ = this;
    handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(Started, Ended));
  }
  ~OperatorCount() {
    at::removeCallback(handle_);
    current_ = nullptr;
  }
  OperatorCount(const OperatorCount&) = delete;
  OperatorCount& operator=(const OperatorCount&) = delete;

  int outermost() const { return outermost_; }
  int launches() const { return launches_; }
  const std::multiset<std::string>& names() const { return names_; }

 private:
  static std::unique_ptr<at::ObserverContext> Started(const at::RecordFunction& function) {
    OperatorCount& count = *current_;
    count.names_.insert(function.name());
    if (count.open_.empty()) ++count.outermost_;
    count.open_.push_back(count.launches_);
    return nullptr;
  }
  static void Ended(const at::RecordFunction& function, at::ObserverContext*) {
    OperatorCount& count = *current_;
    const int before = count.open_.back();
    count.open_.pop_back();
    if (IsOneKernel(function.name())) count.launches_ = before;
    if (count.launches_ == before && !LaunchesNothing(function.name())) ++count.launches_;
  }

  static inline thread_local OperatorCount* current_ = nullptr;
  at::CallbackHandle handle_;
  std::multiset<std::string> names_;
  std::vector<int> open_;  // launches before each operator that runs
  int outermost_ = 0;
  int launches_ = 0;
};

// One decode step of three sequences on `device`, observed.
template <typename Check>
void ObserveDecodeStep(const Transformer& model, Check check) {
  const Architecture& a = model.architecture();
  const auto options = at::TensorOptions().device(model.device()).dtype(at::kLong);
  KvCache cache = *KvCache::Allocate(a, 6, 16, model.dtype(), model.device());
  const auto index = [&](std::vector<int64_t> values) {
    const at::Tensor host = at::tensor(values, at::kLong);
    return model.device() == c10::kMeta ? at::empty(host.sizes(), options) : host;
  };
  const StepBatch batch{.token_ids = index({3, 4, 5}),
                        .positions = index({0, 1, 2}),
                        .sequences = index({0, 1, 2}),
                        .cache_slots = index({0, 33, 66}),
                        .block_tables = index({0, 1, 2, 3, 4, 5}).view({3, 2}),
                        .table_rows = index({0, 1, 0}),
                        .logit_tokens = index({0, 1, 2}),
                        .most_tokens = 1};
  const StepProgram program(static_cast<size_t>(NumWires(a)));
  model.Forward(batch, cache, program);  // what happens only once has happened
  OperatorCount count;
  const at::Tensor logits = model.Forward(batch, cache, program);
  EXPECT_EQ(logits.sizes(), (std::vector<int64_t>{3, a.vocabulary}));
  check(count);
}

void ExpectNoLookAtValues(const OperatorCount& count) {
  for (const char* name : {"aten::item", "aten::_local_scalar_dense", "aten::nonzero",
                           "aten::is_nonzero", "aten::equal", "aten::masked_select"}) {
    EXPECT_FALSE(count.names().contains(name)) << name;
  }
}

// A block is two norms, four products, the rotation, attention, the gate and two additions: 11.
// Head norms are one more, post-norms two. A bias is an addition behind its product, and a product
// of few rows may be padded, by four operators.
TEST_P(FamilyTest, ADecodeStepLaunchesFewOperatorsAndLooksAtNoValue) {
  if (dtype_ != DType::kFloat32) GTEST_SKIP() << "the packed path is float32's";
  const Architecture& a = model_->architecture();
  const int biases = 4 * (a.qkv_bias + a.output_bias + 2 * a.mlp_bias);
  const int block = 11 + a.head_norms + 2 * a.post_norms + biases + 4 * 4;
  // Embedding, its scale, final norm, unembedding with its soft cap, selection and conversion.
  const int ends = 16;
  ObserveDecodeStep(*model_, [&](const OperatorCount& count) {
    ExpectNoLookAtValues(count);
    EXPECT_LE(count.outermost(), ends + block * a.num_layers);
    EXPECT_GE(count.outermost(), 11 * a.num_layers);  // it does observe
  });
}

// The path of CUDA, here on tensors that have no values to look at. Each launch costs a GPU a few
// microseconds, recorded or not. A block is two norms of two (the second multiplies the weight),
// four products, seven for the rotation and the cache, eleven around the fused attention, two for
// the gate, two additions: 30. Head norms are four for queries and four for keys. Capped scores
// take 28 more for their one tile of keys here; Gemma's norms are two more in number, and each is
// three in a half type, where its weight is float32. Ends: 17 for what the layers of one window
// share of the attention; the embedding and its scale, rotations, final norm and logits.
TEST_P(FamilyTest, AStepRunsOnTensorsWithoutValues) {
  auto loaded =
      Transformer::Load(Families() / GetParam(),
                        {.device = c10::kMeta, .dtype = dtype_, .threads = 0, .progress = {}});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  ObserveDecodeStep(**loaded, [&](const OperatorCount& count) {
    ExpectNoLookAtValues(count);
    const Architecture& a = model_->architecture();
    const int block = 30 + 8 * a.head_norms + (a.attention_soft_cap > 0 ? 42 : 0) +
                      (a.post_norms && dtype_ != DType::kFloat32 ? 9 : 0);
    const auto windows = std::set<int64_t>(a.windows.begin(), a.windows.end()).size();
    EXPECT_LE(count.launches(), 17 + 17 * static_cast<int>(windows) + block * a.num_layers);
    EXPECT_GE(count.launches(), 25 * a.num_layers);  // it does count
  });
}

TEST_P(FamilyTest, TheOlderLayoutOfItsConfigurationReadsTheSame) {
  const std::filesystem::path folder = Families() / GetParam();
  const auto newer = ParseArchitecture(ReadFile(folder / "config.json"));
  const auto older = ParseArchitecture(ReadFile(folder / "legacy_config.json"));
  ASSERT_TRUE(newer.ok()) << newer.status();
  ASSERT_TRUE(older.ok()) << older.status();
  EXPECT_TRUE(*newer == *older);
}

}  // namespace
}  // namespace valuescope::model
