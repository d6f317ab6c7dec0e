// Long because a model's load and its one forward pass read the same table of weights and blocks.
#include "model/transformer.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <malloc.h>

#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "model/device_types.h"
#include "model/gradient_weights.h"
#include "model/kernels.h"
#include "model/linear.h"
#include "model/operators.h"
#include "model/reference.h"
#include "model/safetensors.h"
#include "model/site.h"
#include "model/weights.h"

namespace valuescope::model {
namespace {

constexpr int64_t kMaxConfigBytes = 1 << 20;

// The tensors whose weights a projection of a block has one under the other.
using Parts = absl::Span<const char* const>;
constexpr const char* kQkv[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"};
constexpr const char* kOutput[] = {"self_attn.o_proj"};
constexpr const char* kGate[] = {"mlp.gate_proj", "mlp.up_proj"};
constexpr const char* kDown[] = {"mlp.down_proj"};

std::string PrefixOf(int layer) { return absl::StrCat("model.layers.", layer, "."); }

std::vector<std::string> NamesOf(absl::string_view prefix, Parts parts, absl::string_view kind) {
  std::vector<std::string> names;
  for (const char* part : parts) names.push_back(absl::StrCat(prefix, part, kind));
  return names;
}

// One block's weights, fused where the forward pass wants one product.
struct Block {
  at::Tensor attention_norm;        // [hidden], before attention
  std::unique_ptr<Linear> qkv;      // hidden -> (num_heads + 2 num_kv_heads) * head_dim
  at::Tensor query_norm, key_norm;  // [head_dim], where heads are normed
  std::unique_ptr<Linear> output;   // num_heads * head_dim -> hidden
  at::Tensor attention_post_norm;   // [hidden], where what is written is normed
  at::Tensor mlp_norm;              // [hidden], before the MLP
  std::unique_ptr<Gate> gate;       // hidden -> intermediate
  std::unique_ptr<Linear> down;     // intermediate -> hidden
  at::Tensor mlp_post_norm;         // [hidden], where what is written is normed
};

// Llama 3.1's frequencies, by the steps that transformers takes. frequencies [head_dim / 2]
// float32.
at::Tensor Stretched(const at::Tensor& frequencies, const LongRope& rope) {
  const at::Tensor wavelengths = 2 * M_PI / frequencies;
  const at::Tensor stretched = frequencies / rope.factor;
  const at::Tensor shortness = (rope.original_positions / wavelengths - rope.low_frequency_factor) /
                               (rope.high_frequency_factor - rope.low_frequency_factor);
  const at::Tensor blended = (1 - shortness) * stretched + shortness * frequencies;
  const at::Tensor is_long = wavelengths > rope.original_positions / rope.low_frequency_factor;
  const at::Tensor is_short = wavelengths < rope.original_positions / rope.high_frequency_factor;
  return at::where(is_long, stretched, at::where(is_short, frequencies, blended));
}

class LoadedTransformer : public Transformer {
 public:
  LoadedTransformer(Architecture architecture, LoadOptions options,
                    std::unique_ptr<StoredWeights> stored)
      : architecture_(std::move(architecture)),
        options_(std::move(options)),
        stored_(std::move(stored)),
        table_(WeightTable(architecture_)) {}

  // Block by block: what a block needs is read, checked and copied, and then let go of, so that
  // there is never much more than one copy.
  absl::Status Load(absl::string_view config_json) {
    MakeRotations();
    VS_RETURN_IF_ERROR(Read(kEmbeddingWeight));
    embedding_ = Weight(kEmbeddingWeight);
    if (architecture_.embedding_scale != 1) {
      embedding_scale_ = at::scalar_tensor(architecture_.embedding_scale, embedding_.options());
    }
    Release(kEmbeddingWeight);
    if (architecture_.tied_embeddings) {
      unembedding_ = Linear::Share(embedding_, Rows());
    } else {
      VS_RETURN_IF_ERROR(Read(kUnembeddingWeight));
      unembedding_ = Linear::Create(Weight(kUnembeddingWeight), {}, Rows());
      Release(kUnembeddingWeight);
    }
    for (int layer = 0; layer < architecture_.num_layers; ++layer) {
      const std::string prefix = PrefixOf(layer);
      VS_RETURN_IF_ERROR(Read(prefix));
      blocks_.push_back(MakeBlock(prefix));
      Release(prefix);
    }
    VS_RETURN_IF_ERROR(Read(kFinalNormWeight));
    final_norm_ = NormWeight(kFinalNormWeight);
    Release(kFinalNormWeight);
    digest_ = stored_->Digest(config_json);
    return stored_->CheckUnchanged();
  }

  const Architecture& architecture() const override { return architecture_; }
  DType dtype() const override { return options_.dtype; }
  c10::Device device() const override { return options_.device; }
  const std::string& weights_digest() const override { return digest_; }

  using Transformer::Forward;
  at::Tensor Forward(const StepBatch& batch, KvCache& cache, const StepProgram& program,
                     GradientTape* tape) const override {
    const c10::InferenceMode inference(tape == nullptr);
    const ChosenOperators operators(tape);
    return RunStep(MakeStep(*operators, batch, cache, program));
  }

  using Transformer::RunBlocks;
  at::Tensor RunBlocks(int first, int last, at::Tensor x, const StepBatch& batch, KvCache& cache,
                       GradientTape* tape) const override {
    const c10::InferenceMode inference(tape == nullptr);
    const ChosenOperators operators(tape);
    const StepProgram nothing(static_cast<size_t>(NumWires(architecture_)));
    const Step step = MakeStep(*operators, batch, cache, nothing);
    for (int layer = first; layer <= last; ++layer) RunBlock(layer, x, step);
    return x;
  }

  at::Tensor DownProjected(int layer, const at::Tensor& neurons) const override {
    const c10::InferenceMode inference;
    return blocks_[layer].down->Apply(neurons);
  }

  at::Tensor DownColumns(int layer, const at::Tensor& neurons) const override {
    const c10::InferenceMode inference;
    const Linear& down = *blocks_[layer].down;
    if (down.plain().defined()) {
      return at::index_select(down.plain(), 1, neurons).t().to(at::kFloat).contiguous();
    }
    // A packed weight is read by what it makes of single neurons.
    at::Tensor alone = at::zeros({neurons.numel(), down.in_features()}, embedding_.options());
    alone.scatter_(1, neurons.unsqueeze(1), 1);
    const at::Tensor columns = down.Apply(alone).to(at::kFloat);
    return down.bias().defined() ? columns - down.bias() : columns;
  }

  at::Tensor MlpOutput(int layer, const at::Tensor& projected,
                       const at::Tensor& factor) const override {
    if (!architecture_.post_norms) return projected;
    const c10::InferenceMode inference;
    const at::Tensor& gain = blocks_[layer].mlp_post_norm;
    if (!factor.defined()) return RmsNorm(projected, gain, architecture_.rms_norm_epsilon);
    return (projected.to(at::kFloat) * factor * gain).to(projected.scalar_type());
  }

  using Transformer::Logits;
  at::Tensor Logits(const at::Tensor& x, GradientTape* tape) const override {
    const c10::InferenceMode inference(tape == nullptr);
    const ChosenOperators operators(tape);
    const double epsilon = architecture_.rms_norm_epsilon;
    return Unembed(operators->RmsNorm(x, final_norm_, epsilon), *operators);
  }

  at::Tensor UnscaledLogits(const at::Tensor& x) const override {
    const c10::InferenceMode inference;
    const at::Tensor scaled = x.to(at::kFloat) * final_norm_;
    return unembedding_->Apply(scaled.to(embedding_.scalar_type())).to(at::kFloat);
  }

  int64_t GradientWeightBytes(const GradientPath& path) const override {
    return model::GradientWeightBytes(ProjectionsOn(path), options_.dtype);
  }
  absl::StatusOr<std::shared_ptr<const GradientWeights>> MakeGradientWeights(
      const GradientPath& path, const Cancellation& cancellation) const override {
    return model::MakeGradientWeights(path, ProjectionsOn(path), *stored_, options_.dtype,
                                      options_.memory, cancellation);
  }

  at::Tensor NeuronGradients(int layer, const at::Tensor& neurons, const at::Tensor& gradients,
                             const GradientWeights& weights) const override {
    const Block& block = blocks_[layer];
    at::Tensor along = gradients.to(at::kFloat);
    if (architecture_.post_norms) {
      const at::Tensor factor =
          reference::RmsFactor(block.down->Apply(neurons), architecture_.rms_norm_epsilon);
      along = along * block.mlp_post_norm * factor;
    }
    return weights.Backward(*block.down, along.to(ScalarTypeOf(options_.dtype))).to(at::kFloat);
  }
  at::Tensor NeuronBias(int layer) const override { return blocks_[layer].down->bias(); }

  absl::StatusOr<at::Tensor> WriteDirections(int layer) const override {
    VS_RETURN_IF_ERROR(stored_->CheckUnchanged());
    const std::string block = PrefixOf(layer);
    VS_ASSIGN_OR_RETURN(const at::Tensor columns,
                        stored_->ReadAgain(block + "mlp.down_proj.weight", at::kFloat));
    if (!architecture_.post_norms) return columns;
    VS_ASSIGN_OR_RETURN(
        const at::Tensor gain,
        stored_->ReadAgain(block + "post_feedforward_layernorm.weight", at::kFloat));
    return (columns * (gain + 1).unsqueeze(1)).contiguous();
  }

  absl::StatusOr<at::Tensor> UnembeddingRows(int64_t first_token, int64_t count) const override {
    VS_RETURN_IF_ERROR(stored_->CheckUnchanged());
    const char* name = architecture_.tied_embeddings ? kEmbeddingWeight : kUnembeddingWeight;
    VS_ASSIGN_OR_RETURN(const at::Tensor rows,
                        stored_->ReadRowsAgain(name, first_token, count, at::kFloat));
    VS_ASSIGN_OR_RETURN(const at::Tensor weight, stored_->ReadAgain(kFinalNormWeight, at::kFloat));
    return (rows * (architecture_.unit_offset_norms ? weight + 1 : weight)).contiguous();
  }

 private:
  class ChosenOperators {
   public:
    explicit ChosenOperators(GradientTape* tape)
        : taped_(tape == nullptr ? nullptr : TapedOperators(*tape)) {}

    const Operators& operator*() const { return taped_ == nullptr ? ServingOperators() : *taped_; }
    const Operators* operator->() const { return &**this; }

   private:
    const std::unique_ptr<Operators> taped_;
  };

  // What every part of a step reads.
  struct Step {
    const Operators& operators;
    const StepBatch& batch;
    KvCache& cache;
    const StepProgram& program;
    std::map<int64_t, std::vector<at::Tensor>> plans;  // PlanAttention's, by window
    at::Tensor cosines, sines;  // [num_tokens, head_dim / 2] of the model's type
  };

  // What the arguments are outlives it.
  Step MakeStep(const Operators& operators, const StepBatch& batch, KvCache& cache,
                const StepProgram& program) const {
    // at::index here and below, because index_select has no kernel for meta tensors.
    const auto of_positions = [&](const at::Tensor& table) {
      return at::index(table, {batch.positions}).to(ScalarTypeOf(options_.dtype));
    };
    return {operators,           batch, cache, program, Plans(batch, cache), of_positions(cosines_),
            of_positions(sines_)};
  }

  // One for each window.
  std::map<int64_t, std::vector<at::Tensor>> Plans(const StepBatch& batch,
                                                   const KvCache& cache) const {
    std::map<int64_t, std::vector<at::Tensor>> plans;
    for (int layer = 0; layer < architecture_.num_layers; ++layer) {
      const auto [plan, fresh] = plans.try_emplace(architecture_.windows[layer]);
      if (fresh) plan->second = PlanAttention(batch, cache.keys[layer], heads(), Scores(layer));
    }
    return plans;
  }

  HeadShape heads() const {
    return {architecture_.num_heads, architecture_.num_kv_heads, architecture_.head_dim};
  }

  AttentionScores Scores(int layer) const {
    return {.scale = architecture_.attention_scale,
            .soft_cap = architecture_.attention_soft_cap,
            .window = architecture_.windows[layer],
            .batch_invariant = options_.batch_invariant};
  }

  at::Tensor RunStep(const Step& step) const {
    at::Tensor x = at::index(embedding_, {step.batch.token_ids});  // [num_tokens, hidden]
    if (embedding_scale_.defined()) x.mul_(embedding_scale_);
    Visit({Site::kEmbedding, 0}, x, step);
    for (int layer = 0; layer < architecture_.num_layers; ++layer) RunBlock(layer, x, step);
    at::Tensor normed = Norm(x, final_norm_, step);
    Visit({Site::kFinalNorm, 0}, normed, step);
    if (IsRead({Site::kLogits, 0}, step)) {
      at::Tensor logits = Unembed(normed, step.operators);
      Visit({Site::kLogits, 0}, logits, step);
      return at::index(logits, {step.batch.logit_tokens});
    }
    return Unembed(at::index(normed, {step.batch.logit_tokens}), step.operators);
  }

  // Looks at every tensor whose name begins so for the first time.
  absl::Status Read(absl::string_view prefix) {
    for (const WeightSpec& spec : table_) {
      if (!absl::StartsWith(spec.name, prefix)) continue;
      if (options_.cancellation.cancelled()) return absl::CancelledError("the load was cancelled");
      VS_RETURN_IF_ERROR(stored_->CheckUnchanged());
      VS_RETURN_IF_ERROR(stored_->Read(spec.name));
      if (options_.progress) options_.progress(stored_->fraction_read());
    }
    return absl::OkStatus();
  }

  void Release(absl::string_view prefix) {
    for (const WeightSpec& spec : table_) {
      if (absl::StartsWith(spec.name, prefix)) stored_->Release(spec.name);
    }
  }

  // One that was read.
  at::Tensor Weight(const std::string& name) const {
    return stored_->Get(name, ScalarTypeOf(options_.dtype)).to(options_.device);
  }

  // Where a norm multiplies by 1 + weight, it does so in float32.
  at::Tensor NormWeight(const std::string& name) const {
    if (!architecture_.unit_offset_norms) return Weight(name);
    return (stored_->Get(name, at::kFloat) + 1).to(options_.device);
  }

  // Weights or biases one under the other.
  at::Tensor Joined(const std::vector<std::string>& names) const {
    std::vector<at::Tensor> tensors;
    for (const std::string& name : names) tensors.push_back(Weight(name));
    return tensors.size() == 1 ? tensors[0] : at::cat(tensors);
  }

  at::Tensor JoinedBias(const std::string& prefix, Parts parts) const {
    return Joined(NamesOf(prefix, parts, ".bias")).clone();
  }

  // Several projections of one input as one product.
  std::unique_ptr<Linear> MakeLinear(const std::string& prefix, Parts parts, bool bias) const {
    return Linear::Create(Joined(NamesOf(prefix, parts, ".weight")),
                          bias ? JoinedBias(prefix, parts) : at::Tensor(), Rows());
  }

  std::unique_ptr<Gate> MakeGate(const std::string& prefix) const {
    return Gate::Create(Joined(NamesOf(prefix, kGate, ".weight")),
                        architecture_.mlp_bias ? JoinedBias(prefix, kGate) : at::Tensor(),
                        architecture_.activation, Rows());
  }

  Linear::Rows Rows() const {
    return options_.batch_invariant ? Linear::Rows::kIndependent : Linear::Rows::kFast;
  }

  Block MakeBlock(const std::string& prefix) const {
    const Architecture& a = architecture_;
    const auto norm = [&](const char* name) { return NormWeight(prefix + name + ".weight"); };
    Block block;
    block.attention_norm = norm("input_layernorm");
    block.qkv = MakeLinear(prefix, kQkv, a.qkv_bias);
    if (a.head_norms) {
      block.query_norm = norm("self_attn.q_norm");
      block.key_norm = norm("self_attn.k_norm");
    }
    block.output = MakeLinear(prefix, kOutput, a.output_bias);
    if (a.post_norms) {
      block.attention_post_norm = norm("post_attention_layernorm");
      block.mlp_norm = norm("pre_feedforward_layernorm");
      block.mlp_post_norm = norm("post_feedforward_layernorm");
    } else {
      block.mlp_norm = norm("post_attention_layernorm");
    }
    block.gate = MakeGate(prefix);
    block.down = MakeLinear(prefix, kDown, a.mlp_bias);
    return block;
  }

  // All of them, in the order of the forward pass.
  std::vector<PlacedProjection> Projections() const {
    std::vector<PlacedProjection> all;
    for (int layer = 0; layer < architecture_.num_layers; ++layer) {
      const Block& block = blocks_[layer];
      const auto add = [&](const Projection& projection, Site site, Parts parts) {
        all.push_back(
            {projection, Normalised({site, layer}), NamesOf(PrefixOf(layer), parts, ".weight")});
      };
      add(*block.qkv, Site::kResidualPre, kQkv);
      add(*block.output, Site::kAttentionHeads, kOutput);
      add(*block.gate, Site::kResidualMid, kGate);
      add(*block.down, Site::kMlpNeurons, kDown);
    }
    all.push_back({*unembedding_, {Site::kFinalNorm, 0}, {kUnembeddingWeight}});
    return all;
  }

  // Those that a gradient passes on its way back from path.to to path.from.
  std::vector<PlacedProjection> ProjectionsOn(const GradientPath& path) const {
    const int from = WireIndex(path.from, architecture_), to = WireIndex(path.to, architecture_);
    std::vector<PlacedProjection> passed;
    for (const PlacedProjection& each : Projections()) {
      const int reads = WireIndex(each.reads, architecture_);
      if (from <= reads && reads < to) passed.push_back(each);
    }
    return passed;
  }

  // Cosines and sines of every position in float32, by the steps that transformers takes.
  void MakeRotations() {
    const int64_t half = architecture_.head_dim / 2;
    const at::Tensor exponents =
        at::arange(0, 2 * half, 2, at::kFloat) / static_cast<double>(architecture_.head_dim);
    at::Tensor frequencies = 1.0 / at::pow(architecture_.rope_theta, exponents);
    if (architecture_.long_rope) frequencies = Stretched(frequencies, *architecture_.long_rope);
    const at::Tensor positions = at::arange(architecture_.max_positions, at::kFloat);
    const at::Tensor angles = positions.unsqueeze(1) * frequencies.unsqueeze(0);
    cosines_ = at::cos(angles).contiguous().to(options_.device);
    sines_ = at::sin(angles).contiguous().to(options_.device);
  }

  void RunBlock(int layer, at::Tensor& x, const Step& step) const {
    const Block& block = blocks_[layer];
    const Operators& operators = step.operators;
    at::Tensor attended = Attend(layer, Norm(x, block.attention_norm, step), step);
    Visit({Site::kAttentionHeads, layer}, attended, step);
    at::Tensor written = operators.Apply(*block.output, attended);
    if (architecture_.post_norms) written = Norm(written, block.attention_post_norm, step);
    Visit({Site::kAttentionOutput, layer}, written, step);
    operators.Add(x, written);
    Visit({Site::kResidualMid, layer}, x, step);

    const at::Tensor normed = Norm(x, block.mlp_norm, step);
    if (IsRead({Site::kMlpGate, layer}, step)) {
      at::Tensor gates = block.gate->Gates(normed.detach()).contiguous();
      Visit({Site::kMlpGate, layer}, gates, step);
    }
    at::Tensor neurons = operators.Apply(*block.gate, normed);
    Visit({Site::kMlpNeurons, layer}, neurons, step);
    written = operators.Apply(*block.down, neurons);
    if (IsRead({Site::kMlpWritten, layer}, step)) {
      at::Tensor scaled = Scaled(neurons.detach(), written.detach());
      Visit({Site::kMlpWritten, layer}, scaled, step);
    }
    if (architecture_.post_norms) {
      written = operators.MlpPostNorm(layer, written, block.mlp_post_norm,
                                      architecture_.rms_norm_epsilon);
    }
    Visit({Site::kMlpOutput, layer}, written, step);
    operators.Add(x, written);
    Visit({Site::kResidualPost, layer}, x, step);
  }

  bool IsRead(Wire wire, const Step& step) const {
    return !step.program[WireIndex(wire, architecture_)].empty();
  }

  // MLP_WRITTEN of neurons [n, intermediate] and what down_proj makes of them [n, hidden].
  at::Tensor Scaled(const at::Tensor& neurons, const at::Tensor& written) const {
    if (!architecture_.post_norms) return neurons;
    return neurons.to(at::kFloat) * reference::RmsFactor(written, architecture_.rms_norm_epsilon);
  }

  // The heads' outputs, [num_tokens, num_heads * head_dim].
  at::Tensor Attend(int layer, const at::Tensor& normed, const Step& step) const {
    const Block& block = blocks_[layer];
    at::Tensor &keys = step.cache.keys[layer], &values = step.cache.values[layer];
    const Operators& operators = step.operators;
    at::Tensor qkv = operators.Apply(*block.qkv, normed);
    if (architecture_.head_norms) {
      operators.NormHeads(qkv, block.query_norm, block.key_norm, architecture_.rms_norm_epsilon,
                          heads());
    }
    operators.RotateAndCache(qkv, step.cosines, step.sines, step.batch.cache_slots, keys, values,
                             heads());
    return operators.Attention(qkv, keys, values, step.batch,
                               step.plans.at(architecture_.windows[layer]), heads(), Scores(layer));
  }

  at::Tensor Norm(const at::Tensor& x, const at::Tensor& weight, const Step& step) const {
    return step.operators.RmsNorm(x, weight, architecture_.rms_norm_epsilon);
  }

  // [n, hidden] -> logits [n, vocabulary] float32
  at::Tensor Unembed(const at::Tensor& normed, const Operators& operators) const {
    at::Tensor logits = operators.Apply(*unembedding_, normed).to(at::kFloat);
    if (architecture_.final_soft_cap > 0) operators.SoftCap(logits, architecture_.final_soft_cap);
    return logits;
  }

  // Everything users asked of this wire: edits in order, then taps.
  void Visit(Wire wire, at::Tensor& x, const Step& step) const {
    const int index = WireIndex(wire, architecture_);
    const WireProgram& wanted = step.program[index];
    for (const Stage& stage : wanted.stages) {
      step.operators.Edit(x, stage, step.batch.table_rows);
    }
    step.operators.Pass(index, x);
    for (const TapStage& tap : wanted.taps) step.operators.Tap(x, tap);
  }

  Architecture architecture_;
  LoadOptions options_;
  std::unique_ptr<StoredWeights> stored_;
  const std::vector<WeightSpec> table_;
  std::string digest_;
  at::Tensor embedding_;        // [vocabulary, hidden]
  at::Tensor embedding_scale_;  // one number in the model's dtype, where there is one
  at::Tensor cosines_, sines_;  // [max_positions, head_dim / 2] float32
  std::vector<Block> blocks_;
  at::Tensor final_norm_;                // [hidden]
  std::unique_ptr<Linear> unembedding_;  // hidden -> vocabulary
};

absl::StatusOr<std::string> ReadConfig(const std::string& folder) {
  VS_ASSIGN_OR_RETURN(const auto config, ModelFile::Open(folder, "config.json"));
  return config->ReadAll(kMaxConfigBytes);
}

// Weights are allocated once and stay, with temporary copies in between, which on a heap leave
// holes of half the weights' size. While this lives, large allocations have pages of their own;
// after it they come from the heap again, where a step gets its activations without page faults.
class PagesOfTheirOwn {
 public:
  PagesOfTheirOwn() { mallopt(M_MMAP_THRESHOLD, 1 << 20); }
  ~PagesOfTheirOwn() {
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 64 << 20);
    malloc_trim(0);
  }
};

absl::StatusOr<std::unique_ptr<Transformer>> LoadOrThrow(const std::string& folder,
                                                         const LoadOptions& options) {
  VS_ASSIGN_OR_RETURN(const std::string config, ReadConfig(folder));
  VS_ASSIGN_OR_RETURN(Architecture architecture, ParseArchitecture(config));
  VS_ASSIGN_OR_RETURN(auto stored, StoredWeights::Open(folder, architecture));
  auto model =
      std::make_unique<LoadedTransformer>(std::move(architecture), options, std::move(stored));
  // Not in inference mode: what is made there can take no part in a graph.
  const c10::NoGradGuard guard;
  const PagesOfTheirOwn pages;
  // Kernels are made for a number of threads.
  if (options.threads > 0) at::set_num_threads(options.threads);
  VS_RETURN_IF_ERROR(model->Load(config));
  return model;
}

}  // namespace

absl::StatusOr<Architecture> ReadArchitecture(const std::string& folder) {
  VS_ASSIGN_OR_RETURN(const std::string config, ReadConfig(folder));
  return ParseArchitecture(config);
}

absl::StatusOr<std::unique_ptr<Transformer>> Transformer::Load(const std::string& folder,
                                                               const LoadOptions& options) {
  // Parsing allocates by what the files say, so it is inside as well.
  try {
    return LoadOrThrow(folder, options);
  } catch (const std::bad_alloc&) {
    return NeverFits("MODEL_TOO_LARGE", "the model does not fit the memory");
  } catch (const c10::OutOfMemoryError&) {
    return NeverFits("MODEL_TOO_LARGE", "the model does not fit the device's memory");
  } catch (const std::exception&) {
    return ErrorWithReason(absl::StatusCode::kInternal, "MODEL_LOAD_FAILED",
                           "the model could not be put on its device");
  }
}

}  // namespace valuescope::model
