#include "model/transformer.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "model/device_types.h"
#include "model/kernels.h"
#include "model/linear.h"
#include "model/safetensors.h"
#include "model/site.h"
#include "model/weights.h"

namespace valuescope::model {
namespace {

constexpr size_t kMaxConfigBytes = 1 << 20;

// One block's weights, fused where the forward pass wants one product.
struct Block {
  at::Tensor input_norm;            // [hidden]
  std::unique_ptr<Linear> qkv;      // hidden -> (num_heads + 2 num_kv_heads) * head_dim
  std::unique_ptr<Linear> output;   // num_heads * head_dim -> hidden
  at::Tensor post_attention_norm;   // [hidden]
  std::unique_ptr<Linear> gate_up;  // hidden -> 2 * intermediate
  std::unique_ptr<Linear> down;     // intermediate -> hidden
};

class LoadedTransformer : public Transformer {
 public:
  LoadedTransformer(Architecture architecture, LoadOptions options,
                    std::unique_ptr<StoredWeights> stored, std::string digest)
      : architecture_(std::move(architecture)),
        options_(std::move(options)),
        stored_(std::move(stored)),
        digest_(std::move(digest)) {
    MakeRotations();
    embedding_ = Weight("model.embed_tokens.weight");
    for (int layer = 0; layer < architecture_.num_layers; ++layer) {
      blocks_.push_back(MakeBlock(absl::StrCat("model.layers.", layer, ".")));
    }
    final_norm_ = Weight("model.norm.weight");
    unembedding_ =
        Linear::Create(architecture_.tied_embeddings ? embedding_ : Weight("lm_head.weight"));
  }

  const Architecture& architecture() const override { return architecture_; }
  DType dtype() const override { return options_.dtype; }
  c10::Device device() const override { return options_.device; }
  const std::string& weights_digest() const override { return digest_; }

  at::Tensor Forward(const StepBatch& batch, KvCache& cache,
                     const StepProgram& program) const override {
    const c10::InferenceMode guard;
    // at::index, because index_select has no kernel for meta tensors.
    at::Tensor x = at::index(embedding_, {batch.token_ids});  // [num_tokens, hidden]
    Visit({Site::kEmbedding, 0}, x, batch, program);
    for (int layer = 0; layer < architecture_.num_layers; ++layer) {
      RunBlock(layer, x, batch, cache, program);
    }
    at::Tensor normed = RmsNorm(x, final_norm_, architecture_.rms_norm_epsilon);
    Visit({Site::kFinalNorm, 0}, normed, batch, program);
    const bool everywhere = !program[WireIndex({Site::kLogits, 0}, architecture_)].empty();
    if (everywhere) {
      at::Tensor logits = unembedding_->Apply(normed).to(at::kFloat);
      Visit({Site::kLogits, 0}, logits, batch, program);
      return at::index(logits, {batch.logit_tokens});
    }
    return unembedding_->Apply(at::index(normed, {batch.logit_tokens})).to(at::kFloat);
  }

  at::Tensor WriteDirections(int layer) const override {
    return stored_->Get(absl::StrCat("model.layers.", layer, ".mlp.down_proj.weight"), at::kFloat)
        .contiguous();
  }

 private:
  at::Tensor Weight(const std::string& name) const {
    return stored_->Get(name, ScalarTypeOf(options_.dtype)).to(options_.device);
  }

  Block MakeBlock(const std::string& prefix) const {
    const auto weight = [&](const char* name) { return Weight(prefix + name); };
    return {.input_norm = weight("input_layernorm.weight"),
            .qkv = Linear::Create(
                at::cat({weight("self_attn.q_proj.weight"), weight("self_attn.k_proj.weight"),
                         weight("self_attn.v_proj.weight")})),
            .output = Linear::Create(weight("self_attn.o_proj.weight")),
            .post_attention_norm = weight("post_attention_layernorm.weight"),
            .gate_up = Linear::Create(
                at::cat({weight("mlp.gate_proj.weight"), weight("mlp.up_proj.weight")})),
            .down = Linear::Create(weight("mlp.down_proj.weight"))};
  }

  // Cosines and sines of every position in float32, by the steps that transformers takes.
  void MakeRotations() {
    const int64_t half = architecture_.head_dim / 2;
    const at::Tensor exponents =
        at::arange(0, 2 * half, 2, at::kFloat) / static_cast<double>(architecture_.head_dim);
    const at::Tensor frequencies = 1.0 / at::pow(architecture_.rope_theta, exponents);
    const at::Tensor positions = at::arange(architecture_.max_positions, at::kFloat);
    const at::Tensor angles = positions.unsqueeze(1) * frequencies.unsqueeze(0);
    cosines_ = at::cos(angles).contiguous().to(options_.device);
    sines_ = at::sin(angles).contiguous().to(options_.device);
  }

  void RunBlock(int layer, at::Tensor& x, const StepBatch& batch, KvCache& cache,
                const StepProgram& program) const {
    const Block& block = blocks_[layer];
    const HeadShape heads{architecture_.num_heads, architecture_.num_kv_heads,
                          architecture_.head_dim};
    at::Tensor qkv = block.qkv->Apply(RmsNorm(x, block.input_norm, architecture_.rms_norm_epsilon));
    RotateAndCache(qkv, cosines_, sines_, batch.positions, batch.cache_slots, cache.keys[layer],
                   cache.values[layer], heads);
    at::Tensor attended = Attention(qkv, cache.keys[layer], cache.values[layer], batch.sequences,
                                    batch.positions, batch.block_tables, heads);
    Visit({Site::kAttentionHeads, layer}, attended, batch, program);
    at::Tensor written = block.output->Apply(attended);
    Visit({Site::kAttentionOutput, layer}, written, batch, program);
    x = x.add_(written);
    Visit({Site::kResidualMid, layer}, x, batch, program);

    at::Tensor neurons = SiluMultiply(block.gate_up->Apply(
        RmsNorm(x, block.post_attention_norm, architecture_.rms_norm_epsilon)));
    Visit({Site::kMlpNeurons, layer}, neurons, batch, program);
    written = block.down->Apply(neurons);
    Visit({Site::kMlpOutput, layer}, written, batch, program);
    x = x.add_(written);
    Visit({Site::kResidualPost, layer}, x, batch, program);
  }

  // Everything users asked of this wire: additions in order, then taps.
  void Visit(Wire wire, at::Tensor& x, const StepBatch& batch, const StepProgram& program) const {
    const WireProgram& wanted = program[WireIndex(wire, architecture_)];
    for (const AddStage& stage : wanted.additions) AddRows(x, stage.rows, batch.table_rows);
    for (const TapStage& tap : wanted.taps) {
      at::Tensor destination = tap.destination;
      switch (tap.operation) {
        case TapOperation::kCopy:
          TapCopy(x, tap.tokens, tap.rows, destination);
          break;
        case TapOperation::kSum:
          TapSum(x, tap.tokens, tap.rows, destination);
          break;
        case TapOperation::kMax:
          TapMax(x, tap.tokens, tap.rows, destination);
          break;
      }
    }
  }

  Architecture architecture_;
  LoadOptions options_;
  std::unique_ptr<StoredWeights> stored_;
  std::string digest_;
  at::Tensor embedding_;        // [vocabulary, hidden]
  at::Tensor cosines_, sines_;  // [max_positions, head_dim / 2] float32
  std::vector<Block> blocks_;
  at::Tensor final_norm_;                // [hidden]
  std::unique_ptr<Linear> unembedding_;  // hidden -> vocabulary
};

absl::StatusOr<std::unique_ptr<Transformer>> LoadOrThrow(const std::string& folder,
                                                         const LoadOptions& options) {
  VS_ASSIGN_OR_RETURN(const auto config, MappedFile::Open(folder, "config.json"));
  if (config->bytes().size() > kMaxConfigBytes) {
    return ErrorWithReason(absl::StatusCode::kInvalidArgument, "MALFORMED_MODEL_FILE",
                           "config.json is over 1 MiB");
  }
  VS_ASSIGN_OR_RETURN(Architecture architecture, ParseArchitecture(config->bytes()));
  VS_ASSIGN_OR_RETURN(auto stored, StoredWeights::Open(folder, architecture));
  // Packing is quick beside reading: the digest, which touches every byte, is the progress.
  std::string digest = stored->Digest(config->bytes(), options.progress);
  const c10::InferenceMode guard;
  return std::make_unique<LoadedTransformer>(std::move(architecture), options, std::move(stored),
                                             std::move(digest));
}

}  // namespace

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
