// What config.json says about a decoder-only transformer, as data: the one forward pass reads this
// description instead of having a subclass a family. Both published layouts of config.json load
// (rope_theta / rope_scaling / torch_dtype, and rope_parameters / dtype).
#ifndef VALUESCOPE_MODEL_ARCHITECTURE_H_
#define VALUESCOPE_MODEL_ARCHITECTURE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/dtype.h"

namespace valuescope::model {

struct Architecture {
  std::string family;         // config.json's model_type: "llama"
  int num_layers = 0;         // blocks
  int64_t hidden = 0;         // width of the residual stream
  int64_t intermediate = 0;   // MLP neurons a block
  int64_t num_heads = 0;      // query heads
  int64_t num_kv_heads = 0;   // key/value heads; divides num_heads
  int64_t head_dim = 0;       // explicit, or hidden / num_heads
  int64_t vocabulary = 0;     // rows of the embedding
  int64_t max_positions = 0;  // context length in tokens
  double rope_theta = 10000.0;
  double rms_norm_epsilon = 1e-6;
  bool tied_embeddings = false;          // the unembedding is the embedding
  DType stored_dtype = DType::kFloat32;  // torch_dtype of the folder
  std::vector<int64_t>
      eos_token_ids;  // config.json's; generation_config.json's take precedence in text/
};

// Reads config.json's text. Refuses, naming the key: an unknown model_type, missing or non-integer
// sizes, sizes outside what this server can address (each dimension 1 .. 2^24, layers 1 .. 1024),
// num_heads not divisible by num_kv_heads, an odd head_dim, rope scaling of a kind not served,
// biases or activations that the family does not have, JSON that is malformed or nested deeper
// than 64.
absl::StatusOr<Architecture> ParseArchitecture(absl::string_view config_json);

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_ARCHITECTURE_H_
