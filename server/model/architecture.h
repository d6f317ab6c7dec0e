// What config.json says about a decoder-only transformer, as data: the one forward pass reads this
// description instead of having a subclass a family. Both published layouts of config.json load
// (rope_theta / rope_scaling / torch_dtype, and rope_parameters / dtype).
#ifndef VALUESCOPE_MODEL_ARCHITECTURE_H_
#define VALUESCOPE_MODEL_ARCHITECTURE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/dtype.h"

namespace valuescope::model {

enum class Activation : uint8_t { kSilu, kGeluTanh };

// The frequencies of Llama 3.1: long wavelengths are stretched by `factor`, short ones stay, those
// between are blended. Wavelengths are short below original_positions / high_frequency_factor
// tokens and long above original_positions / low_frequency_factor.
struct LongRope {
  double factor = 1;
  double low_frequency_factor = 1;
  double high_frequency_factor = 4;
  double original_positions = 8192;

  friend bool operator==(const LongRope&, const LongRope&) = default;
};

struct Architecture {
  std::string family;  // config.json's model_type: "llama", "qwen2", "qwen3", "mistral", "gemma2"
  int num_layers = 0;  // blocks
  int64_t hidden = 0;  // width of the residual stream
  int64_t intermediate = 0;   // MLP neurons a block
  int64_t num_heads = 0;      // query heads
  int64_t num_kv_heads = 0;   // key/value heads; divides num_heads
  int64_t head_dim = 0;       // explicit, or hidden / num_heads
  int64_t vocabulary = 0;     // rows of the embedding
  int64_t max_positions = 0;  // context length in tokens
  double rms_norm_epsilon = 1e-6;
  bool tied_embeddings = false;          // the unembedding is the embedding
  DType stored_dtype = DType::kFloat32;  // torch_dtype of the folder
  std::vector<int64_t>
      eos_token_ids;  // config.json's; generation_config.json's take precedence in text/

  // Positions
  double rope_theta = 10000.0;
  std::optional<LongRope> long_rope;

  // Attention
  bool qkv_bias = false;
  bool output_bias = false;
  bool head_norms = false;     // RMS norm of every query and key head before the rotation (Qwen3)
  double attention_scale = 0;  // of query . key
  double attention_soft_cap = 0;  // 0: none
  std::vector<int64_t> windows;   // a layer: tokens that attention sees, its own included; 0: all

  // MLP
  Activation activation = Activation::kSilu;
  bool mlp_bias = false;

  // Norms and ends
  bool unit_offset_norms = false;  // a norm multiplies by 1 + weight (Gemma)
  bool post_norms =
      false;  // what attention and the MLP write is normed before it is added (Gemma 2)
  double embedding_scale = 1;  // rounded to the model's dtype before it multiplies
  double final_soft_cap = 0;   // of the logits; 0: none

  friend bool operator==(const Architecture&, const Architecture&) = default;
};

// Weights of a model, tied ones counted once; 2^56 where there are more, so that bytes can be
// counted in 64 bits.
int64_t NumParameters(const Architecture& architecture);

// Reads config.json's text. Refuses, naming the key: an unknown model_type, missing or non-integer
// sizes, sizes outside what this server can address (each dimension 1 .. 2^24, layers 1 .. 1024),
// num_heads not divisible by num_kv_heads, an odd head_dim, rope scaling of a kind not served,
// biases, activations or windows that the family does not have, quantised weights, JSON that is
// malformed or nested deeper than 64.
absl::StatusOr<Architecture> ParseArchitecture(absl::string_view config_json);

// The same for the config.json of a folder.
absl::StatusOr<Architecture> ReadArchitecture(const std::string& folder);

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_ARCHITECTURE_H_
