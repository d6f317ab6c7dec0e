// The operators of a taped step: the bits of those that serve, and derivatives of their plain
// counterparts.
#include "model/operators.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <memory>
#include <optional>

#include "model/reference.h"
#include "tests/model/forward_harness.h"
#include "tests/model/some_stages.h"

namespace valuescope::model {
namespace {

// Of gradients that are computed in float32 and rounded to the type between operators.
double TapeTolerance(at::ScalarType type) {
  return type == at::kFloat ? 2e-6 : type == at::kHalf ? 2e-3 : 1e-2;
}

using Function = std::function<at::Tensor(const at::Tensor&)>;

class TapedOperator : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(21); }

  const Operators& taped() const { return *taped_; }

  // What gradients go through in the place of `projection`.
  void SetPlain(const Projection& projection, const at::Tensor& weight) {
    auto weights = std::make_shared<GradientWeights>();
    weights->transposed[&projection] = Linear::ShareTransposed(weight);
    tape_.weights = std::move(weights);
  }

  // `taped` gives what `serving` gives to the bit, and its derivative is that of `plain`, computed
  // in float64 from the same x.
  static void Check(const at::Tensor& x, const Function& serving, const Function& taped,
                    const Function& plain) {
    const at::Tensor leaf = x.clone().requires_grad_();
    const at::Tensor y = taped(leaf);
    EXPECT_TRUE(y.requires_grad());
    EXPECT_TRUE(y.detach().equal(serving(x))) << x.scalar_type();
    EXPECT_FALSE(taped(x).requires_grad());
    const at::Tensor wanted = at::randn(y.sizes());
    const at::Tensor wide = x.to(at::kDouble).requires_grad_();
    const at::Tensor expected = GradientsOf((plain(wide) * wanted).sum(), {wide})[0];
    const at::Tensor gradient = GradientsOf((y.to(at::kFloat) * wanted).sum(), {leaf})[0];
    EXPECT_TRUE(leaf.equal(x)) << "changed in place";
    EXPECT_LT(RelativeError(gradient, expected), TapeTolerance(x.scalar_type())) << x.scalar_type();
  }

  const c10::AutoGradMode gradients_{true};
  GradientTape tape_{.weights = std::make_shared<GradientWeights>()};
  std::unique_ptr<Operators> taped_ = TapedOperators(tape_);
};

Function InPlace(std::function<void(at::Tensor&)> change) {
  return [change = std::move(change)](const at::Tensor& x) {
    at::Tensor changed = x;
    change(changed);
    return changed;
  };
}

Function OnACopy(std::function<void(at::Tensor&)> change) {
  return [change = std::move(change)](const at::Tensor& x) {
    at::Tensor changed = x.clone();
    change(changed);
    return changed;
  };
}

std::optional<at::Tensor> Wide(const at::Tensor& bias) {
  return bias.defined() ? std::optional(bias.to(at::kDouble)) : std::nullopt;
}

TEST_F(TapedOperator, APackedProductIsDifferentiatedByItsPlainWeight) {
  for (const at::ScalarType type : kTypes) {
    for (const bool has_bias : {false, true}) {
      const at::Tensor weight = (at::randn({70, 45}) / 7).to(type);
      const at::Tensor bias = has_bias ? at::randn({70}).to(type) : at::Tensor();
      const auto linear = Linear::Create(weight, bias);
      SetPlain(*linear, weight);
      Check(
          at::randn({9, 45}).to(type), [&](const at::Tensor& x) { return linear->Apply(x); },
          [&](const at::Tensor& x) { return taped().Apply(*linear, x); },
          [&](const at::Tensor& x) { return at::linear(x, weight.to(at::kDouble), Wide(bias)); });
    }
  }
}

TEST_F(TapedOperator, AGateIsDifferentiatedByItsPlainWeight) {
  for (const at::ScalarType type : kTypes) {
    for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
      for (const bool has_bias : {false, true}) {
        const at::Tensor weight = (at::randn({2 * 70, 45}) / 7).to(type);
        const at::Tensor bias = has_bias ? at::randn({2 * 70}).to(type) : at::Tensor();
        const auto gate = Gate::Create(weight, bias, activation);
        SetPlain(*gate, weight);
        Check(
            at::randn({9, 45}).to(type), [&](const at::Tensor& x) { return gate->Apply(x); },
            [&](const at::Tensor& x) { return taped().Apply(*gate, x); },
            [&](const at::Tensor& x) {
              return reference::GateMultiply(at::linear(x, weight.to(at::kDouble), Wide(bias)),
                                             static_cast<int64_t>(activation));
            });
      }
    }
  }
}

TEST_F(TapedOperator, ANormMayHoldItsFactor) {
  constexpr int kLayer = 3;
  tape_.held_post_norm = kLayer;
  for (const at::ScalarType type : kTypes) {
    const at::Tensor weight = at::randn({45}).to(type);
    const auto serving = [&](const at::Tensor& x) { return RmsNorm(x, weight, 1e-5); };
    const auto scale = [](const at::Tensor& x) {
      return at::rsqrt(x.pow(2).mean(-1, /*keepdim=*/true) + 1e-5);
    };
    const auto live = [&](const at::Tensor& x) { return x * scale(x) * weight.to(at::kDouble); };
    const auto held = [&](const at::Tensor& x) {
      return x * scale(x.detach()) * weight.to(at::kDouble);
    };
    const at::Tensor x = at::randn({9, 45}).to(type);
    const auto of_mlp = [&](int layer) {
      return [&, layer](const at::Tensor& own) {
        return taped().MlpPostNorm(layer, own, weight, 1e-5);
      };
    };
    Check(
        x, serving, [&](const at::Tensor& own) { return taped().RmsNorm(own, weight, 1e-5); },
        live);
    Check(x, serving, of_mlp(kLayer + 1), live);
    Check(x, serving, of_mlp(kLayer), held);
  }
}

TEST_F(TapedOperator, SoftCapsAreDifferentiated) {
  Check(at::randn({5, 33}) * 20, OnACopy([](at::Tensor& x) { SoftCap(x, 30); }),
        InPlace([&](at::Tensor& x) { taped().SoftCap(x, 30); }),
        [](const at::Tensor& x) { return at::tanh(x / 30) * 30; });
}

TEST_F(TapedOperator, HeadsAreNormedAndRotatedByDerivativesOfTheirOwn) {
  const HeadShape heads{4, 2, 10};
  const at::Tensor angles = at::randn({7, 5}), slots = at::arange(7, at::kLong);
  for (const at::ScalarType type : kTypes) {
    const at::Tensor x = at::randn({7, 80}).to(type), query = at::randn({10}).to(type),
                     key = at::randn({10}).to(type);
    const at::Tensor cosines = at::cos(angles).to(type), sines = at::sin(angles).to(type);
    at::Tensor keys = KvCache::EmptyKeys(1, kBlockSize, 2, 10, type);
    at::Tensor values = at::empty(keys.sizes(), type);
    Check(x, OnACopy([&](at::Tensor& own) { NormHeads(own, query, key, 1e-5, heads); }),
          InPlace([&](at::Tensor& own) { taped().NormHeads(own, query, key, 1e-5, heads); }),
          OnACopy([&](at::Tensor& own) {
            const at::Tensor by_head = own.view({7, 8, 10});
            const auto norm = [](const at::Tensor& part, const at::Tensor& weight) {
              const at::Tensor copy = part.clone();
              const at::Tensor scale = at::rsqrt(copy.pow(2).mean(-1, /*keepdim=*/true) + 1e-5);
              part.copy_(copy * scale * weight.to(at::kDouble));
            };
            norm(by_head.narrow(1, 0, 4), query);
            norm(by_head.narrow(1, 4, 2), key);
          }));
    Check(x, OnACopy([&](at::Tensor& own) {
            RotateAndCache(own, cosines, sines, slots, keys, values, heads);
          }),
          InPlace([&](at::Tensor& own) {
            taped().RotateAndCache(own, cosines, sines, slots, keys, values, heads);
          }),
          OnACopy([&](at::Tensor& own) {
            reference::Rotate(own, cosines.to(at::kDouble), sines.to(at::kDouble), 4, 2, 10);
          }));
  }
}

// The derivative of an edit against the finite difference of the serving one along a direction.
class TapedEdit : public TapedOperator {
 protected:
  void CheckEdit(Stage (*make)(int64_t)) {
    const Stage stage = make(33);
    const at::Tensor chosen = at::tensor({0, 2, 900, 1}, at::kLong);
    const at::Tensor start = at::randn({4, 33}), weights = at::randn({4, 33}),
                     along = at::randn({4, 33});
    const auto edited = [&](const Operators& operators, at::Tensor x) {
      operators.Edit(x, stage, chosen);
      return x;
    };
    const at::Tensor leaf = start.clone().requires_grad_();
    const at::Tensor y = edited(taped(), leaf);
    EXPECT_TRUE(leaf.equal(start));
    EXPECT_TRUE(y.detach().equal(edited(ServingOperators(), start.clone())));
    const at::Tensor gradient = GradientsOf((y * weights).sum(), {leaf})[0];
    const auto value_at = [&](double step) {
      const at::Tensor moved = edited(ServingOperators(), start + along * step);
      return (moved.to(at::kDouble) * weights).sum().item<double>();
    };
    const double difference = (value_at(0.01) - value_at(-0.01)) / 0.02;
    EXPECT_NEAR((gradient * along).sum().item<double>(), difference,
                2e-3 * (1 + std::abs(difference)));
  }
};

TEST_F(TapedEdit, AnAdditionIsDifferentiated) {
  CheckEdit([](int64_t width) { return Stage(SomeAddition(width)); });
}
TEST_F(TapedEdit, AScalingIsDifferentiated) {
  CheckEdit([](int64_t width) { return Stage(SomeScaling(width)); });
}
TEST_F(TapedEdit, AProjectionIsDifferentiated) {
  CheckEdit([](int64_t width) { return Stage(SomeProjection(width)); });
}

TEST_F(TapedOperator, TheGraphBeginsAtTheFirstWireOfTheTape) {
  tape_.wires = {7, 5};
  taped_ = TapedOperators(tape_);
  at::Tensor x = at::randn({2, 3});
  taped().Pass(4, x);
  EXPECT_FALSE(x.requires_grad());
  taped().Pass(5, x);
  EXPECT_TRUE(x.requires_grad());
  EXPECT_TRUE(tape_.values[1].is_same(x));
  EXPECT_FALSE(tape_.values[0].defined());
  taped().Add(x, at::ones({2, 3}));
  taped().Pass(7, x);
  EXPECT_TRUE(GradientsOf(tape_.values[0].sum(), {tape_.values[1]})[0].equal(at::ones({2, 3})));
}

TEST(TapedOperatorDeathTest, ATapeHasWeights) {
  GradientTape tape;
  EXPECT_DEATH(TapedOperators(tape), "invariant broken");
}

}  // namespace
}  // namespace valuescope::model
