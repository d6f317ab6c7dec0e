// Tiny Llamas of random weights against transformers (golden/make_tiny_llamas.py): every site of
// every block, greedy tokens, and the promises of the forward pass that hold to the bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "tests/model/forward_harness.h"
#include "tests/model/golden_values.h"
#include "tests/model/model_folder.h"

namespace valuescope::model {
namespace {

using ::testing::HasSubstr;

constexpr double kTolerance = 1e-5;

std::filesystem::path GoldenFolder(const std::string& name) {
  return std::filesystem::path(VALUESCOPE_SOURCE_DIR) / "tests/model/golden" / name;
}

class TinyLlama : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto loaded = Transformer::Load(GoldenFolder(GetParam()), {});
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    model_ = *std::move(loaded);
    expected_ = std::make_unique<GoldenValues>(GoldenFolder(GetParam()) / "expected.safetensors");
    ids_ = expected_->Tokens("ids");
  }

  at::Tensor Expected(const std::string& name) const { return expected_->Get(name); }
  std::vector<int64_t> Tokens(const std::string& name) const { return expected_->Tokens(name); }

  // Every wire, under the name that the golden file gives it.
  std::vector<std::pair<std::string, Wire>> Wires() const {
    std::vector<std::pair<std::string, Wire>> wires;
    for (const Site site : {Site::kEmbedding, Site::kFinalNorm, Site::kLogits}) {
      wires.push_back({std::string(NameOf(site)), {site, 0}});
    }
    for (int layer = 0; layer < model_->architecture().num_layers; ++layer) {
      for (const Site site : {Site::kAttentionHeads, Site::kAttentionOutput, Site::kResidualMid,
                              Site::kMlpNeurons, Site::kMlpOutput, Site::kResidualPost}) {
        wires.push_back({absl::StrCat(std::string(NameOf(site)), ".", layer), {site, layer}});
      }
    }
    return wires;
  }

  // All of `ids_` as one sequence, the given numbers of tokens a step: logits of every token.
  at::Tensor InChunksOf(int64_t chunk) const {
    ForwardHarness harness(*model_, {ids_});
    std::vector<at::Tensor> logits;
    const int64_t length = static_cast<int64_t>(ids_.size());
    for (int64_t first = 0; first < length; first += chunk) {
      logits.push_back(harness.Run({{0, first, std::min(chunk, length - first)}}));
    }
    return at::cat(logits);
  }

  // The sequence in the middle of `count` others of other lengths and contents: its logits.
  at::Tensor InCompanyOf(int count) const {
    std::vector<std::vector<int64_t>> sequences;
    std::vector<Piece> pieces;
    const int64_t vocabulary = model_->architecture().vocabulary;
    int64_t before = 0;
    for (int i = 0; i < count; ++i) {
      sequences.push_back(ids_);
      if (i != count / 2) {
        sequences[i].resize(1 + (i * 7) % ids_.size());
        for (size_t j = 0; j < sequences[i].size(); ++j) {
          sequences[i][j] = (i * 31 + j * 17) % vocabulary;
        }
      }
      const int64_t length = static_cast<int64_t>(sequences[i].size());
      if (i < count / 2) before += length;
      pieces.push_back({i, 0, length});
    }
    ForwardHarness harness(*model_, sequences);
    return harness.Run(pieces).narrow(0, before, static_cast<int64_t>(ids_.size()));
  }

  std::unique_ptr<Transformer> model_;
  std::unique_ptr<GoldenValues> expected_;
  std::vector<int64_t> ids_;
};

INSTANTIATE_TEST_SUITE_P(Models, TinyLlama, ::testing::Values("grouped", "tied_sharded"));

TEST_P(TinyLlama, EverySiteEqualsTransformers) {
  ForwardHarness harness(*model_, {ids_});
  const int64_t length = static_cast<int64_t>(ids_.size());
  std::map<std::string, at::Tensor> seen;
  for (const auto& [name, wire] : Wires()) {
    seen[name] = at::full({length, WidthOf(wire.site, model_->architecture())}, -1e30f);
    harness.program()[WireIndex(wire, model_->architecture())].taps = {
        {.operation = TapOperation::kCopy,
         .tokens = at::arange(length, at::kLong),
         .rows = at::arange(length, at::kLong),
         .destination = seen[name]}};
  }
  const at::Tensor logits = harness.RunWhole(0);
  for (const auto& [name, value] : seen) {
    EXPECT_LT(RelativeError(value, Expected(name)), kTolerance) << name;
  }
  EXPECT_TRUE(logits.equal(seen["LOGITS"]));
}

TEST_P(TinyLlama, LogitsAreTheSameWithAndWithoutATapOnThem) {
  ForwardHarness harness(*model_, {ids_});
  EXPECT_LT(RelativeError(harness.RunWhole(0), Expected("LOGITS")), kTolerance);
}

TEST_P(TinyLlama, GreedyTokensEqualTransformers) {
  ForwardHarness harness(*model_, {ids_});
  at::Tensor last = harness.RunWhole(0)[-1];
  for (const int64_t expected : Tokens("greedy_ids")) {
    ASSERT_EQ(last.argmax().item<int64_t>(), expected);
    auto& ids = harness.sequences()[0];
    ids.push_back(expected);
    last = harness.Run({{0, static_cast<int64_t>(ids.size()) - 1, 1}})[0];
  }
}

TEST_P(TinyLlama, ChunkingChangesNoBit) {
  const at::Tensor whole = InChunksOf(static_cast<int64_t>(ids_.size()));
  for (const int64_t chunk : {1, 7, 16}) EXPECT_TRUE(InChunksOf(chunk).equal(whole)) << chunk;
}

TEST_P(TinyLlama, CompanyChangesNoBit) {
  const at::Tensor alone = InCompanyOf(1);
  for (const int count : {5, 16}) EXPECT_TRUE(InCompanyOf(count).equal(alone)) << count;
}

TEST_P(TinyLlama, AnAdditionMovesTheWireByTheRowAndLeavesOtherTokensAlone) {
  const Architecture& a = model_->architecture();
  const int64_t length = static_cast<int64_t>(ids_.size());
  const Wire wire{Site::kResidualMid, 1};
  at::Tensor rows = at::arange(3 * a.hidden, at::kFloat).view({3, a.hidden}) / 10.0;
  at::Tensor seen = at::zeros({length, a.hidden});
  ForwardHarness harness(*model_, {ids_});
  WireProgram& program = harness.program()[WireIndex(wire, a)];
  program.stages = {AddStage{.active = EveryRowActive(3), .rows = rows}};
  program.taps = {{.operation = TapOperation::kCopy,
                   .tokens = at::arange(length, at::kLong),
                   .rows = at::arange(length, at::kLong),
                   .destination = seen}};
  std::vector<int64_t> table_rows(length);
  table_rows[20] = 2;
  const at::Tensor logits = harness.Run({{0, 0, length}}, table_rows);
  at::Tensor expected = Expected("RESIDUAL_MID.1");
  expected[20] += rows[2];
  EXPECT_LT(RelativeError(seen, expected), kTolerance);
  // What comes before the edited token cannot know of it; what comes after must.
  const at::Tensor plain = InChunksOf(length);
  EXPECT_TRUE(logits.narrow(0, 0, 20).equal(plain.narrow(0, 0, 20)));
  EXPECT_GT(RelativeError(logits.narrow(0, 20, 1), plain.narrow(0, 20, 1)), 1e-3);
}

TEST_P(TinyLlama, SumsOverSeveralStepsEqualOneStepToTheBit) {
  const Architecture& a = model_->architecture();
  const int64_t length = static_cast<int64_t>(ids_.size());
  std::vector<at::Tensor> sums;
  for (const int64_t chunk : {length, int64_t{7}, int64_t{1}}) {
    ForwardHarness harness(*model_, {ids_});
    at::Tensor sum = at::zeros({1, a.intermediate}, at::kDouble);
    for (int64_t first = 0; first < length; first += chunk) {
      const int64_t count = std::min(chunk, length - first);
      harness.program()[WireIndex({Site::kMlpNeurons, 1}, a)].taps = {
          {.operation = TapOperation::kSum,
           .tokens = at::arange(count, at::kLong),
           .rows = at::zeros({count}, at::kLong),
           .destination = sum}};
      harness.Run({{0, first, count}});
    }
    sums.push_back(sum);
  }
  EXPECT_LT(RelativeError(sums[0][0], Expected("MLP_NEURONS.1").to(at::kDouble).sum(0)),
            kTolerance);
  EXPECT_TRUE(sums[1].equal(sums[0]));
  EXPECT_TRUE(sums[2].equal(sums[0]));
}

TEST_P(TinyLlama, WriteDirectionsTurnNeuronsIntoWhatTheMlpAdds) {
  for (int layer = 0; layer < model_->architecture().num_layers; ++layer) {
    const at::Tensor directions = *model_->WriteDirections(layer);
    const at::Tensor written =
        at::matmul(Expected(absl::StrCat("MLP_NEURONS.", layer)), directions.transpose(0, 1));
    EXPECT_LT(RelativeError(written, Expected(absl::StrCat("MLP_OUTPUT.", layer))), kTolerance);
  }
}

// The final norm is its gain and a factor a token: without the factor, rows give its logits.
TEST_P(TinyLlama, UnembeddingRowsTurnTheResidualStreamIntoLogits) {
  const Architecture& a = model_->architecture();
  const at::Tensor x = Expected(absl::StrCat("RESIDUAL_POST.", a.num_layers - 1)).to(at::kDouble);
  const at::Tensor factor =
      (x.square().mean(-1, /*keepdim=*/true) + a.rms_norm_epsilon).rsqrt();  // [tokens, 1]
  const int64_t half = a.vocabulary / 2;
  const at::Tensor rows = at::cat(
      {*model_->UnembeddingRows(0, half), *model_->UnembeddingRows(half, a.vocabulary - half)});
  const at::Tensor logits = at::matmul(x * factor, rows.to(at::kDouble).transpose(0, 1));
  EXPECT_LT(RelativeError(logits.to(at::kFloat), Expected("LOGITS")), kTolerance);
}

TEST_P(TinyLlama, HalfPrecisionIsNearFloat32) {
  auto loaded = Transformer::Load(GoldenFolder(GetParam()),
                                  {.dtype = DType::kBFloat16, .threads = 0, .progress = {}});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const Architecture& a = (*loaded)->architecture();
  const int64_t length = static_cast<int64_t>(ids_.size());
  KvCache cache = *KvCache::Allocate(a, 4, 16, DType::kBFloat16, c10::kCPU);
  const at::Tensor all = at::arange(length, at::kLong);
  const at::Tensor logits =
      (*loaded)->Forward({.token_ids = at::tensor(ids_, at::kLong),
                          .positions = all,
                          .sequences = at::zeros({length}, at::kLong),
                          .cache_slots = all,
                          .block_tables = at::arange(4, at::kLong).view({1, 4}),
                          .table_rows = at::zeros({length}, at::kLong),
                          .logit_tokens = all},
                         cache, StepProgram(NumWires(a)));
  EXPECT_EQ(logits.scalar_type(), at::kFloat);
  EXPECT_LT(RelativeError(logits, Expected("LOGITS")), 0.05);
}

// Nothing in a step may look at values: on meta tensors there are none.
TEST_P(TinyLlama, AStepRunsOnTensorsWithoutValues) {
  auto loaded = Transformer::Load(
      GoldenFolder(GetParam()),
      {.device = c10::kMeta, .dtype = DType::kFloat32, .threads = 0, .progress = {}});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const Architecture& a = (*loaded)->architecture();
  KvCache cache = *KvCache::Allocate(a, 4, 16, DType::kFloat32, c10::kMeta);
  const auto index = at::TensorOptions().device(c10::kMeta).dtype(at::kLong);
  const auto wide = index.dtype(at::kFloat);
  const at::Tensor byte = at::empty({4}, index.dtype(at::kByte));
  StepProgram program(NumWires(a));
  for (const auto& [name, wire] : Wires()) {
    const int64_t width = WidthOf(wire.site, a);
    program[WireIndex(wire, a)] = {
        .stages = {AddStage{.active = byte, .rows = at::empty({4, width}, wide)},
                   ScaleOrSetStage{.active = byte,
                                   .factors = at::empty({4, width}, wide),
                                   .values = at::empty({4, width}, wide)},
                   ProjectStage{.active = byte,
                                .basis = at::empty({4, 2, width}, wide),
                                .ranks = at::empty({4}, index),
                                .kept = at::empty({4}, wide),
                                .targets = at::empty({4, 2}, wide)}},
        .taps = {{TapOperation::kCopy, at::empty({2}, index), at::empty({2}, index),
                  at::empty({4, width}, wide)},
                 {TapOperation::kSum, at::empty({2}, index), at::empty({2}, index),
                  at::empty({4, width}, index.dtype(at::kDouble))},
                 {TapOperation::kMax, at::empty({2}, index), at::empty({2}, index),
                  at::empty({4, width}, wide)}}};
  }
  const StepBatch batch{.token_ids = at::empty({3}, index),
                        .positions = at::empty({3}, index),
                        .sequences = at::empty({3}, index),
                        .cache_slots = at::empty({3}, index),
                        .block_tables = at::empty({2, 4}, index),
                        .table_rows = at::empty({3}, index),
                        .logit_tokens = at::empty({2}, index),
                        .most_tokens = 2};
  for (const StepProgram& each : {StepProgram(NumWires(a)), program}) {
    const at::Tensor logits = (*loaded)->Forward(batch, cache, each);
    EXPECT_EQ(logits.sizes(), (std::vector<int64_t>{2, a.vocabulary}));
  }
}

// Somebody writes to the files of a model that is served, in place, as a copy over them does.
TEST_P(TinyLlama, AFileThatIsWrittenToChangesNoAnswerAndIsReadNoMore) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat16}) {
    const ModelFolder folder;
    folder.CopyFrom(GoldenFolder(GetParam()));
    auto loaded = Transformer::Load(folder.path(), {.dtype = dtype});
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    const auto logits = [&] {
      return ForwardHarness(**loaded, {ids_}).Run({{0, 0, static_cast<int64_t>(ids_.size())}});
    };
    ASSERT_TRUE((*loaded)->WriteDirections(0).ok());
    const at::Tensor before = logits();
    for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
      if (entry.path().extension() != ".safetensors") continue;
      std::string bytes = ReadFile(entry.path());
      std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(bytes.size() / 2), bytes.end(), '?');
      std::fstream(entry.path(), std::ios::in | std::ios::out | std::ios::binary) << bytes;
      EXPECT_TRUE(logits().equal(before));
      std::filesystem::resize_file(entry.path(), 100);
    }
    EXPECT_TRUE(logits().equal(before));
    EXPECT_EQ(DetailsOf((*loaded)->WriteDirections(0).status()).reason, "MODEL_FILES_CHANGED");
    EXPECT_EQ(DetailsOf((*loaded)->UnembeddingRows(0, 1).status()).reason, "MODEL_FILES_CHANGED");
  }
}

TEST_P(TinyLlama, ProgressEndsAtOneAndTheDigestNamesTheWeights) {
  const ModelFolder folder;
  folder.CopyFrom(GoldenFolder(GetParam()));
  double progress = 0;
  const auto same = Transformer::Load(folder.path(), {.progress = [&](double fraction) {
                                        EXPECT_GE(fraction, progress);
                                        progress = fraction;
                                      }});
  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_EQ(progress, 1.0);
  EXPECT_EQ((*same)->weights_digest(), model_->weights_digest());
  EXPECT_EQ(model_->weights_digest().size(), 64u);
  folder.Write("config.json", ReadFile(folder / "config.json") + " ");
  EXPECT_NE((*Transformer::Load(folder.path(), {}))->weights_digest(), model_->weights_digest());
}

// --- Folders that do not load -------------------------------------------------------------------

// What this process has mapped already.
uint64_t VirtualBytes() {
  uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

class BrokenFolder : public ::testing::Test {
 protected:
  void SetUp() override { folder_.CopyFrom(GoldenFolder("grouped")); }

  // Replaces the first `from` in the weight file by the equally long `to`.
  void ReplaceInWeights(const std::string& from, const std::string& to) {
    std::string bytes = ReadFile(folder_ / "model.safetensors");
    ASSERT_EQ(from.size(), to.size());
    const size_t place = bytes.find(from);
    ASSERT_NE(place, std::string::npos);
    folder_.Write("model.safetensors", bytes.replace(place, from.size(), to));
  }
  void ReplaceInConfig(const std::string& from, const std::string& to) {
    std::string text = ReadFile(folder_ / "config.json");
    const size_t place = text.find(from);
    ASSERT_NE(place, std::string::npos);
    folder_.Write("config.json", text.replace(place, from.size(), to));
  }
  void ExpectRefused(absl::StatusCode code, const std::string& named) {
    const auto loaded = Transformer::Load(folder_.path(), {});
    ASSERT_FALSE(loaded.ok());
    EXPECT_EQ(loaded.status().code(), code) << loaded.status();
    EXPECT_THAT(std::string(loaded.status().message()), HasSubstr(named));
    EXPECT_THAT(std::string(loaded.status().message()), ::testing::Not(HasSubstr(folder_.path())));
  }

  // Exits with 0 if a load that runs out of memory says so.
  void LoadInLittleMemoryAndExit() {
    const rlimit limit{VirtualBytes() + (uint64_t{110} << 20), RLIM_INFINITY};
    setrlimit(RLIMIT_AS, &limit);
    const absl::StatusCode code = Transformer::Load(folder_.path(), {}).status().code();
    std::_Exit(code == absl::StatusCode::kResourceExhausted ? 0 : 1);
  }

  ModelFolder folder_;
};

TEST_F(BrokenFolder, ARenamedTensorIsMissing) {
  ReplaceInWeights("layers.1.mlp.up_proj", "layers.1.mlp.xp_proj");
  ExpectRefused(absl::StatusCode::kInvalidArgument, "model.layers.1.mlp.up_proj.weight");
}

TEST_F(BrokenFolder, ATensorOfABlockTooManyIsUnknown) {
  ReplaceInConfig("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2");
  ExpectRefused(absl::StatusCode::kInvalidArgument, "model.layers.2.");
}

TEST_F(BrokenFolder, AShapeThatConfigContradictsIsNamedWithBothShapes) {
  ReplaceInConfig("\"intermediate_size\": 28", "\"intermediate_size\": 29");
  ExpectRefused(absl::StatusCode::kInvalidArgument,
                "mlp.gate_proj.weight\" has the shape [28, 18]");
}

TEST_F(BrokenFolder, ATensorInTwoShardsIsRefused) {
  const std::string one = ReadFile(folder_ / "model.safetensors");
  std::filesystem::remove(folder_ / "model.safetensors");
  folder_.Write("one.safetensors", one);
  folder_.Write("copy.safetensors", one);
  folder_.Write("model.safetensors.index.json",
                R"({"weight_map":{"model.norm.weight":"one.safetensors",
                                  "model.embed_tokens.weight":"copy.safetensors"}})");
  ExpectRefused(absl::StatusCode::kInvalidArgument, "is in two files");
}

TEST_F(BrokenFolder, AMissingShardIsNotFound) {
  std::filesystem::rename(folder_ / "model.safetensors", folder_ / "one.safetensors");
  folder_.Write("model.safetensors.index.json",
                R"({"weight_map":{"model.norm.weight":"one.safetensors","b":"gone.safetensors"}})");
  ExpectRefused(absl::StatusCode::kNotFound, "gone.safetensors");
}

TEST_F(BrokenFolder, MissingFilesAreNotFound) {
  std::filesystem::remove(folder_ / "model.safetensors");
  ExpectRefused(absl::StatusCode::kNotFound, "model.safetensors");
  std::filesystem::remove(folder_ / "config.json");
  ExpectRefused(absl::StatusCode::kNotFound, "config.json");
}

TEST_F(BrokenFolder, ATruncatedFileIsRefused) {
  const std::string bytes = ReadFile(folder_ / "model.safetensors");
  for (const size_t length : {size_t{0}, size_t{7}, size_t{1000}, bytes.size() - 1}) {
    folder_.Write("model.safetensors", bytes.substr(0, length));
    ExpectRefused(absl::StatusCode::kInvalidArgument, "model.safetensors");
  }
}

// The name of a tensor is larger than the memory that is left: the answer is a status, not the end
// of the process.
TEST_F(BrokenFolder, AHeaderThatDoesNotFitTheMemoryIsAStatus) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "a limited address space has no room for the sanitizer's own";
#endif
  folder_.Write("model.safetensors",
                Safetensors("{\"" + std::string(90'000'000, 'n') + "\":1}", ""));
  // In a fresh process: the limit outlives the test, and a used heap has room to spare.
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(LoadInLittleMemoryAndExit(), ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace valuescope::model
