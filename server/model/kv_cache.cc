#include "model/kv_cache.h"

#include <ATen/ops/empty.h>
#include <sys/mman.h>

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "model/device_types.h"

namespace valuescope::model {
namespace {

// A block's memory comes with its first use, in the middle of a step: on large pages, where the
// system gives them, that is some hundred times less often.
void AskForLargePages(const at::Tensor& tensor) {
  constexpr uintptr_t kLargePage = 2 << 20;
  if (!tensor.is_cpu()) return;
  const auto address = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  const uintptr_t begin = (address + kLargePage - 1) / kLargePage * kLargePage;
  const uintptr_t end = (address + tensor.nbytes()) / kLargePage * kLargePage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

}  // namespace

int64_t KvCache::BytesPerBlock(const Architecture& architecture, int64_t block_size, DType dtype) {
  return 2 * architecture.num_layers * block_size * architecture.num_kv_heads *
         architecture.head_dim * SizeOf(dtype);
}

bool KvCache::KeysAreColumns(const at::Tensor& keys) {
  return keys.size(1) == kColumns && keys.stride(1) == 1 && keys.stride(3) == kColumns;
}

at::Tensor KvCache::EmptyKeys(int64_t num_blocks, int64_t block_size, int64_t num_kv_heads,
                              int64_t head_dim, const at::TensorOptions& options) {
  if (options.device().is_cpu() && block_size == kColumns) {
    return at::empty({num_blocks, num_kv_heads, head_dim, block_size}, options)
        .permute({0, 3, 1, 2});
  }
  return at::empty({num_blocks, block_size, num_kv_heads, head_dim}, options);
}

absl::StatusOr<KvCache> KvCache::Allocate(const Architecture& architecture, int64_t num_blocks,
                                          int64_t block_size, DType dtype, c10::Device device) {
  KvCache cache;
  cache.block_size = block_size;
  const auto options = at::TensorOptions().dtype(ScalarTypeOf(dtype)).device(device);
  try {
    for (int layer = 0; layer < architecture.num_layers; ++layer) {
      cache.keys.push_back(EmptyKeys(num_blocks, block_size, architecture.num_kv_heads,
                                     architecture.head_dim, options));
      cache.values.push_back(at::empty(
          {num_blocks, block_size, architecture.num_kv_heads, architecture.head_dim}, options));
      AskForLargePages(cache.keys.back());
      AskForLargePages(cache.values.back());
    }
  } catch (const std::exception&) {
    return NeverFits("KV_CACHE_TOO_LARGE", absl::StrCat("a key/value cache of ", num_blocks,
                                                        " blocks does not fit the memory"));
  }
  return cache;
}

}  // namespace valuescope::model
