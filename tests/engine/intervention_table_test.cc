// Rows of the intervention tables: what they hold, what they leave behind, and which interventions
// are refused.
#include "engine/intervention_table.h"

#include <ATen/ops/tensor.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include <limits>
#include <set>

#include "base/error.h"
#include "model/kernels.h"

namespace valuescope::engine {
namespace {

using model::Site;

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

SharedFloats Rows(std::vector<float> values) {
  return std::make_shared<const std::vector<float>>(std::move(values));
}

Intervention At(Site site, std::vector<int> layers, Operation operation) {
  return {.site = site,
          .layers = std::move(layers),
          .tokens = {.kind = TokenKind::kAll, .positions = {}},
          .operation = std::move(operation)};
}

Intervention Add(Site site, std::vector<int> layers, std::vector<float> rows,
                 float coefficient = 1) {
  return At(site, std::move(layers),
            AddVector{.rows = Rows(std::move(rows)), .coefficient = coefficient});
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

  // What the tables give, which have all the memory they may ask for.
  static std::optional<std::vector<int64_t>> Acquire(InterventionTables& tables,
                                                     const CompiledInterventions& compiled) {
    auto rows = tables.AcquireRows(compiled);
    EXPECT_TRUE(rows.ok()) << rows.status();
    return rows.ok() ? *std::move(rows) : std::nullopt;
  }

  // The row of the set `active`, held once more, once it is written.
  static int64_t Acquired(InterventionTables& tables, const CompiledInterventions& compiled,
                          uint64_t active) {
    const std::optional<std::vector<int64_t>> rows = Acquire(tables, compiled);
    EXPECT_TRUE(rows.has_value());
    if (!rows) return -1;
    try {
      while (tables.WriteRows(1 << 20)) {
      }
    } catch (...) {
      tables.ReleaseRows(*rows);
      throw;
    }
    EXPECT_TRUE(tables.Written(*rows));
    return (*rows)[active];
  }

  static void Release(InterventionTables& tables, int64_t row) {
    tables.ReleaseRows(std::vector<int64_t>{row});
  }

  // The tables by wire, as a step would see them.
  model::StepProgram Program() {
    model::StepProgram program(static_cast<size_t>(model::NumWires(small_)));
    tables_.AddTo(program);
    return program;
  }

  // What becomes of an activation at a wire for a token of row `row`.
  std::vector<float> Edited(model::Wire wire, int64_t row, const std::vector<float>& x) {
    at::Tensor value = at::tensor(x).view({1, -1});
    const model::StepProgram program = Program();
    for (const model::Stage& stage :
         program[static_cast<size_t>(model::WireIndex(model::Normalised(wire), small_))].stages) {
      std::visit([&](const auto& each) { model::Edit(value, each, at::tensor({row}, at::kLong)); },
                 stage);
    }
    return {value.const_data_ptr<float>(), value.const_data_ptr<float>() + value.numel()};
  }

  // What row `row` adds at a wire of the hidden width, or of `width`.
  std::vector<float> Added(model::Wire wire, int64_t row, size_t width = 4) {
    return Edited(wire, row, std::vector<float>(width));
  }

  size_t NumStages(model::Wire wire) {
    return Program()[static_cast<size_t>(model::WireIndex(model::Normalised(wire), small_))]
        .stages.size();
  }

  int TouchedWires() {
    int touched = 0;
    for (const model::WireProgram& wire : Program()) touched += !wire.stages.empty();
    return touched;
  }

  const model::Architecture small_ = Small();
  InterventionTables tables_{c10::kCPU};
};

const std::vector<float> kNothing(4);

TEST_F(InterventionTable, HoldsCoefficientTimesVectorOfEveryLayer) {
  const auto compiled =
      Compile({Add(Site::kResidualPost, {0, 2}, {1, 2, 3, 4, 5, 6, 7, 8}, -0.5f)});
  const int64_t row = Acquired(tables_, compiled, 1);
  EXPECT_GT(row, 0);
  EXPECT_EQ(Added({Site::kResidualPost, 0}, row), (std::vector<float>{-0.5f, -1, -1.5f, -2}));
  EXPECT_EQ(Added({Site::kResidualPost, 1}, row), kNothing);
  EXPECT_EQ(Added({Site::kResidualPost, 2}, row), (std::vector<float>{-2.5f, -3, -3.5f, -4}));
  EXPECT_EQ(TouchedWires(), 2);
}

TEST_F(InterventionTable, WhatMeetsOnOneWireRunsInOrderAndRoundsEachTime) {
  // 1e8 + 3 - 1e8 is 0 in float32; a sum made beforehand would add 3.
  const auto compiled = Compile({Add(Site::kResidualPost, {1}, {1e8f, 1, 1, 1}),
                                 Add(Site::kResidualPost, {1}, {-1e8f, 2, 2, 2})});
  const model::Wire wire{Site::kResidualPost, 1};
  const std::vector<float> x = {3, 0, 0, 0};
  EXPECT_EQ(Edited(wire, Acquired(tables_, compiled, compiled.ActiveAt(0)), x),
            (std::vector<float>{0, 3, 3, 3}));
  EXPECT_EQ(NumStages(wire), 2u);
}

TEST_F(InterventionTable, TheOrderIsTheRequestsOwnWhateverOthersDoAtTheWire) {
  const ScaleNeurons twice{.neurons = {{0, 1, 2, 3, 4, 5}}, .factor = 2};
  const Intervention scale = At(Site::kMlpNeurons, {1}, twice);
  const Intervention add = Add(Site::kMlpNeurons, {1}, {1, 1, 1, 1, 1, 1});
  const auto scale_first = Compile({scale, add}), add_first = Compile({add, scale});
  const int64_t one = Acquired(tables_, scale_first, scale_first.ActiveAt(0));
  const int64_t other = Acquired(tables_, add_first, add_first.ActiveAt(0));
  const model::Wire wire{Site::kMlpNeurons, 1};
  EXPECT_EQ(NumStages(wire), 4u);  // two ordinals, two kinds
  EXPECT_EQ(Edited(wire, one, std::vector<float>(6, 10)), std::vector<float>(6, 21));
  EXPECT_EQ(Edited(wire, other, std::vector<float>(6, 10)), std::vector<float>(6, 22));
}

TEST_F(InterventionTable, TheInputOfABlockIsTheOutputOfTheOneBefore) {
  const auto compiled = Compile({Add(Site::kResidualPre, {0, 2}, {1, 1, 1, 1, 2, 2, 2, 2}),
                                 Add(Site::kResidualPost, {1}, {5, 5, 5, 5})});
  const int64_t row = Acquired(tables_, compiled, compiled.ActiveAt(0));
  EXPECT_EQ(Added({Site::kEmbedding, 0}, row), (std::vector<float>{1, 1, 1, 1}));
  EXPECT_EQ(Added({Site::kResidualPost, 1}, row), (std::vector<float>{7, 7, 7, 7}));
  EXPECT_EQ(TouchedWires(), 2);
}

TEST_F(InterventionTable, NothingIsRowZero) {
  const auto compiled =
      Compile({Add(Site::kResidualPost, {1}, {1, 2, 3, 4}, 0),
               At(Site::kResidualPost, {1},
                  ProjectOut{.directions = Rows({1, 0, 0, 0}), .num_directions = 1, .strength = 0}),
               At(Site::kMlpNeurons, {0}, ScaleNeurons{.neurons = {{2}}, .factor = 1})});
  EXPECT_NE(compiled.ActiveAt(0), 0u);  // they are there, for the receipts
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(compiled.Acts(compiled.ActiveAt(0), i));
  EXPECT_EQ(Acquired(tables_, compiled, compiled.ActiveAt(0)), 0);
  EXPECT_EQ(compiled.ContentDigest(compiled.ActiveAt(0)), "");
  EXPECT_EQ(Acquired(tables_, compiled, 0), 0);
  EXPECT_EQ(tables_.live_rows(), 0);
  EXPECT_EQ(TouchedWires(), 0);
  Release(tables_, 0);
  EXPECT_EQ(tables_.live_rows(), 0);
}

TEST_F(InterventionTable, ReleasedRowsLeaveNothingBehind) {
  const auto first = Compile({Add(Site::kResidualPost, {0, 1}, {1, 2, 3, 4, 5, 6, 7, 8})});
  const auto second = Compile({Add(Site::kResidualPost, {1}, {9, 9, 9, 9})});
  const auto others = Compile({Add(Site::kResidualPost, {0}, {7, 7, 7, 7})});
  const int64_t row = Acquired(tables_, first, 1);
  const int64_t other = Acquired(tables_, others, 1);  // keeps the table of block 0
  Release(tables_, row);
  EXPECT_EQ(TouchedWires(), 1);
  // The next owner of the same row adds at one of the wires only.
  EXPECT_EQ(Acquired(tables_, second, 1), row);
  EXPECT_EQ(Added({Site::kResidualPost, 0}, row), kNothing);
  EXPECT_EQ(Added({Site::kResidualPost, 1}, row), (std::vector<float>{9, 9, 9, 9}));
  EXPECT_EQ(Added({Site::kResidualPost, 0}, other), (std::vector<float>{7, 7, 7, 7}));
  Release(tables_, row);
  Release(tables_, other);
  EXPECT_EQ(TouchedWires(), 0);
  EXPECT_EQ(tables_.bytes(), 0);
}

// What a recorded step holds is an address.
TEST_F(InterventionTable, WhereAddressesAreKeptATableServesTheNextAtItsPlaceAndNobodyElse) {
  InterventionTables kept{c10::kCPU, nullptr, /*keeps_addresses=*/true};
  const auto wire =
      static_cast<size_t>(model::WireIndex(model::Normalised({Site::kResidualPost, 1}), small_));
  const auto stages = [&] {
    model::StepProgram program(static_cast<size_t>(model::NumWires(small_)));
    kept.AddTo(program);
    return program[wire].stages;
  };
  const auto first = Compile({Add(Site::kResidualPost, {1}, {1, 2, 3, 4})});
  const int64_t row = Acquired(kept, first, 1);
  const at::Tensor rows = std::get<model::AddStage>(stages()[0]).rows;
  EXPECT_GT(kept.bytes(), 0);
  Release(kept, row);
  EXPECT_TRUE(stages().empty());
  EXPECT_EQ(kept.bytes(), 0);
  EXPECT_GT(kept.kept_bytes(), 0);
  // The table of the next one is the same, and what it held is gone.
  EXPECT_EQ(Acquired(kept, Compile({Add(Site::kResidualPost, {1}, {9, 9, 9, 9})}), 1), row);
  ASSERT_EQ(stages().size(), 1u);
  EXPECT_TRUE(std::get<model::AddStage>(stages()[0]).rows.is_same(rows));
  EXPECT_EQ(kept.kept_bytes(), 0);
  Release(kept, row);
  EXPECT_TRUE(rows.eq(0).all().item<bool>());
  EXPECT_TRUE(rows.signbit().all().item<bool>());
}

TEST_F(InterventionTable, KeptTablesGiveWayToThoseInUse) {
  const auto one = Compile({Add(Site::kResidualPost, {0}, {1, 2, 3, 4})});
  const auto other = Compile({Add(Site::kResidualPost, {1}, {1, 2, 3, 4})});
  MemoryLedger memory(4 * (1 + 4 * 4));  // of one table
  InterventionTables kept{c10::kCPU, &memory, /*keeps_addresses=*/true};
  Release(kept, Acquired(kept, one, 1));
  EXPECT_GT(kept.kept_bytes(), 0);
  const int64_t row = Acquired(kept, other, 1);
  EXPECT_EQ(kept.kept_bytes(), 0);
  EXPECT_EQ(Acquire(kept, one), std::nullopt);
  Release(kept, row);
  EXPECT_EQ(kept.live_rows(), 0);
}

TEST_F(InterventionTable, AdditionsSayWhetherTheyOnlyAdd) {
  const auto only_adds = [this] {
    for (const model::WireProgram& each : Program()) {
      for (const model::Stage& stage : each.stages) {
        return std::get<model::AddStage>(stage).only_adds;
      }
    }
    return false;
  };
  Intervention preserving = Add(Site::kResidualPost, {1}, {1, 2, 3, 4});
  preserving.preserve_norm = true;
  const auto plain = Compile({Add(Site::kResidualPost, {1}, {1, 2, 3, 4})});
  const auto careful = Compile({preserving});
  const int64_t first = Acquired(tables_, plain, 1);
  EXPECT_TRUE(only_adds());
  // A GPU takes the last row for whatever is beyond the table.
  std::vector<int64_t> more;
  for (int i = 0; i < 6; ++i) {
    const float value = static_cast<float>(5 + i);
    const auto another = Compile({Add(Site::kResidualPost, {1}, {1, 2, 3, value})});
    more.push_back(Acquired(tables_, another, 1));
  }
  for (const model::WireProgram& each : Program()) {
    for (const model::Stage& stage : each.stages) {
      const auto& add = std::get<model::AddStage>(stage);
      EXPECT_EQ(add.active[-1].item<uint8_t>(), model::kInactive);
      EXPECT_TRUE(add.rows[-1].eq(0).all().item<bool>());
      EXPECT_TRUE(add.rows[-1].signbit().all().item<bool>());
    }
  }
  for (const int64_t row : more) Release(tables_, row);
  const int64_t second = Acquired(tables_, careful, 1);
  EXPECT_FALSE(only_adds());
  Release(tables_, second);
  EXPECT_TRUE(only_adds());
  Release(tables_, first);
}

TEST_F(InterventionTable, TablesGrowByDoublingAndKeepWhatTheyHold) {
  const auto value_of = [](int i) { return std::vector<float>(6, static_cast<float>(i)); };
  std::vector<int64_t> rows;
  for (int i = 1; i <= 40; ++i) {
    const auto compiled = Compile({Add(Site::kMlpNeurons, {1}, value_of(i))});
    rows.push_back(Acquired(tables_, compiled, 1));
    EXPECT_EQ(rows.back(), i);  // the lowest that is free
    int64_t capacity = 4;
    while (capacity <= i + 1) capacity *= 2;  // the last row is nobody's
    EXPECT_EQ(tables_.bytes(), capacity * (1 + 6 * 4));
  }
  for (int i = 1; i <= 40; ++i) {
    EXPECT_EQ(Added({Site::kMlpNeurons, 1}, rows[static_cast<size_t>(i - 1)], 6), value_of(i));
  }
  // A row beyond another wire's small table is nothing there.
  const auto elsewhere = Compile({Add(Site::kResidualPost, {0}, {1, 1, 1, 1})});
  Release(tables_, 5);
  EXPECT_EQ(Acquired(tables_, elsewhere, 1), 5);
  EXPECT_EQ(Added({Site::kResidualPost, 0}, 40), kNothing);
  for (int64_t row = 1; row <= 40; ++row) Release(tables_, row);
  EXPECT_EQ(tables_.live_rows(), 0);
  EXPECT_EQ(tables_.bytes(), 0);
}

TEST_F(InterventionTable, DirectionsOfDifferentCountShareATable) {
  const auto project = [&](std::vector<float> directions, int64_t count, float strength) {
    return Compile({At(Site::kResidualPost, {0},
                       ProjectOut{.directions = Rows(std::move(directions)),
                                  .num_directions = count,
                                  .strength = strength})});
  };
  const auto one = project({0, 2, 0, 0}, 1, 1);
  // Dependent directions drop out: the span of these three is that of the first two axes.
  const auto three = project({5, 0, 0, 0, 1, 1, 0, 0, 0.1f, 0.7f, 0, 0}, 3, 0.5f);
  const int64_t first = Acquired(tables_, one, 1), second = Acquired(tables_, three, 1);
  const model::Wire wire{Site::kResidualPost, 0};
  EXPECT_EQ(NumStages(wire), 1u);
  EXPECT_EQ(Edited(wire, first, {1, 2, 3, 4}), (std::vector<float>{1, 0, 3, 4}));
  const std::vector<float> damped = Edited(wire, second, {1, 2, 3, 4});
  for (const auto& [i, value] : {std::pair(0, 0.5f), {1, 1.0f}, {2, 3.0f}, {3, 4.0f}}) {
    EXPECT_NEAR(damped[static_cast<size_t>(i)], value, 1e-6) << i;
  }
}

TEST_F(InterventionTable, ClampSetsTheProjection) {
  const auto compiled =
      Compile({At(Site::kResidualPost, {0}, Clamp{.rows = Rows({0, 0, 5, 0}), .value = -2})});
  EXPECT_EQ(Edited({Site::kResidualPost, 0}, Acquired(tables_, compiled, 1), {1, 2, 3, 4}),
            (std::vector<float>{1, 2, -2, 4}));
}

TEST_F(InterventionTable, NeuronsAndHeadsAreScaledAndAblatedWhereTheyAre) {
  const auto neurons = Compile(
      {At(Site::kMlpNeurons, {0, 1, 2}, ScaleNeurons{.neurons = {{}, {1, 4}, {}}, .factor = 3}),
       At(Site::kMlpNeurons, {1},
          AblateNeurons{.neurons = {{2}}, .means = Rows({9, 9, 7, 9, 9, 9})})});
  EXPECT_EQ(neurons.interventions()[0].layers, std::vector<int>{1});  // what receipts tell
  const int64_t row = Acquired(tables_, neurons, 1);
  EXPECT_EQ(TouchedWires(), 1);
  EXPECT_EQ(Edited({Site::kMlpNeurons, 1}, row, {1, 1, 1, 1, 1, 1}),
            (std::vector<float>{1, 3, 7, 1, 3, 1}));
  const auto heads = Compile(
      {At(Site::kAttentionHeads, {2}, AblateNeurons{.neurons = {{1}}, .means = Rows({5, 6, 7, 8})}),
       At(Site::kAttentionHeads, {2}, ScaleNeurons{.neurons = {{0}}, .factor = 0})});
  EXPECT_EQ(Edited({Site::kAttentionHeads, 2}, Acquired(tables_, heads, 1), {1, 2, 3, 4}),
            (std::vector<float>{0, 0, 7, 8}));
}

TEST_F(InterventionTable, AReplacementOfPositionsGivesEachItsRowOfEachLayer) {
  Intervention patch = At(Site::kResidualPost, {0, 2},
                          Replace{.rows = Rows({1, 1, 1, 1, 2, 2, 2, 2,    //
                                                3, 3, 3, 3, 4, 4, 4, 4}),  //
                                  .each_position = true});
  patch.tokens = {.kind = TokenKind::kPositions, .positions = {7, -4}};  // -4: 0 of a prompt of 4
  const auto compiled = Compile({patch});
  EXPECT_EQ(compiled.ActiveAt(1), 0u);
  const int64_t at_seven = Acquired(tables_, compiled, compiled.ActiveAt(7));
  const int64_t at_zero = Acquired(tables_, compiled, compiled.ActiveAt(0));
  const std::vector<float> x = {8, 8, 8, 8};
  EXPECT_EQ(Edited({Site::kResidualPost, 0}, at_seven, x), std::vector<float>(4, 1));
  EXPECT_EQ(Edited({Site::kResidualPost, 2}, at_seven, x), std::vector<float>(4, 3));
  EXPECT_EQ(Edited({Site::kResidualPost, 0}, at_zero, x), std::vector<float>(4, 2));
  EXPECT_EQ(Edited({Site::kResidualPost, 2}, at_zero, x), std::vector<float>(4, 4));
  EXPECT_NE(compiled.ContentDigest(compiled.ActiveAt(0)),
            compiled.ContentDigest(compiled.ActiveAt(7)));
}

TEST_F(InterventionTable, ARowThatDoesNotFitMemoryLeavesNothing) {
  const auto good = Compile({Add(Site::kResidualPost, {0}, {1, 1, 1, 1})});
  EXPECT_EQ(Acquired(tables_, good, 1), 1);
  const int64_t held = tables_.bytes();
  EXPECT_THROW(
      {
        InterventionTables elsewhere{c10::Device(c10::kCUDA, 0)};  // this build has none
        try {
          Acquired(elsewhere, good, 1);
        } catch (...) {
          EXPECT_EQ(elsewhere.live_rows(), 0);
          EXPECT_EQ(elsewhere.bytes(), 0);
          throw;
        }
      },
      std::exception);
  EXPECT_EQ(tables_.bytes(), held);
}

TEST_F(InterventionTable, ARowThatWouldMakeTheTablesTooLargeIsRefusedAndLeavesNothing) {
  const auto row_of = [&](int64_t directions, float added = 1) {
    std::vector<float> axes(static_cast<size_t>(directions) * 4);
    for (size_t i = 0; i < static_cast<size_t>(directions); ++i) axes[i * 4 + i] = 1;
    return Compile(
        {Add(Site::kResidualPost, {0}, {added, 2, 3, 4}),
         At(Site::kResidualPost, {0},
            ProjectOut{.directions = Rows(std::move(axes)), .num_directions = directions})});
  };
  const auto narrow = row_of(1), another = row_of(1, 2), third = row_of(1, 3), wide = row_of(4);
  InterventionTables unbounded{c10::kCPU};
  Acquired(unbounded, narrow, 1);
  EXPECT_EQ(unbounded.BytesWith(another), unbounded.bytes());
  Acquired(unbounded, another, 1);
  MemoryLedger memory(unbounded.bytes());
  InterventionTables tables{c10::kCPU, &memory};
  EXPECT_EQ(Acquired(tables, narrow, 1), 1);
  EXPECT_EQ(Acquired(tables, another, 1), 2);
  EXPECT_EQ(Acquire(tables, third), std::nullopt);  // needs twice the rows
  const int64_t given_up = tables.given_up();
  Release(tables, 2);
  EXPECT_EQ(Acquire(tables, wide), std::nullopt);  // makes everybody's rows wider
  EXPECT_EQ(tables.live_rows(), 1);
  EXPECT_EQ(tables.bytes(), unbounded.bytes());
  EXPECT_EQ(tables.given_up(), given_up + 1);
  EXPECT_EQ(Acquired(tables, third, 1), 2);
}

TEST_F(InterventionTable, WhatIsDoneAlikeHasOneRowUntilItsLastHolderIsGone) {
  const auto one = Compile({Add(Site::kResidualPost, {0}, {1, 2, 3, 4})});
  const auto same = Compile({Add(Site::kResidualPost, {0}, {1, 2, 3, 4})});
  const auto other = Compile({Add(Site::kResidualPost, {0}, {1, 2, 3, 5})});
  const int64_t row = Acquired(tables_, one, 1);
  const int64_t held = tables_.bytes();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(Acquired(tables_, same, 1), row);
  EXPECT_NE(Acquired(tables_, other, 1), row);
  EXPECT_EQ(tables_.live_rows(), 2);
  EXPECT_EQ(tables_.bytes(), held);
  for (int i = 0; i < 100; ++i) Release(tables_, row);
  EXPECT_EQ(Added({Site::kResidualPost, 0}, row), (std::vector<float>{1, 2, 3, 4}));
  Release(tables_, row);
  EXPECT_EQ(tables_.live_rows(), 1);
}

// The shapes of edits are all that is asked before there is memory for the edits themselves.
TEST_F(InterventionTable, WhatRowsWillTakeIsKnownBeforeTheyAreMade) {
  Intervention patch = At(Site::kResidualMid, {0, 2},
                          Replace{.rows = Rows(std::vector<float>(16, 1)), .each_position = true});
  patch.tokens = {.kind = TokenKind::kPositions, .positions = {1, 2}};
  const auto compiled =
      Compile({Add(Site::kResidualPost, {0, 1}, std::vector<float>(8, 2)), patch,
               At(Site::kResidualPost, {1},
                  ProjectOut{.directions = Rows({1, 0, 0, 0, 0, 1, 0, 0}), .num_directions = 2}),
               At(Site::kMlpNeurons, {2}, ScaleNeurons{.neurons = {{1, 3}}, .factor = 2}),
               At(Site::kResidualPost, {1}, Clamp{.rows = Rows({0, 0, 0, 3})})});
  const auto before = Compile({Add(Site::kResidualPost, {1}, {7, 7, 7, 7})});
  for (int i = 0; i < 2; ++i) {
    const int64_t expected = tables_.BytesWith(compiled);
    const auto rows = Acquire(tables_, compiled);
    ASSERT_TRUE(rows.has_value());
    EXPECT_EQ(tables_.bytes(), expected);
    while (tables_.WriteRows(1)) {
    }
    EXPECT_EQ(tables_.bytes(), expected);
    EXPECT_EQ(rows->size(), compiled.num_sets() + 1);
    EXPECT_EQ(rows->front(), 0);
    tables_.ReleaseRows(*rows);
    EXPECT_EQ(tables_.live_rows(), i);
    Acquired(tables_, before, 1);
  }
}

TEST_F(InterventionTable, TablesHoldOfTheirMemoryWhatTheyHave) {
  MemoryLedger memory(1 << 20);
  InterventionTables tables{c10::kCPU, &memory, /*keeps_addresses=*/true};
  const auto one = Compile({Add(Site::kResidualPost, {0, 2}, std::vector<float>(8, 1))});
  const auto other = Compile({Add(Site::kResidualPost, {0}, {1, 2, 3, 4})});
  for (int i = 0; i < 2; ++i) {
    const int64_t first = Acquired(tables, one, 1), second = Acquired(tables, other, 1);
    EXPECT_GT(tables.bytes(), 0);
    EXPECT_EQ(memory.used(), tables.bytes() + tables.kept_bytes());
    Release(tables, first);
    EXPECT_EQ(memory.used(), tables.bytes() + tables.kept_bytes());
    Release(tables, second);
    EXPECT_EQ(tables.bytes(), 0);
    EXPECT_EQ(memory.used(), tables.kept_bytes());
  }
}

// Four rows of one table, of which the last is nobody's, become eight.
TEST_F(InterventionTable, WhileATableIsCopiedIntoALargerOneBothArePaidFor) {
  constexpr int64_t kRow = 1 + 4 * 4;
  MemoryLedger memory(1 << 20);
  InterventionTables tables{c10::kCPU, &memory};
  const auto with = [&](float x) {
    return Compile({Add(Site::kResidualPost, {0, 1}, {x, 0, 0, 0, x, 0, 0, 0})});
  };
  const int64_t first = Acquired(tables, with(1), 1);
  Acquired(tables, with(2), 1);
  EXPECT_EQ(memory.used(), 2 * 4 * kRow);
  const auto rows = Acquire(tables, with(3));
  ASSERT_TRUE(rows.has_value());
  // The tables of two blocks grow one after the other.
  EXPECT_EQ(memory.used(), 2 * 8 * kRow + 4 * kRow);
  ASSERT_TRUE(tables.WriteRows(1));
  EXPECT_EQ(memory.used(), 2 * 8 * kRow + 4 * kRow);
  ASSERT_FALSE(tables.WriteRows(1));
  EXPECT_EQ(memory.used(), 2 * 8 * kRow);
  Release(tables, first);
  EXPECT_EQ(memory.used(), tables.bytes());
}

TEST_F(InterventionTable, WhoFindsNoRoomBesideATableThatIsBeingReplacedMayTryAgainOnceItIs) {
  constexpr int64_t kRow = 1 + 4 * 4;
  const auto with = [&](int layer, float x) {
    return Compile({Add(Site::kResidualPost, {layer}, {x, 0, 0, 0})});
  };
  MemoryLedger memory((8 + 8 + 4) * kRow - 1);  // row 4 asks for eight rows of its table too
  InterventionTables tables{c10::kCPU, &memory};
  const int64_t first = Acquired(tables, with(0, 1), 1);
  Acquired(tables, with(0, 2), 1);
  const auto growing = Acquire(tables, with(0, 3));
  ASSERT_TRUE(growing.has_value());
  const int64_t given_up = tables.given_up();
  EXPECT_EQ(Acquire(tables, with(1, 1)), std::nullopt);
  EXPECT_EQ(tables.given_up(), given_up);
  ASSERT_FALSE(tables.WriteRows(1));
  EXPECT_GT(tables.given_up(), given_up);
  const int64_t other = Acquired(tables, with(1, 1), 1);
  EXPECT_GT(other, 0);
  EXPECT_EQ(memory.used(), tables.bytes());
  Release(tables, first);
  Release(tables, other);
}

// Nobody who leaves the tables needs to make room, so to wait for that could be to wait for ever.
TEST_F(InterventionTable, WhereThePlaceIsFullARequestHearsItInsteadOfWaiting) {
  MemoryLedger place(1000);
  MemoryLedger memory({.capacity = 1000, .full = "INTERVENTION_MEMORY_FULL"}, &place);
  InterventionTables tables{c10::kCPU, &memory};
  const auto one = Compile({Add(Site::kResidualPost, {0}, {1, 2, 3, 4})});
  auto others = *place.Take(990);
  const absl::Status refused = tables.AcquireRows(one).status();
  EXPECT_EQ(DetailsOf(refused).reason, "INTERVENTION_MEMORY_FULL") << refused;
  EXPECT_TRUE(DetailsOf(refused).retry_after.has_value());
  EXPECT_EQ(tables.live_rows(), 0);
  EXPECT_EQ(place.used(), 990);
  others = nullptr;
  EXPECT_GT(Acquired(tables, one, 1), 0);
  EXPECT_EQ(place.used(), tables.bytes());
}

TEST_F(InterventionTable, RowsAreWrittenATableAtATimeAndAreNobodysUntilThen) {
  const auto others = Compile({Add(Site::kResidualPost, {1}, {5, 5, 5, 5})});
  const int64_t other = Acquired(tables_, others, 1);
  const auto compiled =
      Compile({Add(Site::kResidualPost, {0, 1, 2}, {1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3}),
               At(Site::kResidualPost, {1}, Clamp{.rows = Rows({0, 1, 0, 0}), .value = 7})});
  const auto rows = Acquire(tables_, compiled);
  ASSERT_TRUE(rows.has_value());
  int written = 0;
  for (bool more = true; more; ++written) {
    EXPECT_FALSE(tables_.Written(*rows));
    EXPECT_TRUE(tables_.AwaitsNextWrite(*rows));
    EXPECT_FALSE(tables_.AwaitsNextWrite(std::vector<int64_t>{other}));
    EXPECT_TRUE(tables_.Written(std::vector<int64_t>{0, other}));
    more = tables_.WriteRows(1);
    EXPECT_EQ(Added({Site::kResidualPost, 1}, other), (std::vector<float>{5, 5, 5, 5}));
  }
  EXPECT_EQ(written, 4);
  EXPECT_TRUE(tables_.Written(*rows));
  EXPECT_FALSE(tables_.AwaitsNextWrite(*rows));
  const int64_t row = (*rows)[1];
  EXPECT_EQ(Added({Site::kResidualPost, 0}, row), (std::vector<float>{1, 1, 1, 1}));
  EXPECT_EQ(Added({Site::kResidualPost, 1}, row), (std::vector<float>{2, 7, 2, 2}));
  EXPECT_EQ(Added({Site::kResidualPost, 2}, row), (std::vector<float>{3, 3, 3, 3}));
}

TEST_F(InterventionTable, RowsThatAreGivenBackUnwrittenLeaveNothing) {
  const auto kept = Compile({Add(Site::kResidualPost, {1}, {5, 5, 5, 5})});
  const int64_t other = Acquired(tables_, kept, 1);
  const int64_t held = tables_.bytes();
  const auto compiled =
      Compile({Add(Site::kResidualPost, {0, 1}, {1, 1, 1, 1, 2, 2, 2, 2}),
               At(Site::kResidualPost, {2}, Clamp{.rows = Rows({0, 1, 0, 0}), .value = 7})});
  for (int written = 0; written < 3; ++written) {
    const auto rows = Acquire(tables_, compiled);
    ASSERT_TRUE(rows.has_value());
    for (int i = 0; i < written; ++i) EXPECT_TRUE(tables_.WriteRows(1));
    tables_.ReleaseRows(*rows);
    EXPECT_TRUE(tables_.AllWritten());
    EXPECT_EQ(tables_.bytes(), held);
    EXPECT_EQ(tables_.live_rows(), 1);
    EXPECT_EQ(TouchedWires(), 1);
    EXPECT_EQ(Added({Site::kResidualPost, 1}, (*rows)[1]), kNothing);
    EXPECT_EQ(Added({Site::kResidualPost, 1}, other), (std::vector<float>{5, 5, 5, 5}));
  }
}

TEST_F(InterventionTable, WhoSharesARowWaitsForItToo) {
  const auto one = Compile({Add(Site::kResidualPost, {0}, {1, 2, 3, 4})});
  const auto same = Compile({Add(Site::kResidualPost, {0}, {1, 2, 3, 4})});
  const auto first = Acquire(tables_, one), second = Acquire(tables_, same);
  ASSERT_TRUE(first.has_value() && second.has_value());
  EXPECT_EQ(*first, *second);
  EXPECT_FALSE(tables_.Written(*second));
  // Who asked first may go; what is written is the other's as well.
  tables_.ReleaseRows(*first);
  EXPECT_FALSE(tables_.WriteRows(1));
  EXPECT_TRUE(tables_.Written(*second));
  EXPECT_EQ(Added({Site::kResidualPost, 0}, (*second)[1]), (std::vector<float>{1, 2, 3, 4}));
}

// However many of its requests there are, and however long they are.
TEST_F(InterventionTable, ACallIsLoweredOnce) {
  const auto prepared = PreparedInterventions::Prepare(
      {Add(Site::kResidualPost, {0, 2}, {1, 2, 3, 4, 5, 6, 7, 8}, 2)}, small_);
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  SequenceExtent longer = kExtent;
  longer.most += 1;
  const auto one = (*prepared)->For(kExtent), other = (*prepared)->For(longer);
  ASSERT_TRUE(one.ok() && other.ok());
  EXPECT_NE(one->get(), other->get());
  const std::vector<WireEdit> edits = (*one)->EditsOf(1), others = (*other)->EditsOf(1);
  ASSERT_EQ(edits.size(), 2u);
  ASSERT_EQ(others.size(), 2u);
  for (size_t i = 0; i < edits.size(); ++i) EXPECT_EQ(edits[i].stage, others[i].stage);
  EXPECT_EQ((*prepared)->bytes(), 1 + 8 * 4);  // the activity of its rows, and these
}

TEST_F(InterventionTable, WhatIsUnwrittenKeepsTheMemoryThatPaidForIt) {
  MemoryLedger memory(1000);
  auto prepared = PreparedInterventions::Prepare({Add(Site::kResidualPost, {0}, {1, 2, 3, 4}, 2)},
                                                 small_, *memory.Take(500));
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  const int64_t needed = (*prepared)->bytes();
  EXPECT_EQ(memory.used(), needed);
  auto compiled = (*prepared)->For(kExtent);
  ASSERT_TRUE(compiled.ok());
  const auto rows = Acquire(tables_, **compiled);
  ASSERT_TRUE(rows.has_value());
  *compiled = nullptr;
  *prepared = nullptr;
  EXPECT_EQ(memory.used(), needed);
  EXPECT_FALSE(tables_.WriteRows(1));
  EXPECT_EQ(memory.used(), 0);
  EXPECT_EQ(Added({Site::kResidualPost, 0}, (*rows)[1]), (std::vector<float>{2, 4, 6, 8}));
}

// Fails the allocation it is told to.
class FailingAllocator : public c10::Allocator {
 public:
  explicit FailingAllocator(int countdown) : countdown_(countdown) {
    c10::SetCPUAllocator(this, /*priority=*/100);
  }
  ~FailingAllocator() override { c10::SetCPUAllocator(real_, /*priority=*/100); }
  c10::DataPtr allocate(size_t bytes) override {
    if (countdown_-- == 0) throw std::bad_alloc();
    return real_->allocate(bytes);
  }
  void copy_data(void* to, const void* from, size_t count) const override {
    real_->copy_data(to, from, count);
  }
  bool struck() const { return countdown_ < 0; }

 private:
  c10::Allocator* const real_ = c10::GetCPUAllocator();
  int countdown_;
};

TEST_F(InterventionTable, WhereverMemoryEndsARowIsThereWholeOrNotAtAll) {
  for (int i = 0; i < 3; ++i) {
    const float value = static_cast<float>(i);
    Acquired(tables_, Compile({Add(Site::kResidualPost, {0, 1}, {value, 2, 3, 4, 5, 6, 7, 8})}), 1);
  }
  const auto one =
      Compile({Add(Site::kResidualPost, {0, 1}, {9, 9, 9, 9, 8, 8, 8, 8}),
               At(Site::kResidualPost, {1}, Clamp{.rows = Rows({0, 1, 0, 0})}),
               At(Site::kMlpNeurons, {2}, ScaleNeurons{.neurons = {{1}}, .factor = 2})});
  const int64_t held = tables_.bytes();
  int failures = 0;
  for (bool struck = true; struck; ++failures) {
    int64_t row = 0;
    {
      FailingAllocator allocator(failures);
      try {
        row = Acquired(tables_, one, 1);
      } catch (const std::bad_alloc&) {
      }
      struck = allocator.struck();
    }
    ASSERT_EQ(row != 0, !struck);
    if (!struck) break;
    ASSERT_EQ(tables_.live_rows(), 3);
    ASSERT_EQ(Added({Site::kResidualPost, 0}, 4), kNothing) << failures;
    ASSERT_EQ(Added({Site::kResidualPost, 1}, 4), kNothing) << failures;
    for (int64_t other = 1; other <= 3; ++other) {
      ASSERT_EQ(Added({Site::kResidualPost, 1}, other), (std::vector<float>{5, 6, 7, 8}));
    }
    ASSERT_EQ(NumStages({Site::kMlpNeurons, 2}), 0u);
  }
  EXPECT_GT(failures, 5);
  EXPECT_GT(tables_.bytes(), held);
  EXPECT_EQ(Added({Site::kResidualPost, 0}, 4), (std::vector<float>{9, 9, 9, 9}));
}

TEST_F(InterventionTable, EditsOfARequestAreCounted) {
  // 255 sets of up to 8 interventions on 3 layers are fine, 60 interventions are not.
  const auto scattered = [](int count) {
    std::vector<Intervention> interventions;
    for (int i = 0; i < count; ++i) {
      Intervention one = Add(Site::kResidualPost, {0, 1, 2}, std::vector<float>(12, 1));
      one.tokens = {.kind = TokenKind::kPositions, .positions = {}};
      for (int64_t p = 0; p < 255; ++p) {
        if (((p + 1) >> (i % 8)) & 1) one.tokens.positions.push_back(p);
      }
      interventions.push_back(std::move(one));
    }
    return interventions;
  };
  const SequenceExtent extent{.prompt = 255, .most = 300, .generates = true};
  const auto fits = CompiledInterventions::Compile(scattered(8), extent, small_);
  ASSERT_TRUE(fits.ok()) << fits.status();
  EXPECT_EQ(fits->num_sets(), 255u);
  const auto refused = CompiledInterventions::Compile(scattered(60), extent, small_).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DetailsOf(refused).field, "interventions");
}

TEST_F(InterventionTable, DigestsNameWhatIsDoneAndNothingElse) {
  const auto digest = [&](std::vector<Intervention> interventions) {
    const auto compiled = Compile(std::move(interventions));
    return compiled.ContentDigest(compiled.ActiveAt(0));
  };
  const Intervention base = Add(Site::kResidualPost, {0, 1}, {1, 2, 3, 4, 5, 6, 7, 8}, 2);
  const std::string name = digest({base});
  EXPECT_EQ(name.size(), 64u);
  EXPECT_EQ(digest({base}), name);
  // What changes no bit is no part of it, nor is the scope.
  EXPECT_EQ(digest({base, Add(Site::kResidualMid, {0}, {1, 1, 1, 1}, 0)}), name);
  Intervention scoped = base;
  scoped.tokens = {.kind = TokenKind::kPrompt, .positions = {}};
  EXPECT_EQ(digest({scoped}), name);
  std::set<std::string> seen{name};
  const auto differs = [&](std::vector<Intervention> interventions) {
    EXPECT_TRUE(seen.insert(digest(std::move(interventions))).second);
  };
  differs({Add(Site::kResidualMid, {0, 1}, {1, 2, 3, 4, 5, 6, 7, 8}, 2)});
  differs({Add(Site::kResidualPost, {0, 2}, {1, 2, 3, 4, 5, 6, 7, 8}, 2)});
  differs({Add(Site::kResidualPost, {0, 1}, {1, 2, 3, 4, 5, 6, 7, 9}, 2)});
  differs({Add(Site::kResidualPost, {0, 1}, {1, 2, 3, 4, 5, 6, 7, 8}, 3)});
  differs({base, base});
  Intervention preserving = base;
  preserving.preserve_norm = true;
  differs({preserving});
  differs({base, preserving});
  differs({preserving, base});
  const auto rows = Rows({1, 2, 3, 4, 5, 6, 7, 8});
  differs({At(Site::kResidualPost, {0, 1}, Clamp{.rows = rows, .value = 2})});
  differs({At(Site::kResidualPost, {0, 1}, Replace{.rows = rows})});
  differs({At(Site::kResidualPost, {0, 1}, ProjectOut{.directions = rows})});
  differs({At(Site::kMlpNeurons, {0}, ScaleNeurons{.neurons = {{1}}, .factor = 0})});
  differs({At(Site::kMlpNeurons, {0}, AblateNeurons{.neurons = {{1}}, .means = nullptr})});
}

TEST_F(InterventionTable, KnowsWhichInterventionsActOnAToken) {
  Intervention prompt = Add(Site::kResidualPost, {0}, {1, 1, 1, 1});
  prompt.tokens = {.kind = TokenKind::kPrompt, .positions = {}};
  Intervention answer = Add(Site::kResidualPost, {0}, {1, 1, 1, 1});
  answer.tokens = {.kind = TokenKind::kFromLastPrompt, .positions = {}};
  const auto compiled = Compile({prompt, answer});
  const auto acting = [&](int64_t position) {
    return std::pair(compiled.Acts(compiled.ActiveAt(position), 0),
                     compiled.Acts(compiled.ActiveAt(position), 1));
  };
  EXPECT_EQ(acting(0), std::pair(true, false));
  EXPECT_EQ(acting(3), std::pair(true, true));
  EXPECT_EQ(acting(4), std::pair(false, true));
  EXPECT_EQ(acting(1000), std::pair(false, true));
  EXPECT_EQ(compiled.ActiveAt(0), compiled.ActiveAt(2));
}

TEST_F(InterventionTable, RefusesMoreDistinctSetsThanItsMost) {
  const auto at_positions = [](int64_t count) {
    Intervention patch =
        At(Site::kResidualPost, {0},
           Replace{.rows = Rows(std::vector<float>(4 * count, 1)), .each_position = true});
    patch.tokens.kind = TokenKind::kPositions;
    for (int64_t position = 0; position < count; ++position) {
      patch.tokens.positions.push_back(position);
    }
    return patch;
  };
  const SequenceExtent extent{.prompt = 300, .most = 310, .generates = true};
  EXPECT_TRUE(CompiledInterventions::Compile({at_positions(256)}, extent, small_).ok());
  const absl::Status refused =
      CompiledInterventions::Compile({at_positions(257)}, extent, small_).status();
  EXPECT_EQ(DetailsOf(refused).field, "interventions");
  EXPECT_NE(refused.message().find("256"), std::string::npos);
}

TEST_F(InterventionTable, RefusesMoreThanItsMostInterventions) {
  const Intervention one = Add(Site::kResidualPost, {0}, {1, 1, 1, 1});
  const auto compiled = Compile(std::vector<Intervention>(64, one));
  EXPECT_EQ(Added({Site::kResidualPost, 0}, Acquired(tables_, compiled, compiled.ActiveAt(0))),
            (std::vector<float>{64, 64, 64, 64}));
  EXPECT_EQ(FieldRefused(std::vector<Intervention>(65, one)), "interventions");
}

TEST_F(InterventionTable, NamesTheFieldOfEveryOperationThatIsWrong) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto refused = [&](Site site, Operation operation) {
    return FieldRefused({At(site, {0}, std::move(operation))});
  };
  const SharedFloats axis = Rows({1, 0, 0, 0}), zero = Rows({0, 0, 0, 0}), shorter = Rows({1});
  EXPECT_EQ(refused(Site::kResidualPost, ProjectOut{.directions = zero}),
            "interventions[0].project_out");
  EXPECT_EQ(refused(Site::kResidualPost, ProjectOut{.directions = shorter}),
            "interventions[0].project_out.tensor");
  for (const float strength : {-0.1f, 1.1f, nan}) {
    EXPECT_EQ(refused(Site::kResidualPost,
                      ProjectOut{.directions = axis, .num_directions = 1, .strength = strength}),
              "interventions[0].project_out.strength");
  }
  EXPECT_EQ(refused(Site::kResidualPost, Clamp{.rows = zero, .value = 1}),
            "interventions[0].clamp");
  EXPECT_EQ(refused(Site::kResidualPost, Clamp{.rows = axis, .value = nan}),
            "interventions[0].clamp.value");
  EXPECT_EQ(refused(Site::kResidualPost, Clamp{.rows = Rows({1, nan, 0, 0}), .value = 1}),
            "interventions[0].clamp.tensor");
  EXPECT_EQ(refused(Site::kResidualPost, ScaleNeurons{.neurons = {{0}}, .factor = 2}),
            "interventions[0].site");
  const std::string neurons = "interventions[0].scale_neurons.neurons";
  EXPECT_EQ(refused(Site::kMlpNeurons, ScaleNeurons{.neurons = {{6}}, .factor = 2}), neurons);
  EXPECT_EQ(refused(Site::kMlpNeurons, ScaleNeurons{.neurons = {{-1}}, .factor = 2}), neurons);
  EXPECT_EQ(refused(Site::kMlpNeurons, ScaleNeurons{.neurons = {{1, 1}}, .factor = 2}), neurons);
  EXPECT_EQ(refused(Site::kMlpNeurons, ScaleNeurons{.neurons = {{}}, .factor = 2}), neurons);
  EXPECT_EQ(refused(Site::kAttentionHeads, ScaleNeurons{.neurons = {{2}}, .factor = 2}), neurons);
  EXPECT_EQ(refused(Site::kMlpNeurons, ScaleNeurons{.neurons = {{1}}, .factor = nan}),
            "interventions[0].scale_neurons.factor");
  EXPECT_EQ(refused(Site::kMlpNeurons, AblateNeurons{.neurons = {{1}}, .means = axis}),
            "interventions[0].ablate_neurons.reference");
  EXPECT_EQ(refused(Site::kResidualPost, Replace{.rows = nullptr}),
            "interventions[0].replace.tensor");
  EXPECT_EQ(refused(Site::kResidualPost, Replace{.rows = axis, .each_position = true}),
            "interventions[0].replace.tensor");
  const absl::Status nothing =
      CompiledInterventions::Compile(
          {At(Site::kMlpNeurons, {0}, AblateNeurons{.neurons = {{}}, .means = nullptr})}, kExtent,
          small_)
          .status();
  EXPECT_EQ(DetailsOf(nothing).reason, "INTERVENTION_TOUCHES_NOTHING");
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
  without_rows.operation = AddVector();
  EXPECT_EQ(FieldRefused({without_rows}), "interventions[0].add.tensor");

  Intervention elsewhere = good;
  elsewhere.tokens = {.kind = TokenKind::kPositions, .positions = {0, 40}};
  EXPECT_EQ(FieldRefused({elsewhere}), "interventions[0].tokens.positions[1]");
}

}  // namespace
}  // namespace valuescope::engine
