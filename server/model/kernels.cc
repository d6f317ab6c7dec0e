#include "model/kernels.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/index.h>
#include <torch/library.h>

#include "model/cpu_kernels.h"
#include "model/cuda_kernels.h"
#include "model/reference.h"

namespace valuescope::model {
namespace {

// A CPU's kernel needs no plan; it walks the tokens one by one.
std::vector<at::Tensor> PlanAttentionOnCpu(const at::Tensor& sequences, const at::Tensor& positions,
                                           const at::Tensor& block_tables, const at::Tensor& keys,
                                           int64_t most_tokens, int64_t group, double soft_cap,
                                           int64_t window, bool batch_invariant) {
  return {};
}

void AddRowsOnCpu(at::Tensor& x, const at::Tensor& active, const at::Tensor& rows,
                  const at::Tensor& table_rows, bool only_adds) {
  cpu::AddRows(x, active, rows, table_rows);
}

at::Tensor AttentionOnCpu(const at::Tensor& qkv, const at::Tensor& keys, const at::Tensor& values,
                          const at::Tensor& sequences, const at::Tensor& positions,
                          const at::Tensor& block_tables, at::TensorList plan, int64_t most_tokens,
                          int64_t num_heads, int64_t num_kv_heads, int64_t head_dim, double scale,
                          double soft_cap, int64_t window, bool batch_invariant) {
  return cpu::Attention(qkv, keys, values, sequences, positions, block_tables, num_heads,
                        num_kv_heads, head_dim, scale, soft_cap, window);
}

TORCH_LIBRARY(valuescope, library) {
  library.def("rms_norm(Tensor x, Tensor weight, float epsilon) -> Tensor");
  library.def(
      "norm_heads(Tensor(a!) qkv, Tensor query_weight, Tensor key_weight, float epsilon, int "
      "num_heads, "
      "int num_kv_heads, int head_dim) -> ()");
  library.def(
      "rotate_and_cache(Tensor(a!) qkv, Tensor cosines, Tensor sines, Tensor cache_slots, "
      "Tensor(b!) keys, Tensor(c!) values, int num_heads, int num_kv_heads, int head_dim) -> ()");
  library.def(
      "plan_attention(Tensor sequences, Tensor positions, Tensor block_tables, Tensor keys, int "
      "most_tokens, int group, float soft_cap, int window, bool batch_invariant) -> Tensor[]");
  library.def(
      "attention(Tensor qkv, Tensor keys, Tensor values, Tensor sequences, Tensor positions, "
      "Tensor block_tables, Tensor[] plan, int most_tokens, int num_heads, int num_kv_heads, int "
      "head_dim, float scale, float soft_cap, int window, bool batch_invariant) -> Tensor");
  library.def("packed_product(Tensor x, Tensor packed, int out_features) -> Tensor");
  library.def(
      "gated_product(Tensor x, Tensor gate, Tensor up, int out_features, int activation) -> "
      "Tensor");
  library.def("gate_multiply(Tensor gate_up, int activation) -> Tensor");
  library.def("soft_cap(Tensor(a!) x, float cap) -> ()");
  library.def(
      "add_rows(Tensor(a!) x, Tensor active, Tensor rows, Tensor table_rows, bool only_adds) -> "
      "()");
  library.def(
      "scale_or_set(Tensor(a!) x, Tensor active, Tensor factors, Tensor values, Tensor table_rows) "
      "-> ()");
  library.def(
      "project(Tensor(a!) x, Tensor active, Tensor basis, Tensor ranks, Tensor kept, Tensor "
      "targets, Tensor table_rows) -> ()");
  library.def("tap_copy(Tensor x, Tensor tokens, Tensor rows, Tensor(a!) destination) -> ()");
  library.def("tap_sum(Tensor x, Tensor tokens, Tensor rows, Tensor(a!) destination) -> ()");
  library.def("tap_max(Tensor x, Tensor tokens, Tensor rows, Tensor(a!) destination) -> ()");
}

TORCH_LIBRARY_IMPL(valuescope, CPU, library) {
  library.impl("rms_norm", cpu::RmsNorm);
  library.impl("norm_heads", cpu::NormHeads);
  library.impl("rotate_and_cache", cpu::RotateAndCache);
  library.impl("plan_attention", PlanAttentionOnCpu);
  library.impl("attention", AttentionOnCpu);
  library.impl("packed_product", cpu::Product);
  library.impl("gated_product", cpu::GatedProduct);
  library.impl("gate_multiply", cpu::GateMultiply);
  library.impl("soft_cap", cpu::SoftCap);
  library.impl("add_rows", AddRowsOnCpu);
  library.impl("scale_or_set", cpu::ScaleOrSet);
  library.impl("project", cpu::Project);
  library.impl("tap_copy", cpu::TapCopy);
  library.impl("tap_sum", cpu::TapSum);
  library.impl("tap_max", cpu::TapMax);
}

// What a GPU runs. Tensors without values run the same, so that every machine can see that a step
// never looks at one.
void RegisterForCuda(torch::Library& library) {
  library.impl("rms_norm", cuda::RmsNorm);
  library.impl("norm_heads", cuda::NormHeads);
  library.impl("rotate_and_cache", cuda::RotateAndCache);
  library.impl("plan_attention", cuda::PlanAttention);
  library.impl("attention", cuda::Attention);
  library.impl("gate_multiply", reference::GateMultiply);
  library.impl("soft_cap", reference::SoftCap);
  library.impl("add_rows", cuda::AddRows);
  library.impl("scale_or_set", cuda::ScaleOrSet);
  library.impl("project", cuda::Project);
  library.impl("tap_copy", reference::TapCopy);
  library.impl("tap_sum", cuda::TapSum);
  library.impl("tap_max", reference::TapMax);
}

TORCH_LIBRARY_IMPL(valuescope, CUDA, library) { RegisterForCuda(library); }
TORCH_LIBRARY_IMPL(valuescope, Meta, library) { RegisterForCuda(library); }

template <typename Signature>
auto Operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

}  // namespace

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  static const auto op =
      Operator<at::Tensor(const at::Tensor&, const at::Tensor&, double)>("valuescope::rms_norm");
  return op.call(x, weight, epsilon);
}

void RotateAndCache(at::Tensor& qkv, const at::Tensor& cosines, const at::Tensor& sines,
                    const at::Tensor& cache_slots, at::Tensor& keys, at::Tensor& values,
                    const HeadShape& heads) {
  static const auto op =
      Operator<void(at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                    at::Tensor&, at::Tensor&, int64_t, int64_t, int64_t)>(
          "valuescope::rotate_and_cache");
  op.call(qkv, cosines, sines, cache_slots, keys, values, heads.num_heads, heads.num_kv_heads,
          heads.head_dim);
}

void NormHeads(at::Tensor& qkv, const at::Tensor& query_weight, const at::Tensor& key_weight,
               double epsilon, const HeadShape& heads) {
  static const auto op = Operator<void(at::Tensor&, const at::Tensor&, const at::Tensor&, double,
                                       int64_t, int64_t, int64_t)>("valuescope::norm_heads");
  op.call(qkv, query_weight, key_weight, epsilon, heads.num_heads, heads.num_kv_heads,
          heads.head_dim);
}

std::vector<at::Tensor> PlanAttention(const StepBatch& batch, const at::Tensor& keys,
                                      const HeadShape& heads, const AttentionScores& scores) {
  static const auto op =
      Operator<std::vector<at::Tensor>(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                       const at::Tensor&, int64_t, int64_t, double, int64_t, bool)>(
          "valuescope::plan_attention");
  return op.call(batch.sequences, batch.positions, batch.block_tables, keys, batch.most_tokens,
                 heads.num_heads / heads.num_kv_heads, scores.soft_cap, scores.window,
                 scores.batch_invariant);
}

at::Tensor Attention(const at::Tensor& qkv, const at::Tensor& keys, const at::Tensor& values,
                     const StepBatch& batch, const std::vector<at::Tensor>& plan,
                     const HeadShape& heads, const AttentionScores& scores) {
  static const auto op =
      Operator<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                          const at::Tensor&, const at::Tensor&, const at::Tensor&, at::TensorList,
                          int64_t, int64_t, int64_t, int64_t, double, double, int64_t, bool)>(
          "valuescope::attention");
  return op.call(qkv, keys, values, batch.sequences, batch.positions, batch.block_tables, plan,
                 batch.most_tokens, heads.num_heads, heads.num_kv_heads, heads.head_dim,
                 scores.scale, scores.soft_cap, scores.window, scores.batch_invariant);
}

at::Tensor GateMultiply(const at::Tensor& gate_up, Activation activation) {
  static const auto op =
      Operator<at::Tensor(const at::Tensor&, int64_t)>("valuescope::gate_multiply");
  return op.call(gate_up, static_cast<int64_t>(activation));
}

void SoftCap(at::Tensor& x, double cap) {
  static const auto op = Operator<void(at::Tensor&, double)>("valuescope::soft_cap");
  op.call(x, cap);
}

void Edit(at::Tensor& x, const AddStage& stage, const at::Tensor& table_rows) {
  static const auto op =
      Operator<void(at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, bool)>(
          "valuescope::add_rows");
  op.call(x, stage.active, stage.rows, table_rows, stage.only_adds);
}

void Edit(at::Tensor& x, const ScaleOrSetStage& stage, const at::Tensor& table_rows) {
  static const auto op =
      Operator<void(at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                    const at::Tensor&)>("valuescope::scale_or_set");
  op.call(x, stage.active, stage.factors, stage.values, table_rows);
}

void Edit(at::Tensor& x, const ProjectStage& stage, const at::Tensor& table_rows) {
  static const auto op =
      Operator<void(at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                    const at::Tensor&, const at::Tensor&, const at::Tensor&)>(
          "valuescope::project");
  op.call(x, stage.active, stage.basis, stage.ranks, stage.kept, stage.targets, table_rows);
}

using TapSignature = void(const at::Tensor&, const at::Tensor&, const at::Tensor&, at::Tensor&);

void TapCopy(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
             at::Tensor& destination) {
  static const auto op = Operator<TapSignature>("valuescope::tap_copy");
  op.call(x, tokens, rows, destination);
}

void TapSum(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
            at::Tensor& destination) {
  static const auto op = Operator<TapSignature>("valuescope::tap_sum");
  op.call(x, tokens, rows, destination);
}

void TapMax(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
            at::Tensor& destination) {
  static const auto op = Operator<TapSignature>("valuescope::tap_max");
  op.call(x, tokens, rows, destination);
}

void TapNorm(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
             at::Tensor& destination) {
  const at::Tensor norms = reference::RowNorms(at::index(x, {tokens}));
  TapSum(norms, at::arange(norms.size(0), tokens.options()), rows, destination);
}

void TapPositive(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
                 at::Tensor& destination) {
  const at::Tensor positive = at::index(x, {tokens}).gt(0).to(x.scalar_type());
  TapSum(positive, at::arange(positive.size(0), tokens.options()), rows, destination);
}

void TapMagnitude(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
                  at::Tensor& destination) {
  const at::Tensor magnitudes = at::index(x, {tokens}).abs();
  TapSum(magnitudes, at::arange(magnitudes.size(0), tokens.options()), rows, destination);
}

void Tap(const at::Tensor& x, const TapStage& tap) {
  const at::Tensor read = tap.columns.defined() ? at::index(x, {std::nullopt, tap.columns}) : x;
  at::Tensor destination = tap.destination;
  switch (tap.operation) {
    case TapOperation::kCopy:
      return TapCopy(read, tap.tokens, tap.rows, destination);
    case TapOperation::kSum:
      return TapSum(read, tap.tokens, tap.rows, destination);
    case TapOperation::kMax:
      return TapMax(read, tap.tokens, tap.rows, destination);
    case TapOperation::kNorm:
      return TapNorm(read, tap.tokens, tap.rows, destination);
    case TapOperation::kPositive:
      return TapPositive(read, tap.tokens, tap.rows, destination);
    case TapOperation::kMagnitude:
      return TapMagnitude(read, tap.tokens, tap.rows, destination);
  }
}

}  // namespace valuescope::model
