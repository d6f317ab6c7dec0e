#include "model/kv_cache.h"

#include <ATen/ops/empty.h>

#include <new>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "model/device_types.h"

namespace valuescope::model {

int64_t KvCache::BytesPerBlock(const Architecture& architecture, int64_t block_size, DType dtype) {
  return 2 * architecture.num_layers * block_size * architecture.num_kv_heads *
         architecture.head_dim * SizeOf(dtype);
}

absl::StatusOr<KvCache> KvCache::Allocate(const Architecture& architecture, int64_t num_blocks,
                                          int64_t block_size, DType dtype, c10::Device device) {
  KvCache cache;
  cache.block_size = block_size;
  const auto options = at::TensorOptions().dtype(ScalarTypeOf(dtype)).device(device);
  try {
    for (int layer = 0; layer < architecture.num_layers; ++layer) {
      for (auto* side : {&cache.keys, &cache.values}) {
        side->push_back(at::empty(
            {num_blocks, block_size, architecture.num_kv_heads, architecture.head_dim}, options));
      }
    }
  } catch (const std::exception&) {
    return NeverFits("KV_CACHE_TOO_LARGE", absl::StrCat("a key/value cache of ", num_blocks,
                                                        " blocks does not fit the memory"));
  }
  return cache;
}

}  // namespace valuescope::model
