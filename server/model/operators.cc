#include "model/operators.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <functional>
#include <utility>
#include <variant>

#include "absl/functional/function_ref.h"
#include "base/check.h"
#include "model/attention_gradient.h"
#include "model/reference.h"

namespace valuescope::model {
namespace {

class Serving : public Operators {
 public:
  at::Tensor Apply(const Linear& linear, const at::Tensor& x) const override {
    return linear.Apply(x);
  }
  at::Tensor Apply(const Gate& gate, const at::Tensor& x) const override { return gate.Apply(x); }

  at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon) const override {
    return model::RmsNorm(x, weight, epsilon);
  }
  at::Tensor MlpPostNorm(int layer, const at::Tensor& x, const at::Tensor& weight,
                         double epsilon) const override {
    return model::RmsNorm(x, weight, epsilon);
  }
  void NormHeads(at::Tensor& qkv, const at::Tensor& query_weight, const at::Tensor& key_weight,
                 double epsilon, const HeadShape& heads) const override {
    model::NormHeads(qkv, query_weight, key_weight, epsilon, heads);
  }
  void RotateAndCache(at::Tensor& qkv, const at::Tensor& cosines, const at::Tensor& sines,
                      const at::Tensor& cache_slots, at::Tensor& keys, at::Tensor& values,
                      const HeadShape& heads) const override {
    model::RotateAndCache(qkv, cosines, sines, cache_slots, keys, values, heads);
  }
  at::Tensor Attention(const at::Tensor& qkv, const at::Tensor& keys, const at::Tensor& values,
                       const StepBatch& batch, const std::vector<at::Tensor>& plan,
                       const HeadShape& heads, const AttentionScores& scores) const override {
    return model::Attention(qkv, keys, values, batch, plan, heads, scores);
  }
  void SoftCap(at::Tensor& x, double cap) const override { model::SoftCap(x, cap); }

  void Add(at::Tensor& x, const at::Tensor& written) const override { x.add_(written); }

  void Edit(at::Tensor& x, const Stage& stage, const at::Tensor& table_rows) const override {
    std::visit([&](const auto& each) { model::Edit(x, each, table_rows); }, stage);
  }
  void Pass(int wire, at::Tensor& x) const override {}
  void Tap(const at::Tensor& x, const TapStage& tap) const override { model::Tap(x, tap); }
};

// --- What is recorded ----------------------------------------------------------------------------

using Function = std::function<at::Tensor(const at::Tensor&)>;

// y = f(x), whose derivative turns d / dy into d / dx.
class Node : public torch::autograd::Node {
 public:
  Node(const at::Tensor& x, Function derivative)
      : torch::autograd::Node(torch::autograd::collect_next_edges(x)),
        derivative_(std::move(derivative)) {}

  void release_variables() override { derivative_ = nullptr; }

 protected:
  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    return {derivative_(gradients[0])};
  }

 private:
  Function derivative_;
};

// What `value` makes of x, and a node for it where the graph has begun.
at::Tensor Recorded(const at::Tensor& x, absl::FunctionRef<at::Tensor(const at::Tensor&)> value,
                    Function derivative) {
  at::Tensor y;
  {
    const c10::NoGradGuard not_followed;
    y = value(x.detach());
  }
  if (!x.requires_grad()) return y;
  torch::autograd::set_history(
      y, std::shared_ptr<Node>(new Node(x, std::move(derivative)), torch::autograd::deleteNode));
  return y;
}

// What `change` makes of a copy of x.
Function Changed(std::function<void(at::Tensor&)> change) {
  return [change = std::move(change)](const at::Tensor& x) {
    at::Tensor changed = x.clone();
    change(changed);
    return changed;
  };
}

// The derivative of `plain` at x: what it makes of x is made again and followed, so that nothing of
// it takes memory before.
Function DerivativeOf(Function plain, const at::Tensor& x) {
  return [plain = std::move(plain), x = x.detach()](const at::Tensor& gradient) {
    const c10::AutoGradMode followed(true);
    const at::Tensor own = x.detach().requires_grad_();
    return torch::autograd::grad({plain(own)}, {own}, {gradient})[0];
  };
}

at::Tensor Edited(const at::Tensor& x, const AddStage& stage, const at::Tensor& table_rows) {
  return reference::Added(x, stage.active, stage.rows, table_rows);
}
at::Tensor Edited(const at::Tensor& x, const ScaleOrSetStage& stage, const at::Tensor& table_rows) {
  return reference::ScaledOrSet(x, stage.active, stage.factors, stage.values, table_rows);
}
at::Tensor Edited(const at::Tensor& x, const ProjectStage& stage, const at::Tensor& table_rows) {
  return reference::Projected(x, stage.active, stage.basis, stage.ranks, stage.kept, stage.targets,
                              table_rows);
}

// Values are those of `serving_`, so that what is differentiated is what is served; derivatives are
// those of the references (attention_gradient.h of attention). What derivatives read is kept by
// value, the weights with their lease.
class Taped : public Operators {
 public:
  explicit Taped(GradientTape& tape) : tape_(tape) {
    VS_CHECK(tape_.weights != nullptr);
    tape_.values.assign(tape_.wires.size(), at::Tensor());
  }

  at::Tensor Apply(const Linear& linear, const at::Tensor& x) const override {
    return Recorded(
        x, [&](const at::Tensor& own) { return linear.Apply(own); },
        [weights = tape_.weights, &linear](const at::Tensor& gradient) {
          return weights->Backward(linear, gradient);
        });
  }
  at::Tensor Apply(const Gate& gate, const at::Tensor& x) const override {
    if (!x.requires_grad()) return serving_.Apply(gate, x);
    at::Tensor both;  // kept, because to make it again is a third of the block
    {
      const c10::NoGradGuard not_followed;
      both = gate.GatesAndUps(x.detach());
    }
    return Recorded(
        x, [&](const at::Tensor&) { return GateMultiply(both, gate.activation()); },
        [weights = tape_.weights, &gate, both](const at::Tensor& gradient) {
          return weights->Backward(
              gate, reference::GateMultiplyGradient(both, static_cast<int64_t>(gate.activation()),
                                                    gradient));
        });
  }

  at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon) const override {
    return Normed(x, weight, epsilon, /*holds_factor=*/false);
  }
  at::Tensor MlpPostNorm(int layer, const at::Tensor& x, const at::Tensor& weight,
                         double epsilon) const override {
    return Normed(x, weight, epsilon, /*holds_factor=*/layer == tape_.held_post_norm);
  }
  void NormHeads(at::Tensor& qkv, const at::Tensor& query_weight, const at::Tensor& key_weight,
                 double epsilon, const HeadShape& heads) const override {
    const auto plain = [=](at::Tensor& own) {
      reference::NormHeads(own, query_weight, key_weight, epsilon, heads.num_heads,
                           heads.num_kv_heads, heads.head_dim);
    };
    qkv = Recorded(qkv, Changed([&](at::Tensor& own) {
                     serving_.NormHeads(own, query_weight, key_weight, epsilon, heads);
                   }),
                   DerivativeOf(Changed(plain), qkv));
  }
  void RotateAndCache(at::Tensor& qkv, const at::Tensor& cosines, const at::Tensor& sines,
                      const at::Tensor& cache_slots, at::Tensor& keys, at::Tensor& values,
                      const HeadShape& heads) const override {
    // A rotation's derivative is the rotation back.
    const auto back = [=](at::Tensor& gradient) {
      reference::Rotate(gradient, cosines, -sines, heads.num_heads, heads.num_kv_heads,
                        heads.head_dim);
    };
    qkv = Recorded(qkv, Changed([&](at::Tensor& own) {
                     serving_.RotateAndCache(own, cosines, sines, cache_slots, keys, values, heads);
                   }),
                   Changed(back));
  }
  at::Tensor Attention(const at::Tensor& qkv, const at::Tensor& keys, const at::Tensor& values,
                       const StepBatch& batch, const std::vector<at::Tensor>& plan,
                       const HeadShape& heads, const AttentionScores& scores) const override {
    return Recorded(
        qkv,
        [&](const at::Tensor& own) {
          return serving_.Attention(own, keys, values, batch, plan, heads, scores);
        },
        [=, own = qkv.detach()](const at::Tensor& gradient) {
          return AttentionGradient(own, keys, values, batch, heads, scores, gradient);
        });
  }
  void SoftCap(at::Tensor& x, double cap) const override {
    x = Recorded(x, Changed([&](at::Tensor& own) { serving_.SoftCap(own, cap); }),
                 DerivativeOf(Changed([=](at::Tensor& own) { reference::SoftCap(own, cap); }), x));
  }

  void Add(at::Tensor& x, const at::Tensor& written) const override { x = x + written; }

  void Edit(at::Tensor& x, const Stage& stage, const at::Tensor& table_rows) const override {
    const auto plain = [=](const at::Tensor& own) {
      return std::visit([&](const auto& each) { return Edited(own, each, table_rows); }, stage);
    };
    x = Recorded(x, Changed([&](at::Tensor& own) { serving_.Edit(own, stage, table_rows); }),
                 DerivativeOf(plain, x));
  }
  void Pass(int wire, at::Tensor& x) const override {
    for (size_t i = 0; i < tape_.wires.size(); ++i) {
      if (tape_.wires[i] != wire) continue;
      x.requires_grad_();  // of the first one: everything behind a wire is made of it
      tape_.values[i] = x;
    }
  }
  void Tap(const at::Tensor& x, const TapStage& tap) const override {
    serving_.Tap(x.detach(), tap);
  }

 private:
  at::Tensor Normed(const at::Tensor& x, const at::Tensor& weight, double epsilon,
                    bool holds_factor) const {
    return Recorded(
        x, [&](const at::Tensor& own) { return serving_.RmsNorm(own, weight, epsilon); },
        [=, own = x.detach()](const at::Tensor& gradient) {
          return reference::RmsNormGradient(own, weight, epsilon, holds_factor, gradient);
        });
  }

  const Operators& serving_ = ServingOperators();
  GradientTape& tape_;
};

}  // namespace

const Operators& ServingOperators() {
  static const Serving operators;
  return operators;
}

std::unique_ptr<Operators> TapedOperators(GradientTape& tape) {
  return std::make_unique<Taped>(tape);
}

}  // namespace valuescope::model
