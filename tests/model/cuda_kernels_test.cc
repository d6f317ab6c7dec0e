// What a GPU runs, held against the plain references: on a CPU by default, on a GPU where there is
// one (test_device.h). And what it promises of company: a token's bits are the same alone, beside
// others, and in longer tables.
#include "model/cuda_kernels.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>

#include "model/linear.h"
#include "model/reference.h"
#include "model/step.h"
#include "tests/model/forward_harness.h"
#include "tests/model/test_device.h"

namespace valuescope::model {
namespace {

// float32 rounding over sums of some hundred terms; a GPU's matrix units add in another order.
constexpr double kTolerance = 5e-6;

double ToleranceOf(at::ScalarType type) {
  if (type == at::kFloat) return kTolerance;
  return type == at::kHalf ? 1e-3 : 8e-3;
}

struct Heads {
  int64_t num_heads, num_kv_heads, head_dim;
};

struct Scores {
  double scale = 1, soft_cap = 0;
  int64_t window = 0;
};

const Heads kHeads[] = {{9, 3, 64}, {6, 2, 10}, {5, 1, 6}, {4, 4, 8}, {4, 1, 34}, {8, 2, 128}};
const Scores kScores[] = {{.scale = 0.2},
                          {.scale = 0.2, .window = 1},
                          {.scale = 0.2, .window = 17},
                          {.scale = 0.5, .soft_cap = 1.5},
                          {.scale = 0.5, .soft_cap = 1.5, .window = 9}};

// Three sequences at different places, their cache blocks scattered. What lies behind the end of
// the second one is NaN, which no other may ever see.
struct Ragged {
  Ragged(const Heads& heads, at::ScalarType type) : heads(heads) {
    const auto on_device = [&](const at::Tensor& x) { return x.to(TestDevice(), type); };
    at::Tensor host_keys = at::randn({12, 16, heads.num_kv_heads, heads.head_dim});
    at::Tensor host_values = at::randn_like(host_keys);
    for (at::Tensor* part : {&host_keys, &host_values}) {
      (*part)[3].fill_(std::numeric_limits<float>::quiet_NaN());
      (*part)[1][9].fill_(std::numeric_limits<float>::quiet_NaN());
    }
    keys = on_device(host_keys);
    values = on_device(host_values);
    const auto index = at::TensorOptions().dtype(at::kLong);
    tables =
        at::tensor({7, 2, 9, 0, 4, 11, 1, 3, 5, 8, 6, 10}, index).view({3, 4}).to(TestDevice());
    sequences = at::tensor({0, 0, 0, 1, 2, 2}, index).to(TestDevice());
    positions = at::tensor({15, 16, 17, 40, 0, 1}, index).to(TestDevice());
    qkv = on_device(at::randn({6, (heads.num_heads + 2 * heads.num_kv_heads) * heads.head_dim}));
  }

  // Of the tokens `chosen`, over tables of `blocks` columns (the first ones, or repeated).
  at::Tensor Attend(const std::vector<int64_t>& chosen, int64_t most_tokens, const Scores& scores,
                    bool batch_invariant, int64_t blocks = 4) const {
    const at::Tensor places = at::tensor(chosen, at::kLong).to(TestDevice());
    const at::Tensor its_sequences = sequences.index_select(0, places);
    const at::Tensor its_positions = positions.index_select(0, places);
    const at::Tensor its_tables = tables.repeat({1, (blocks + 3) / 4}).narrow(1, 0, blocks);
    const auto plan = cuda::PlanAttention(its_sequences, its_positions, its_tables, keys,
                                          most_tokens, heads.num_heads / heads.num_kv_heads,
                                          scores.soft_cap, scores.window, batch_invariant);
    return cuda::Attention(qkv.index_select(0, places), keys, values, its_sequences, its_positions,
                           its_tables, plan, most_tokens, heads.num_heads, heads.num_kv_heads,
                           heads.head_dim, scores.scale, scores.soft_cap, scores.window,
                           batch_invariant);
  }

  at::Tensor Expected(const std::vector<int64_t>& chosen, const Scores& scores) const {
    const at::Tensor places = at::tensor(chosen, at::kLong);
    const auto on_host = [&](const at::Tensor& x) { return x.cpu().index_select(0, places); };
    return reference::Attention(on_host(qkv).to(at::kFloat), keys.cpu().to(at::kFloat),
                                values.cpu().to(at::kFloat), on_host(sequences), on_host(positions),
                                tables.cpu(), heads.num_heads, heads.num_kv_heads, heads.head_dim,
                                scores.scale, scores.soft_cap, scores.window);
  }

  Heads heads;
  at::Tensor qkv, keys, values, sequences, positions, tables;
};

class CudaKernels : public ::testing::Test {
 protected:
  void SetUp() override {
    TestDevice();
    at::manual_seed(21);
  }
  static at::Tensor Random(at::IntArrayRef shape, at::ScalarType type = at::kFloat) {
    return at::randn(shape).to(TestDevice(), type);
  }
  static at::Tensor Indices(const std::vector<int64_t>& values) {
    return at::tensor(values, at::kLong).to(TestDevice());
  }
};

TEST_F(CudaKernels, NormsEqualTheirReferencesWithWeightsOfEitherType) {
  for (const at::ScalarType type : kTypes) {
    for (const at::ScalarType weight_type : {type, at::kFloat}) {
      for (const int64_t width : {33, 48, 576}) {
        const at::Tensor x = Random({7, width}, type) * 3, weight = Random({width}, weight_type);
        const at::Tensor normed = cuda::RmsNorm(x, weight, 1e-5);
        EXPECT_EQ(normed.scalar_type(), type);
        EXPECT_LT(RelativeError(normed.cpu(), reference::RmsNorm(x.cpu(), weight.cpu(), 1e-5)),
                  ToleranceOf(type));
        EXPECT_TRUE(cuda::RmsNorm(x.narrow(0, 3, 1), weight, 1e-5)[0].equal(normed[3]));
      }
    }
  }
}

TEST_F(CudaKernels, HeadNormsEqualTheirReferenceAndLeaveValuesAlone) {
  at::Tensor fast = Random({7, 80}) * 2;
  const at::Tensor before = fast.clone(), query = Random({10}), key = Random({10});
  at::Tensor plain = fast.cpu();
  cuda::NormHeads(fast, query, key, 1e-5, 4, 2, 10);
  reference::NormHeads(plain, query.cpu(), key.cpu(), 1e-5, 4, 2, 10);
  EXPECT_LT(RelativeError(fast.cpu(), plain), kTolerance);
  EXPECT_TRUE(fast.narrow(1, 60, 20).equal(before.narrow(1, 60, 20)));
}

TEST_F(CudaKernels, RotationEqualsItsReferenceAndFillsTheCache) {
  for (const at::ScalarType type : kTypes) {
    at::Tensor fast = Random({5, 80}, type), plain = fast.cpu().clone();  // 4 + 2 x 2 heads of 10
    const at::Tensor cosines = Random({5, 5}, type), sines = Random({5, 5}, type);
    const at::Tensor slots = Indices({40, 3, 17, 0, 63});
    at::Tensor keys = Random({4, 16, 2, 10}, type), values = Random({4, 16, 2, 10}, type);
    at::Tensor plain_keys = keys.cpu().clone(), plain_values = values.cpu().clone();
    cuda::RotateAndCache(fast, cosines, sines, slots, keys, values, 4, 2, 10);
    reference::RotateAndCache(plain, cosines.cpu(), sines.cpu(), slots.cpu(), plain_keys,
                              plain_values, 4, 2, 10);
    EXPECT_LT(RelativeError(fast.cpu(), plain), ToleranceOf(type));
    EXPECT_LT(RelativeError(keys.cpu(), plain_keys), ToleranceOf(type));
    EXPECT_TRUE(values.cpu().equal(plain_values));
  }
}

// Prompts and decoded tokens together, decoded tokens alone, in any order of sequences, and a
// sequence that rests.
TEST_F(CudaKernels, AttentionEqualsItsReference) {
  const std::pair<std::vector<int64_t>, int64_t> steps[] = {
      {{0, 1, 2, 3, 4, 5}, 3}, {{4, 5, 3, 0, 1, 2}, 5}, {{2, 3, 5}, 1}, {{0, 1, 4}, 2}};
  for (const at::ScalarType type : kTypes) {
    for (const Heads& heads : kHeads) {
      const Ragged r(heads, type);
      for (const Scores& scores : kScores) {
        for (const auto& [chosen, most_tokens] : steps) {
          for (const bool batch_invariant : {false, true}) {
            EXPECT_LT(RelativeError(r.Attend(chosen, most_tokens, scores, batch_invariant).cpu(),
                                    r.Expected(chosen, scores)),
                      ToleranceOf(type))
                << type << ", head_dim " << heads.head_dim << ", window " << scores.window;
          }
        }
      }
    }
  }
}

TEST_F(CudaKernels, InvariantAttentionGivesATokenTheSameBitsInAnyCompany) {
  for (const at::ScalarType type : kTypes) {
    for (const Heads& heads : kHeads) {
      const Ragged r(heads, type);
      for (const Scores& scores : kScores) {
        const at::Tensor all = r.Attend({0, 1, 2, 3, 4, 5}, 3, scores, /*batch_invariant=*/true);
        for (int64_t t = 0; t < 6; ++t) {
          EXPECT_TRUE(r.Attend({t}, 1, scores, true)[0].equal(all[t])) << "token " << t;
        }
        // Tables for longer sequences, and room for more tokens of one.
        EXPECT_TRUE(r.Attend({3, 2, 5}, 1, scores, true, /*blocks=*/40)[0].equal(all[3]));
        EXPECT_TRUE(r.Attend({0, 1, 2, 3, 4, 5}, 64, scores, true, /*blocks=*/17).equal(all));
      }
    }
  }
}

// --- Edits
// ----------------------------------------------------------------------------------------

at::Tensor SomeActivity() {
  return at::tensor({int{kInactive}, int{kActs}, int{kPreservesNorm}}, at::kByte).to(TestDevice());
}

// Tokens of rows 0 .. 2 and beyond the table, more of them than one block of rows.
at::Tensor SomeRows(int64_t count) {
  return (at::arange(count, at::kLong) * 7 % 4).to(TestDevice());
}

template <typename Edit, typename Reference>
void ExpectEditsAsItsReferenceInAnyCompany(Edit edit, Reference reference) {
  for (const at::ScalarType type : kTypes) {
    const at::Tensor x = at::randn({130, 96}).to(TestDevice(), type), rows = SomeRows(130);
    at::Tensor edited = x.clone();
    edit(edited, rows);
    EXPECT_LT(RelativeError(edited.cpu(), reference(x, rows).cpu()), ToleranceOf(type));
    for (const int64_t t : {0, 1, 2, 3, 65, 129}) {
      at::Tensor alone = x.narrow(0, t, 1).clone();
      edit(alone, rows.narrow(0, t, 1));
      EXPECT_TRUE(alone[0].equal(edited[t])) << "token " << t;
    }
  }
}

TEST_F(CudaKernels, AdditionEditsAsItsReference) {
  const at::Tensor active = SomeActivity(), rows = Random({3, 96});
  ExpectEditsAsItsReferenceInAnyCompany(
      [&](at::Tensor& x, const at::Tensor& chosen) {
        cuda::AddRows(x, active, rows, chosen, /*only_adds=*/false);
      },
      [&](const at::Tensor& x, const at::Tensor& chosen) {
        return reference::Added(x, active, rows, chosen);
      });
}

TEST_F(CudaKernels, RowsThatOnlyAddEditAsTheirReferenceAndLeaveOthersTheirBits) {
  const at::Tensor active =
      at::tensor({int{kInactive}, int{kActs}, int{kInactive}}, at::kByte).to(TestDevice());
  const at::Tensor rows = Random({3, 96});
  for (const int64_t inactive : {0, 2}) rows[inactive].fill_(-0.0f);
  ExpectEditsAsItsReferenceInAnyCompany(
      [&](at::Tensor& x, const at::Tensor& chosen) {
        cuda::AddRows(x, active, rows, chosen, /*only_adds=*/true);
      },
      [&](const at::Tensor& x, const at::Tensor& chosen) {
        return reference::Added(x, active, rows, chosen);
      });
  for (const at::ScalarType type : kTypes) {
    at::Tensor x =
        at::tensor({-0.0f, 0.0f, 1.0f}).view({3, 1}).expand({3, 96}).to(TestDevice(), type);
    at::Tensor edited = x.clone();
    cuda::AddRows(edited, active, rows, Indices({0, 2, 7}), /*only_adds=*/true);
    EXPECT_TRUE(edited.equal(x));
    EXPECT_TRUE(edited.cpu().signbit().equal(x.cpu().signbit()));
  }
}

TEST_F(CudaKernels, ScalingEditsAsItsReference) {
  const at::Tensor active = SomeActivity(), values = Random({3, 96});
  const at::Tensor factors = at::where(Random({3, 96}) > 0, Random({3, 96}), 0);
  ExpectEditsAsItsReferenceInAnyCompany(
      [&](at::Tensor& x, const at::Tensor& chosen) {
        cuda::ScaleOrSet(x, active, factors, values, chosen);
      },
      [&](const at::Tensor& x, const at::Tensor& chosen) {
        return reference::ScaledOrSet(x, active, factors, values, chosen);
      });
}

TEST_F(CudaKernels, ProjectionEditsAsItsReferenceWhateverOthersProject) {
  const at::Tensor active = SomeActivity(), basis = Random({3, 2, 96}) / std::sqrt(96),
                   ranks = Indices({0, 1, 2}), kept = Random({3}), targets = Random({3, 2});
  ExpectEditsAsItsReferenceInAnyCompany(
      [&](at::Tensor& x, const at::Tensor& chosen) {
        cuda::Project(x, active, basis, ranks, kept, targets, chosen);
      },
      [&](const at::Tensor& x, const at::Tensor& chosen) {
        return reference::Projected(x, active, basis, ranks, kept, targets, chosen);
      });
  // Somebody's wider table changes no bit.
  const at::Tensor x = Random({5, 96}), chosen = Indices({0, 1, 2, 1, 2});
  at::Tensor narrow = x.clone(), wide = x.clone();
  cuda::Project(narrow, active, basis, ranks, kept, targets, chosen);
  cuda::Project(wide, active, at::cat({basis, Random({3, 5, 96})}, 1), ranks, kept,
                at::cat({targets, Random({3, 5})}, 1), chosen);
  EXPECT_TRUE(narrow.equal(wide));
}

TEST_F(CudaKernels, ASumOverAResponseIsTheSameInOneStepAndInMany) {
  const at::Tensor x = Random({40, 96});
  const auto sum_in = [&](int64_t tokens_a_step) {
    at::Tensor sum = at::zeros({1, 96}, x.options().dtype(at::kDouble));
    for (int64_t first = 0; first < 40; first += tokens_a_step) {
      const int64_t count = std::min(tokens_a_step, 40 - first);
      const at::Tensor tokens = at::arange(first, first + count, at::kLong).to(TestDevice());
      cuda::TapSum(x, tokens, at::zeros_like(tokens), sum);
    }
    return sum;
  };
  const at::Tensor whole = sum_in(40);
  EXPECT_LT(RelativeError(whole.cpu(), x.cpu().to(at::kDouble).sum(0, true)), 1e-12);
  for (const int64_t tokens : {1, 3, 16, 39}) EXPECT_TRUE(sum_in(tokens).equal(whole)) << tokens;
}

TEST_F(CudaKernels, ANormOfARowIsTheSameInAnyCompany) {
  const at::Tensor x = Random({40, 97}), norms = reference::RowNorms(x);
  EXPECT_LT(RelativeError(norms.cpu(), reference::RowNorms(x.cpu())), 1e-12);
  for (const int64_t row : {0, 7, 39}) {
    EXPECT_TRUE(reference::RowNorms(x.narrow(0, row, 1)).equal(norms.narrow(0, row, 1))) << row;
  }
}

TEST_F(CudaKernels, SumsIntoSeveralRowsEqualTheirReference) {
  const at::Tensor x = Random({9, 17});
  const at::Tensor tokens = Indices({8, 1, 1, 3, 4}), rows = Indices({2, 0, 2, 2, 0});
  at::Tensor sum = at::randn({3, 17}, at::kDouble), expected = sum.clone();
  sum = sum.to(TestDevice());
  cuda::TapSum(x, tokens, rows, sum);
  reference::TapSum(x.cpu(), tokens.cpu(), rows.cpu(), expected);
  EXPECT_LT(RelativeError(sum.cpu(), expected), 1e-12);
}

TEST_F(CudaKernels, ProductsWithIndependentRowsGiveARowTheSameBitsInAnyCompany) {
  for (const at::ScalarType type : {at::kHalf, at::kBFloat16, at::kFloat}) {
    for (const auto& [in, out] : {std::pair(576, 960), std::pair(48, 112), std::pair(17, 5)}) {
      const at::Tensor weight = Random({out, in}, type), bias = Random({out}, type),
                       x = Random({200, in}, type);
      const auto linear = Linear::Create(weight, bias, Linear::Rows::kIndependent);
      const at::Tensor all = linear->Apply(x);
      const at::Tensor expected = at::linear(x.cpu().to(at::kDouble), weight.cpu().to(at::kDouble),
                                             bias.cpu().to(at::kDouble));
      EXPECT_LT(RelativeError(all.cpu(), expected), ToleranceOf(type));
      for (const int64_t rows : {1, 2, 3, 5, 16, 17, 64, 70, 129}) {
        EXPECT_TRUE(linear->Apply(x.narrow(0, 3, rows).contiguous()).equal(all.narrow(0, 3, rows)))
            << type << " " << in << " " << out << " " << rows;
      }
      EXPECT_EQ(linear->Apply(x.narrow(0, 0, 0)).sizes(), (std::vector<int64_t>{0, out}));
    }
  }
}

}  // namespace
}  // namespace valuescope::model
