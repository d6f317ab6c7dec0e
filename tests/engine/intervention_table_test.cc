// Rows of the intervention tables: what they hold, what they leave behind, and which interventions
// are refused.
#include "engine/intervention_table.h"

#include <ATen/ops/count_nonzero.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <limits>
#include <set>

#include "base/error.h"

namespace valuescope::engine {
namespace {

using model::Site;

constexpr int64_t kCapacity = 20;
constexpr SequenceExtent kExtent{.prompt = 4, .most = 40, .generates = true};

model::Architecture Small() {
  model::Architecture a;
  a.family = "llama";
  a.num_layers = 3;
  a.hidden = 4;
  a.intermediate = 6;
  a.num_heads = 2;
  a.num_kv_heads = 1;
  a.head_dim = 2;
  a.vocabulary = 8;
  a.max_positions = 64;
  return a;
}

std::shared_ptr<const std::vector<float>> Rows(std::vector<float> values) {
  return std::make_shared<const std::vector<float>>(std::move(values));
}

Intervention Add(Site site, std::vector<int> layers, std::vector<float> rows,
                 float coefficient = 1) {
  return {.site = site,
          .layers = std::move(layers),
          .tokens = {.kind = TokenKind::kAll, .positions = {}},
          .add = {.rows = Rows(std::move(rows)), .coefficient = coefficient}};
}

class InterventionTable : public ::testing::Test {
 protected:
  CompiledInterventions Compile(std::vector<Intervention> interventions) {
    auto compiled = CompiledInterventions::Compile(std::move(interventions), kExtent, small_);
    EXPECT_TRUE(compiled.ok()) << compiled.status();
    return *std::move(compiled);
  }

  std::string FieldRefused(std::vector<Intervention> interventions) {
    const absl::Status status =
        CompiledInterventions::Compile(std::move(interventions), kExtent, small_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return DetailsOf(status).field;
  }

  // The tables by wire, as a step would see them.
  model::StepProgram Program() {
    model::StepProgram program(static_cast<size_t>(model::NumWires(small_)));
    tables_.AddTo(program);
    return program;
  }

  // What row `row` adds at a wire; empty where the wire has no table in the program.
  std::vector<float> Added(model::Wire wire, int64_t row) {
    const model::StepProgram program = Program();
    const auto& additions =
        program[static_cast<size_t>(model::WireIndex(model::Normalised(wire), small_))].additions;
    if (additions.empty()) return {};
    EXPECT_EQ(additions.size(), 1u);
    const at::Tensor values = additions[0].rows[row].contiguous();
    return {values.const_data_ptr<float>(), values.const_data_ptr<float>() + values.numel()};
  }

  int TouchedWires() {
    int touched = 0;
    for (const model::WireProgram& wire : Program()) touched += !wire.additions.empty();
    return touched;
  }

  const model::Architecture small_ = Small();
  InterventionTables tables_{small_, kCapacity, c10::kCPU};
};

TEST_F(InterventionTable, HoldsCoefficientTimesVectorOfEveryLayer) {
  const auto compiled =
      Compile({Add(Site::kResidualPost, {0, 2}, {1, 2, 3, 4, 5, 6, 7, 8}, -0.5f)});
  const int64_t row = tables_.AcquireRow(compiled, 1);
  EXPECT_GT(row, 0);
  EXPECT_EQ(Added({Site::kResidualPost, 0}, row), (std::vector<float>{-0.5f, -1, -1.5f, -2}));
  EXPECT_EQ(Added({Site::kResidualPost, 1}, row), (std::vector<float>{}));
  EXPECT_EQ(Added({Site::kResidualPost, 2}, row), (std::vector<float>{-2.5f, -3, -3.5f, -4}));
  EXPECT_EQ(TouchedWires(), 2);
}

TEST_F(InterventionTable, SumsWhatMeetsOnOneWire) {
  const auto compiled = Compile({Add(Site::kResidualPost, {1}, {1, 2, 3, 4}, 2),
                                 Add(Site::kResidualPost, {1}, {10, 20, 30, 40}, 0.5f)});
  EXPECT_EQ(Added({Site::kResidualPost, 1}, tables_.AcquireRow(compiled, 0b11)),
            (std::vector<float>{7, 14, 21, 28}));
  EXPECT_EQ(Added({Site::kResidualPost, 1}, tables_.AcquireRow(compiled, 0b01)),
            (std::vector<float>{2, 4, 6, 8}));
  EXPECT_EQ(Added({Site::kResidualPost, 1}, tables_.AcquireRow(compiled, 0b10)),
            (std::vector<float>{5, 10, 15, 20}));
}

TEST_F(InterventionTable, TheInputOfABlockIsTheOutputOfTheOneBefore) {
  const auto compiled = Compile({Add(Site::kResidualPre, {0, 2}, {1, 1, 1, 1, 2, 2, 2, 2}),
                                 Add(Site::kResidualPost, {1}, {5, 5, 5, 5})});
  const int64_t row = tables_.AcquireRow(compiled, 0b11);
  EXPECT_EQ(Added({Site::kEmbedding, 0}, row), (std::vector<float>{1, 1, 1, 1}));
  EXPECT_EQ(Added({Site::kResidualPost, 1}, row), (std::vector<float>{7, 7, 7, 7}));
  EXPECT_EQ(TouchedWires(), 2);
}

TEST_F(InterventionTable, NothingIsRowZero) {
  const auto compiled = Compile({Add(Site::kResidualPost, {1}, {1, 2, 3, 4}, 0)});
  EXPECT_EQ(tables_.AcquireRow(compiled, 1), 0);
  EXPECT_EQ(tables_.AcquireRow(compiled, 0), 0);
  EXPECT_EQ(tables_.live_rows(), 0);
  EXPECT_EQ(TouchedWires(), 0);
  tables_.ReleaseRow(0);
  EXPECT_EQ(tables_.live_rows(), 0);
}

TEST_F(InterventionTable, ReleasedRowsLeaveNothingBehind) {
  const auto first = Compile({Add(Site::kResidualPost, {0, 1}, {1, 2, 3, 4, 5, 6, 7, 8})});
  const auto second = Compile({Add(Site::kResidualPost, {1}, {9, 9, 9, 9})});
  const int64_t row = tables_.AcquireRow(first, 1);
  const at::Tensor table =
      Program()[static_cast<size_t>(model::WireIndex({Site::kResidualPost, 0}, small_))]
          .additions[0]
          .rows;
  tables_.ReleaseRow(row);
  EXPECT_EQ(TouchedWires(), 0);
  EXPECT_EQ(at::count_nonzero(table).item<int64_t>(), 0);
  // The next owner of the same row adds at one of the wires only.
  EXPECT_EQ(tables_.AcquireRow(second, 1), row);
  EXPECT_EQ(Added({Site::kResidualPost, 0}, row), (std::vector<float>{}));
  EXPECT_EQ(Added({Site::kResidualPost, 1}, row), (std::vector<float>{9, 9, 9, 9}));
}

TEST_F(InterventionTable, KeepsRowsOfDifferentRequestsApart) {
  std::set<int64_t> rows;
  for (float value = 1; value < static_cast<float>(kCapacity); ++value) {
    const auto compiled = Compile({Add(Site::kMlpNeurons, {1}, std::vector<float>(6, value))});
    const int64_t row = tables_.AcquireRow(compiled, 1);
    EXPECT_TRUE(rows.insert(row).second);
    EXPECT_EQ(Added({Site::kMlpNeurons, 1}, row), std::vector<float>(6, value));
  }
  EXPECT_EQ(tables_.live_rows(), kCapacity - 1);
  for (const int64_t row : rows) tables_.ReleaseRow(row);
  EXPECT_EQ(tables_.live_rows(), 0);
}

TEST_F(InterventionTable, KnowsWhichInterventionsActOnAToken) {
  Intervention prompt = Add(Site::kResidualPost, {0}, {1, 1, 1, 1});
  prompt.tokens = {.kind = TokenKind::kPrompt, .positions = {}};
  Intervention answer = Add(Site::kResidualPost, {0}, {1, 1, 1, 1});
  answer.tokens = {.kind = TokenKind::kFromLastPrompt, .positions = {}};
  const auto compiled = Compile({prompt, answer});
  EXPECT_EQ(compiled.ActiveAt(0), 0b01u);
  EXPECT_EQ(compiled.ActiveAt(3), 0b11u);
  EXPECT_EQ(compiled.ActiveAt(4), 0b10u);
}

TEST_F(InterventionTable, RefusesMoreThanSixteenDistinctSets) {
  // n single positions make n sets, and the empty one.
  const auto at_positions = [](int64_t count) {
    std::vector<Intervention> interventions;
    for (int64_t position = 0; position < count; ++position) {
      interventions.push_back(Add(Site::kResidualPost, {0}, {1, 1, 1, 1}));
      interventions.back().tokens = {.kind = TokenKind::kPositions, .positions = {position}};
    }
    return interventions;
  };
  Compile(at_positions(15));
  EXPECT_EQ(FieldRefused(at_positions(16)), "interventions");
}

TEST_F(InterventionTable, RefusesMoreThanItsMostInterventions) {
  const Intervention one = Add(Site::kResidualPost, {0}, {1, 1, 1, 1});
  const auto compiled = Compile(std::vector<Intervention>(64, one));
  EXPECT_EQ(Added({Site::kResidualPost, 0}, tables_.AcquireRow(compiled, compiled.ActiveAt(0))),
            (std::vector<float>{64, 64, 64, 64}));
  EXPECT_EQ(FieldRefused(std::vector<Intervention>(65, one)), "interventions");
}

TEST_F(InterventionTable, NamesTheFieldThatIsWrong) {
  const Intervention good = Add(Site::kResidualPost, {0}, {1, 1, 1, 1});
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();

  EXPECT_EQ(FieldRefused({good, Add(Site::kResidualPost, {3}, {1, 1, 1, 1})}),
            "interventions[1].layers[0]");
  EXPECT_EQ(FieldRefused({Add(Site::kResidualPost, {-1}, {1, 1, 1, 1})}),
            "interventions[0].layers[0]");
  EXPECT_EQ(FieldRefused({Add(Site::kResidualPost, {1, 1}, {1, 1, 1, 1, 1, 1, 1, 1})}),
            "interventions[0].layers[1]");
  EXPECT_EQ(FieldRefused({Add(Site::kResidualPost, {2, 1}, {1, 1, 1, 1, 1, 1, 1, 1})}),
            "interventions[0].layers[1]");
  EXPECT_EQ(FieldRefused({Add(Site::kResidualPost, {}, {1, 1, 1, 1})}), "interventions[0].layers");
  EXPECT_EQ(FieldRefused({Add(Site::kLogits, {0}, std::vector<float>(8, 1))}),
            "interventions[0].layers");

  EXPECT_EQ(FieldRefused({Add(Site::kResidualPost, {0}, {1, 1, 1})}),
            "interventions[0].add.tensor");
  EXPECT_EQ(FieldRefused({Add(Site::kMlpNeurons, {0}, {1, 1, 1, 1})}),
            "interventions[0].add.tensor");
  EXPECT_EQ(FieldRefused({Add(Site::kResidualPost, {0, 1}, {1, 1, 1, 1})}),
            "interventions[0].add.tensor");
  EXPECT_EQ(FieldRefused({Add(Site::kResidualPost, {0}, {1, nan, 1, 1})}),
            "interventions[0].add.tensor");
  EXPECT_EQ(FieldRefused({Add(Site::kResidualPost, {0}, {1, 1, 1, infinity})}),
            "interventions[0].add.tensor");
  EXPECT_EQ(FieldRefused({Add(Site::kResidualPost, {0}, {1, 1, 1, 1}, nan)}),
            "interventions[0].add.coefficient");
  // Finite factors whose product is not.
  EXPECT_EQ(FieldRefused({Add(Site::kResidualPost, {0}, {1, 1e38f, 1, 1}, 1e10f)}),
            "interventions[0].add.coefficient");
  Intervention without_rows = good;
  without_rows.add.rows = nullptr;
  EXPECT_EQ(FieldRefused({without_rows}), "interventions[0].add.tensor");

  Intervention elsewhere = good;
  elsewhere.tokens = {.kind = TokenKind::kPositions, .positions = {0, 40}};
  EXPECT_EQ(FieldRefused({elsewhere}), "interventions[0].tokens.positions[1]");
}

}  // namespace
}  // namespace valuescope::engine
