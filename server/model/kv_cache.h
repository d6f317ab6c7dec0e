// Keys and values of every cached token, in blocks of a fixed number of tokens. A sequence owns a
// list of blocks (its row of StepBatch::block_tables); which block belongs to whom is the engine's
// business, the cache only holds the memory. Addresses never change during the cache's life.
#ifndef VALUESCOPE_MODEL_KV_CACHE_H_
#define VALUESCOPE_MODEL_KV_CACHE_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <vector>

#include "model/architecture.h"

namespace valuescope::model {

struct KvCache {
  int64_t block_size = 0;          // tokens a block
  std::vector<at::Tensor> keys;    // a layer: [num_blocks, block_size, num_kv_heads, head_dim]
  std::vector<at::Tensor> values;  // a layer: the same shape, contiguous

  // On a CPU, with blocks of so many tokens, a block's keys are stored as columns: the tensor is a
  // view of [num_blocks, num_kv_heads, head_dim, block_size]. A vector then holds the same element
  // of all keys.
  static constexpr int kColumns = 16;
  static bool KeysAreColumns(const at::Tensor& keys);

  // Uninitialised keys of one layer in the layout that their device wants.
  static at::Tensor EmptyKeys(int64_t num_blocks, int64_t block_size, int64_t num_kv_heads,
                              int64_t head_dim, const at::TensorOptions& options);

  // Bytes that one block takes over all layers.
  static int64_t BytesPerBlock(const Architecture& architecture, int64_t block_size, DType dtype);

  // Uninitialised memory (untouched pages cost nothing on a CPU); at::OutOfMemoryError does not
  // leave this call: RESOURCE_EXHAUSTED.
  static absl::StatusOr<KvCache> Allocate(const Architecture& architecture, int64_t num_blocks,
                                          int64_t block_size, DType dtype, c10::Device device);
};

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_KV_CACHE_H_
