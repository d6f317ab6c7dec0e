// The vectorised kernels against their plain references on random ragged shapes, and what is
// promised of row 0.
#include "model/kernels.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "model/cpu_kernels.h"
#include "model/linear.h"
#include "model/reference.h"
#include "tests/model/forward_harness.h"
#include "tests/model/some_stages.h"
#include "tests/model/tensor_bytes.h"

namespace valuescope::model {
namespace {

// float32 rounding over sums of some hundred terms.
constexpr double kTolerance = 2e-6;

// Of what is computed in float32 and rounded once, or in places twice.
double KernelTolerance(at::ScalarType type) {
  return type == at::kFloat ? kTolerance : type == at::kHalf ? 4e-4 : 3e-3;
}

class Kernels : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(20); }
};

// A weight of x's type multiplies what was rounded, a wider one does not.
TEST_F(Kernels, RmsNormEqualsItsReferenceAndRowsDoNotDependOnCompany) {
  for (const at::ScalarType type : kTypes) {
    for (const at::ScalarType weight_type : {type, at::kFloat}) {
      for (const auto& [tokens, width] :
           {std::pair(1, 48), std::pair(7, 576), std::pair(130, 33)}) {
        const at::Tensor x = (at::randn({tokens, width}) * 3).to(type);
        const at::Tensor weight = at::randn({width}).to(weight_type);
        const at::Tensor normed = RmsNorm(x, weight, 1e-5);
        EXPECT_EQ(normed.scalar_type(), type);
        EXPECT_LT(RelativeError(normed, reference::RmsNorm(x, weight, 1e-5)),
                  KernelTolerance(type));
        const int64_t last = tokens - 1;
        EXPECT_TRUE(RmsNorm(x.narrow(0, last, 1), weight, 1e-5)[0].equal(normed[last]));
      }
    }
  }
}

TEST_F(Kernels, GatesEqualTheirReferencesOverTheWholeRange) {
  const at::Tensor wide =
      at::cat({at::randn({5, 100}) * 4, at::linspace(-120, 120, 500).view({5, 100})}, 1);
  const at::Tensor extreme = at::tensor({-200.0f, 200.0f, 0.0f, 1.0f, 1.0f, 1.0f}).view({1, 6});
  for (const at::ScalarType type : kTypes) {
    for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
      const at::Tensor x = wide.to(type);
      const auto reference = [&](const at::Tensor& gate_up) {
        return reference::GateMultiply(gate_up.to(at::kFloat), static_cast<int64_t>(activation));
      };
      EXPECT_LT(RelativeError(GateMultiply(x, activation), reference(x)), KernelTolerance(type));
      const at::Tensor difference =
          GateMultiply(extreme.to(type), activation) - reference(extreme.to(type));
      EXPECT_LT(difference.abs().max().item<float>(),
                type == at::kFloat ? 1e-5 : 200 * KernelTolerance(type));
    }
  }
}

TEST_F(Kernels, SoftCapEqualsItsReferenceAndStaysBelowTheCap) {
  const at::Tensor wide =
      at::cat({at::randn({3, 50}) * 20, at::linspace(-1e4, 1e4, 150).view({3, 50})}, 1);
  for (const at::ScalarType type : kTypes) {
    at::Tensor x = wide.to(type, /*non_blocking=*/false, /*copy=*/true);
    at::Tensor expected = x.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    SoftCap(x, 30);
    reference::SoftCap(expected, 30);
    EXPECT_LT(RelativeError(x, expected), KernelTolerance(type));
    EXPECT_LE(x.abs().max().item<float>(), 30.0f);
  }
}

TEST_F(Kernels, HeadNormsEqualTheirReferenceAndLeaveValuesAlone) {
  const HeadShape heads{4, 2, 10};
  for (const at::ScalarType type : kTypes) {
    at::Tensor fast = (at::randn({7, 80}) * 2).to(type);
    const at::Tensor before = fast.clone(), query = at::randn({10}).to(type),
                     key = at::randn({10}).to(type);
    at::Tensor plain = fast.clone();
    NormHeads(fast, query, key, 1e-5, heads);
    reference::NormHeads(plain, query, key, 1e-5, 4, 2, 10);
    EXPECT_LT(RelativeError(fast, plain), KernelTolerance(type));
    EXPECT_TRUE(fast.narrow(1, 60, 20).equal(before.narrow(1, 60, 20)));
    EXPECT_FALSE(fast.narrow(1, 0, 60).equal(before.narrow(1, 0, 60)));
  }
}

struct Ragged {
  at::Tensor qkv{}, keys{}, values{}, sequences{}, positions{}, slots{}, tables{}, cosines{},
      sines{};
  HeadShape heads;

  at::Tensor Attend(const AttentionScores& scores) const {
    const StepBatch batch{
        .positions = positions, .sequences = sequences, .block_tables = tables, .most_tokens = 3};
    return Attention(qkv, keys, values, batch, PlanAttention(batch, keys, heads, scores), heads,
                     scores);
  }
};

// Three sequences at different places, their cache blocks scattered, earlier positions filled with
// random keys and values.
Ragged MakeRagged(HeadShape heads, at::ScalarType type) {
  Ragged r{.heads = heads};
  const int64_t blocks = 12;
  r.keys = KvCache::EmptyKeys(blocks, 16, heads.num_kv_heads, heads.head_dim, type);
  r.keys.normal_();
  r.values = at::randn({blocks, 16, heads.num_kv_heads, heads.head_dim}).to(type);
  r.tables = at::tensor({7, 2, 9, 0, 4, 11, 1, 3, 5, 8, 6, 10}, at::kLong).view({3, 4});
  r.sequences = at::tensor({0, 0, 0, 1, 2, 2}, at::kLong);
  r.positions = at::tensor({15, 16, 17, 40, 0, 1}, at::kLong);
  r.slots =
      r.tables.index({r.sequences, at::div(r.positions, 16, "floor")}) * 16 + r.positions % 16;
  r.qkv = at::randn({6, (heads.num_heads + 2 * heads.num_kv_heads) * heads.head_dim}).to(type);
  const at::Tensor angles = at::randn({6, heads.head_dim / 2});
  r.cosines = angles.cos().to(type);
  r.sines = angles.sin().to(type);
  return r;
}

// What attention is in float32, of whatever type its operands are.
at::Tensor WideReference(const Ragged& r, const AttentionScores& scores) {
  return reference::Attention(r.qkv.to(at::kFloat), r.keys.to(at::kFloat), r.values.to(at::kFloat),
                              r.sequences, r.positions, r.tables, r.heads.num_heads,
                              r.heads.num_kv_heads, r.heads.head_dim, scores.scale, scores.soft_cap,
                              scores.window);
}

TEST_F(Kernels, RotationAndAttentionEqualTheirReferences) {
  for (const at::ScalarType type : kTypes) {
    for (const HeadShape heads :
         {HeadShape{9, 3, 64}, HeadShape{6, 2, 10}, HeadShape{4, 4, 8}, HeadShape{4, 1, 34}}) {
      Ragged fast = MakeRagged(heads, type);
      Ragged plain = fast;
      for (at::Tensor* each : {&plain.qkv, &plain.keys, &plain.values}) *each = each->clone();
      RotateAndCache(fast.qkv, fast.cosines, fast.sines, fast.slots, fast.keys, fast.values, heads);
      reference::RotateAndCache(plain.qkv, plain.cosines, plain.sines, plain.slots, plain.keys,
                                plain.values, heads.num_heads, heads.num_kv_heads, heads.head_dim);
      EXPECT_LT(RelativeError(fast.qkv, plain.qkv), KernelTolerance(type));
      EXPECT_LT(RelativeError(fast.keys, plain.keys), KernelTolerance(type));
      EXPECT_TRUE(fast.values.equal(plain.values));
      for (const AttentionScores scores :
           {AttentionScores{.scale = 0.2}, AttentionScores{.scale = 0.5, .soft_cap = 1.5},
            AttentionScores{.scale = 0.2, .window = 1}, AttentionScores{.scale = 0.2, .window = 17},
            AttentionScores{.scale = 0.7, .soft_cap = 2, .window = 9}}) {
        const at::Tensor attended = fast.Attend(scores);
        EXPECT_EQ(attended.scalar_type(), type);
        EXPECT_LT(RelativeError(attended, WideReference(fast, scores)), KernelTolerance(type));
      }
    }
  }
}

TEST_F(Kernels, AttentionIgnoresWhatLiesBeyondASequence) {
  for (const at::ScalarType type : kTypes) {
    Ragged r = MakeRagged({9, 3, 64}, type);
    const at::Tensor before = r.Attend({.scale = 0.125});
    // second sequence: block behind position 40 is tables[1][3] = 3
    r.keys[3].fill_(std::numeric_limits<float>::quiet_NaN());
    r.values[3].fill_(std::numeric_limits<float>::quiet_NaN());
    r.keys[4] = 0;
    const at::Tensor after = r.Attend({.scale = 0.125});
    EXPECT_TRUE(after[0].equal(before[0]));
    EXPECT_TRUE(after[4].equal(before[4]));
    EXPECT_TRUE(after[3].isfinite().all().item<bool>());
  }
}

// A long run of one sequence's tokens, which go over its blocks together where they can, and two
// tokens of another sequence behind them.
class LongRun {
 public:
  static constexpr int64_t kFirst = 5, kRun = 70, kTokens = kRun + 2;

  LongRun(const HeadShape& heads, at::ScalarType type) {
    all_.heads = heads;
    all_.tables = at::randperm(2 * kBlocks, at::kLong).view({2, kBlocks});
    all_.positions = at::cat({at::arange(kFirst, kFirst + kRun, at::kLong), at::arange(2)});
    all_.sequences = (at::arange(kTokens) >= kRun).to(at::kLong);
    all_.keys = KvCache::EmptyKeys(2 * kBlocks, 16, heads.num_kv_heads, heads.head_dim, type);
    all_.keys.normal_();
    all_.values = at::randn(all_.keys.sizes()).to(type);
    const int64_t width = (heads.num_heads + 2 * heads.num_kv_heads) * heads.head_dim;
    all_.qkv = at::randn({kTokens, width}).to(type);
  }

  const Ragged& all() const { return all_; }

  at::Tensor Attend(const AttentionScores& scores, int64_t first, int64_t count) const {
    Ragged some = all_;
    for (at::Tensor* each : {&some.qkv, &some.positions, &some.sequences}) {
      *each = each->narrow(0, first, count);
    }
    return some.Attend(scores);
  }

  // With NaN wherever no token looks, and tables of blocks that are not there.
  Ragged Spoiled(int64_t window) const {
    Ragged spoiled = all_;
    for (at::Tensor* each : {&spoiled.keys, &spoiled.values, &spoiled.tables}) {
      *each = each->clone();
    }
    struct Seen {
      int64_t sequence, first_query, end;
    };
    for (const auto& [sequence, first, end] : {Seen{0, kFirst, kFirst + kRun}, Seen{1, 0, 2}}) {
      const int64_t seen = window > 0 ? first + 1 - window : 0;
      for (int64_t slot = 0; slot < 16 * kBlocks; ++slot) {
        if (slot >= seen && slot < end) continue;
        const int64_t block = all_.tables[sequence][slot / 16].item<int64_t>();
        for (const at::Tensor& cache : {spoiled.keys, spoiled.values}) {
          cache[block][slot % 16].fill_(std::numeric_limits<float>::quiet_NaN());
        }
        if (slot / 16 * 16 >= end) spoiled.tables[sequence][slot / 16] = int64_t{1} << 40;
      }
    }
    return spoiled;
  }

 private:
  static constexpr int64_t kBlocks = 6;
  Ragged all_;
};

TEST_F(Kernels, AttentionOfATokenEqualsItsReferenceAndDoesNotDependOnItsCompany) {
  for (const at::ScalarType type : kTypes) {
    for (const HeadShape heads : {HeadShape{6, 2, 64}, HeadShape{5, 1, 80}, HeadShape{2, 2, 34},
                                  HeadShape{4, 2, 130}, HeadShape{7, 1, 10}}) {
      const LongRun run(heads, type);
      for (const AttentionScores scores :
           {AttentionScores{.scale = 0.3},
            AttentionScores{.scale = 0.3, .soft_cap = 2, .window = 21},
            AttentionScores{.scale = 1, .window = 3}}) {
        const at::Tensor all = run.all().Attend(scores);
        EXPECT_LT(RelativeError(all, WideReference(run.all(), scores)), KernelTolerance(type))
            << type;
        for (int64_t t = 0; t < LongRun::kTokens; ++t) {
          EXPECT_TRUE(run.Attend(scores, t, 1)[0].equal(all[t]))
              << type << ", token " << t << " of " << heads.head_dim;
        }
        EXPECT_TRUE(run.Attend(scores, 7, 30).equal(all.narrow(0, 7, 30))) << heads.head_dim;
        EXPECT_TRUE(run.Spoiled(scores.window).Attend(scores).equal(all)) << heads.head_dim;
      }
    }
  }
}

// Also where rows before and behind it go over its block together.
TEST_F(Kernels, AValueThatIsNoNumberIsSeenOnlyByTheTokensBehindIt) {
  constexpr int64_t kPosition = LongRun::kFirst + 40;
  for (const at::ScalarType type : kTypes) {
    for (const int64_t head_dim : {64, 80, 34}) {
      const LongRun run({6, 2, head_dim}, type);
      for (const float value :
           {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
        Ragged odd = run.all();
        odd.values = odd.values.clone();
        odd.values[odd.tables[0][kPosition / 16].item<int64_t>()][kPosition % 16].fill_(value);
        const at::Tensor attended = odd.Attend({.scale = 0.3});
        const at::Tensor expected = WideReference(run.all(), {.scale = 0.3});
        const at::Tensor before = attended.narrow(0, 0, 40);
        EXPECT_LT(RelativeError(before, expected.narrow(0, 0, 40)), KernelTolerance(type)) << type;
        EXPECT_FALSE(attended.narrow(0, 40, 30).isfinite().any().item<bool>()) << type;
        EXPECT_TRUE(attended.narrow(0, 70, 2).isfinite().all().item<bool>()) << type;
      }
    }
  }
}

TEST_F(Kernels, AttentionOverALongContextTakesNoMemoryForIt) {
  constexpr int64_t kContext = 8192, kTokens = 16;
  const HeadShape heads{8, 2, 64};
  for (const at::ScalarType type : kTypes) {
    Ragged r{.heads = heads};
    r.keys = KvCache::EmptyKeys(kContext / 16, 16, heads.num_kv_heads, heads.head_dim, type);
    r.keys.zero_();
    r.values = at::ones(r.keys.sizes(), type);
    r.tables = at::arange(kContext / 16, at::kLong).view({1, -1});
    r.sequences = at::zeros({kTokens}, at::kLong);
    r.positions = at::arange(kContext - kTokens, kContext, at::kLong);
    r.qkv = at::randn({kTokens, 12 * 64}).to(type);
    for (const bool batch_invariant : {false, true}) {
      const auto bytes = std::make_shared<TensorBytes>();
      {
        const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, bytes);
        EXPECT_TRUE(
            r.Attend({.scale = 1, .batch_invariant = batch_invariant}).eq(1).all().item<bool>());
      }
      EXPECT_GE(bytes->taken(), r.qkv.nbytes() / 2) << "it counts";
      EXPECT_LE(bytes->taken(), 4 * static_cast<int64_t>(r.qkv.nbytes()))
          << type << " beside a cache of " << 2 * r.keys.nbytes();
    }
  }
}

// --- Edits
// ----------------------------------------------------------------------------------------

at::Tensor Reference(const at::Tensor& x, const AddStage& stage, const at::Tensor& rows) {
  return reference::Added(x, stage.active, stage.rows, rows);
}
at::Tensor Reference(const at::Tensor& x, const ScaleOrSetStage& stage, const at::Tensor& rows) {
  return reference::ScaledOrSet(x, stage.active, stage.factors, stage.values, rows);
}
at::Tensor Reference(const at::Tensor& x, const ProjectStage& stage, const at::Tensor& rows) {
  return reference::Projected(x, stage.active, stage.basis, stage.ranks, stage.kept, stage.targets,
                              rows);
}

class Edits : public Kernels {
 protected:
  // Kernel against reference, alone against together, and the bits of tokens nobody edits. Row 900
  // lies beyond the table.
  template <typename Stage>
  void Check(Stage (*make)(int64_t)) {
    const at::Tensor chosen = at::tensor({0, 2, 900, 1, 2, 1, 3}, at::kLong);
    for (const int64_t width : {33, 576}) {
      const Stage stage = make(width);
      for (const at::ScalarType type : kTypes) {
        at::Tensor x = at::randn({7, width}).to(type);
        x[0][0] = x[2][0] = -0.0f;
        at::Tensor fast = x.clone();
        Edit(fast, stage, chosen);
        EXPECT_EQ(fast.scalar_type(), type);
        const at::Tensor plain = Reference(x, stage, chosen);
        EXPECT_LT(RelativeError(fast, plain), type == at::kFloat ? kTolerance : 1e-2);
        EXPECT_TRUE(fast.isfinite().all().template item<bool>());
        for (const int64_t untouched : {0, 2, 6}) EXPECT_TRUE(fast[untouched].equal(x[untouched]));
        EXPECT_TRUE(std::signbit(fast[0][0].template item<float>()));
        EXPECT_TRUE(std::signbit(fast[2][0].template item<float>()));
        for (const int64_t t : {1, 3, 4, 5}) {
          EXPECT_FALSE(fast[t].equal(x[t]));
          at::Tensor alone = x.narrow(0, t, 1).clone();
          Edit(alone, stage, chosen.narrow(0, t, 1));
          EXPECT_TRUE(alone[0].equal(fast[t])) << "token " << t;
        }
        if (type != at::kFloat) continue;
        for (const int64_t t : {1, 4}) {
          EXPECT_NEAR(fast[t].norm().template item<double>(), x[t].norm().template item<double>(),
                      1e-4);
        }
      }
    }
  }
};

TEST_F(Edits, AdditionEqualsItsReference) { Check(SomeAddition); }
TEST_F(Edits, ScalingEqualsItsReference) { Check(SomeScaling); }
TEST_F(Edits, ProjectionEqualsItsReference) { Check(SomeProjection); }

TEST_F(Edits, AFactorOfZeroSetsEvenWhatIsNotFinite) {
  at::Tensor x = at::full({1, 3}, std::numeric_limits<float>::infinity());
  const ScaleOrSetStage stage{.active = at::tensor({0, 1}, at::kByte),
                              .factors = at::tensor({0.f, 0.f, 0.f, 0.f, 0.f, 1.f}).view({2, 3}),
                              .values = at::tensor({0.f, 0.f, 0.f, 5.f, 0.f, 7.f}).view({2, 3})};
  Edit(x, stage, at::tensor({1}, at::kLong));
  EXPECT_EQ(x[0][0].item<float>(), 5);
  EXPECT_EQ(x[0][1].item<float>(), 0);
  EXPECT_TRUE(std::isinf(x[0][2].item<float>()));
}

TEST_F(Edits, PreservingTheNormLeavesZeroAtZero) {
  at::Tensor x = at::tensor({3.f, 4.f, 0.f, 0.f}).view({2, 2});
  const AddStage stage{.active = at::tensor({0, 2, 2}, at::kByte),
                       .rows = at::tensor({0.f, 0.f, -3.f, -4.f, 2.f, 0.f}).view({3, 2})};
  const at::Tensor chosen = at::tensor({1, 2}, at::kLong);
  EXPECT_TRUE(Reference(x, stage, chosen).eq(0).all().item<bool>());
  Edit(x, stage, chosen);
  EXPECT_TRUE(x.eq(0).all().item<bool>());  // y = 0 stays; y of x = 0 has the norm 0
}

// More tokens than are widened at a time.
TEST_F(Kernels, TapsEqualTheirReferences) {
  const at::Tensor tokens =
      at::cat({at::tensor({8, 1, 1, 3, 4}, at::kLong), at::randint(0, 9, {50}, at::kLong)});
  const at::Tensor rows = at::cat({at::tensor({2, 0, 2, 2, 0}, at::kLong),
                                   at::ones({45}, at::kLong), at::zeros({5}, at::kLong)});
  for (const at::ScalarType type : kTypes) {
    for (const int64_t width : {17, 64, 200}) {
      const at::Tensor x = at::randn({9, width}).to(type);
      at::Tensor sum = at::randn({3, width}, at::kDouble), sum_reference = sum.clone();
      TapSum(x, tokens, rows, sum);
      reference::TapSum(x, tokens, rows, sum_reference);
      EXPECT_TRUE(sum.equal(sum_reference)) << type << " " << width;
      at::Tensor most = at::full({3, width}, -1e30f), most_reference = most.clone();
      TapMax(x, tokens, rows, most);
      reference::TapMax(x, tokens, rows, most_reference);
      EXPECT_TRUE(most.equal(most_reference)) << type << " " << width;
      const at::Tensor each = at::arange(tokens.size(0), at::kLong);
      at::Tensor copy = at::zeros({tokens.size(0), width}), copy_reference = copy.clone();
      TapCopy(x, tokens, each, copy);
      reference::TapCopy(x, tokens, each, copy_reference);
      EXPECT_TRUE(copy.equal(copy_reference)) << type << " " << width;
    }
  }
}

TEST_F(Kernels, NormTapsAddTheNormsOfTokensTheSameInOneStepAndInMany) {
  for (const at::ScalarType type : kTypes) {
    for (const int64_t width : {1, 17, 200}) {
      const at::Tensor x = at::randn({40, width}).to(type);
      const auto norms_in = [&](int64_t tokens_a_step) {
        at::Tensor sums = at::zeros({2, 1}, at::kDouble);
        for (int64_t first = 0; first < 40; first += tokens_a_step) {
          const at::Tensor tokens =
              at::arange(first, std::min<int64_t>(first + tokens_a_step, 40), at::kLong);
          TapNorm(x, tokens, tokens.remainder(2), sums);
        }
        return sums;
      };
      const at::Tensor whole = norms_in(40);
      const at::Tensor each = at::linalg_vector_norm(x.to(at::kDouble), 2, {1});
      EXPECT_LT(RelativeError(whole.squeeze(1), each.view({20, 2}).sum(0)), 1e-13) << type;
      for (const int64_t tokens : {1, 2, 7, 39}) EXPECT_TRUE(norms_in(tokens).equal(whole));
    }
  }
}

// bfloat16 keeps 8 bits, and the expected values are computed from the rounded operands.
TEST_F(Kernels, PackedProductsEqualPlainOnesAndRowsDoNotDependOnCompany) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const auto& [in, out] :
         {std::pair(576, 960), std::pair(48, 112), std::pair(1536, 576), std::pair(17, 5)}) {
      const at::Tensor weight = at::randn({out, in}).to(dtype), bias = at::randn({out}).to(dtype),
                       x = at::randn({200, in}).to(dtype);
      if (!CanPack(at::kCPU, dtype)) continue;
      const auto linear = Linear::Create(weight, bias);
      const at::Tensor all = linear->Apply(x);
      const at::Tensor expected =
          at::linear(x.to(at::kDouble), weight.to(at::kDouble), bias.to(at::kDouble));
      EXPECT_LT(RelativeError(all, expected), dtype == at::kFloat ? 1e-6 : 4e-3);
      for (const int64_t rows : {1, 2, 3, 5, 7, 16, 17, 33, 64, 70, 129}) {
        EXPECT_TRUE(linear->Apply(x.narrow(0, 3, rows).contiguous()).equal(all.narrow(0, 3, rows)))
            << dtype << " " << in << " " << out << " " << rows;
      }
      EXPECT_EQ(linear->Apply(x.narrow(0, 0, 0)).sizes(), (std::vector<int64_t>{0, out}));
    }
  }
}

// A tied embedding is there once, except that a packed product has its own.
TEST_F(Kernels, ASharedWeightIsCopiedOnlyToPackIt) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    at::Tensor weight = at::randn({92, 45}).to(dtype);
    const at::Tensor x = at::randn({3, 45}).to(dtype);
    const auto shared = Linear::Share(weight), own = Linear::Create(weight);
    const at::Tensor before = own->Apply(x);
    EXPECT_TRUE(shared->Apply(x).equal(before)) << dtype;
    weight.zero_();
    const bool packs = CanPack(at::kCPU, dtype);
    EXPECT_TRUE(shared->Apply(x).equal(packs ? before : at::zeros_like(before))) << dtype;
    EXPECT_TRUE(own->Apply(x).equal(before)) << dtype;
    EXPECT_TRUE(shared->plain().is_same(weight)) << dtype;
    EXPECT_EQ(own->plain().defined(), !packs) << dtype;
  }
}

// On processors where Linear takes another one, too. 4100 inputs are many chains, and no less
// exact.
TEST_F(Kernels, TheOwnProductEqualsPlainOnesAndRowsDoNotDependOnCompany) {
  for (const auto& [in, out] : {std::pair(576, 960), std::pair(4100, 100), std::pair(17, 5),
                                std::pair(1, 49), std::pair(641, 48)}) {
    const at::Tensor weight = at::randn({out, in}), x = at::randn({600, in});
    const at::Tensor packed = cpu::PackForProduct(weight);
    const at::Tensor all = cpu::Product(x, packed, out);
    EXPECT_LT(RelativeError(all, at::linear(x.to(at::kDouble), weight.to(at::kDouble))), 5e-7);
    for (int64_t rows = 1; rows < 600; rows += rows < 20 ? 1 : 57) {
      const at::Tensor some = cpu::Product(x.narrow(0, 3 % rows, rows).contiguous(), packed, out);
      EXPECT_TRUE(some.equal(all.narrow(0, 3 % rows, rows))) << in << " " << out << " " << rows;
    }
    const int before = at::get_num_threads();
    for (const int threads : {1, 3, 16}) {  // with more parts of rows than threads, and fewer
      at::set_num_threads(threads);
      for (const int64_t rows : {0, 30, 65, 600}) {
        const at::Tensor some = cpu::Product(x.narrow(0, 0, rows), packed, out);
        EXPECT_TRUE(some.equal(all.narrow(0, 0, rows))) << in << " " << rows << " " << threads;
      }
    }
    at::set_num_threads(before);
  }
}

// Also where a group has fewer outputs, and where not all inputs fit a thread's cache at once.
TEST_F(Kernels, TheGatedProductEqualsTwoPlainOnesAndRowsDoNotDependOnCompany) {
  for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
    for (const auto& [in, out] : {std::pair(576, 1536), std::pair(4100, 1000), std::pair(17, 5),
                                  std::pair(1700, 49), std::pair(641, 48)}) {
      const double scale = 1 / std::sqrt(in);
      const at::Tensor gate = at::randn({out, in}) * scale, up = at::randn({out, in}) * scale,
                       x = at::randn({200, in});
      const at::Tensor packed_gate = cpu::PackForProduct(gate), packed_up = cpu::PackForProduct(up);
      const auto product = [&](const at::Tensor& rows) {
        return cpu::GatedProduct(rows, packed_gate, packed_up, out,
                                 static_cast<int64_t>(activation));
      };
      const at::Tensor all = product(x);
      const at::Tensor both = at::linear(x.to(at::kDouble), at::cat({gate, up}).to(at::kDouble));
      EXPECT_LT(RelativeError(all, reference::GateMultiply(both, static_cast<int64_t>(activation))),
                1e-6)
          << in << " " << out;
      const int before = at::get_num_threads();
      for (const int threads : {1, 2, 5}) {
        at::set_num_threads(threads);
        for (const int64_t rows : {0, 1, 2, 7, 8, 30, 65, 197}) {
          EXPECT_TRUE(product(x.narrow(0, 3, rows).contiguous()).equal(all.narrow(0, 3, rows)))
              << in << " " << out << " " << rows << " " << threads;
        }
      }
      at::set_num_threads(before);
    }
  }
}

TEST_F(Kernels, AGateEqualsItsPlainFormWithAndWithoutABiasAndInEveryType) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const bool has_bias : {false, true}) {
      const at::Tensor weight = (at::randn({2 * 70, 64}) / 8).to(dtype);
      const at::Tensor bias = has_bias ? at::randn({2 * 70}).to(dtype) : at::Tensor();
      const auto gate = Gate::Create(weight, bias, Activation::kSilu);
      EXPECT_EQ(gate->Apply(at::empty({0, 64}, weight.options())).sizes(),
                (std::vector<int64_t>{0, 70}));
      const at::Tensor x = at::randn({9, 64}).to(dtype);
      const at::Tensor both =
          at::linear(x.to(at::kDouble), weight.to(at::kDouble),
                     has_bias ? std::optional(bias.to(at::kDouble)) : std::nullopt);
      const at::Tensor expected =
          reference::GateMultiply(both, static_cast<int64_t>(Activation::kSilu));
      const double most = dtype == at::kFloat ? 1e-6 : dtype == at::kHalf ? 2e-3 : 1e-2;
      EXPECT_LT(RelativeError(gate->Apply(x), expected), most) << dtype << " " << has_bias;
    }
  }
}

TEST_F(Kernels, ARowThatIsNoNumberStaysAlone) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const int64_t in : {45, 46, 64, 900}) {
      const at::Tensor weight = at::randn({92, in}).to(dtype);
      const auto linear = Linear::Create(weight);
      const auto gate = Gate::Create(weight, {}, Activation::kSilu);
      for (const int64_t rows : {2, 16, 24, 64, 100}) {
        for (const int64_t bad : {int64_t{0}, rows / 2, rows - 1}) {
          at::Tensor x = at::randn({rows, in}).to(dtype);
          x[bad].fill_(std::numeric_limits<float>::quiet_NaN());
          for (const at::Tensor& y : {linear->Apply(x), gate->Apply(x)}) {
            EXPECT_EQ(y.isnan().any(1).sum().item<int64_t>(), 1)
                << dtype << " " << in << " " << rows;
          }
        }
      }
    }
  }
}

// No other test has this shape: what was tried for it under one thread must not answer for two.
TEST_F(Kernels, RowsDoNotDependOnCompanyUnderMoreThreadsThanTheWeightWasPackedWith) {
  const int threads = at::get_num_threads();
  const at::Tensor weight = at::randn({18, 62}), x = at::randn({70, 62});
  at::set_num_threads(1);
  const auto linear = Linear::Create(weight);
  at::set_num_threads(2);
  const at::Tensor all = linear->Apply(x);
  for (const int64_t rows : {1, 5, 16}) {
    EXPECT_TRUE(linear->Apply(x.narrow(0, 0, rows).contiguous()).equal(all.narrow(0, 0, rows)))
        << rows;
  }
  at::set_num_threads(threads);
}

}  // namespace
}  // namespace valuescope::model
