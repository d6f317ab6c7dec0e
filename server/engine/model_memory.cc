#include "engine/model_memory.h"

#include <fstream>
#include <limits>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/dtype.h"
#include "base/error.h"
#include "model/device_types.h"
#include "model/kernels.h"
#include "model/step_scratch.h"

namespace valuescope::engine {
namespace {

// oneDNN makes a kernel, most of a megabyte, for every number of rows that a product has. A model's
// products are of some five shapes, each is tried with twenty numbers of rows while it loads, and
// the steps have some more.
constexpr int64_t kOneDnnKernelBytes = 96 << 20;

// Bytes that are free where the model goes, swap not counted; nullopt where the system does not
// say.
std::optional<int64_t> FreeMemory(const EngineOptions& options) {
  if (options.free_memory) {
    const absl::StatusOr<int64_t> free = options.free_memory();
    return free.ok() ? std::optional(*free) : std::nullopt;
  }
  std::ifstream file("/proc/meminfo");
  std::string key;
  int64_t kibibytes;
  while (file >> key >> kibibytes) {
    if (key == "MemAvailable:") return kibibytes << 10;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return std::nullopt;
}

}  // namespace

// The weights as they are computed with, the embedding's rows beside a tied unembedding that is
// packed, the cosines and sines of every position, and kernels that a library makes. On a CPU a
// cache takes memory as it is first written to.
MemoryNeed MemoryNeeded(const model::Architecture& architecture, const EngineOptions& options) {
  const c10::Device device(options.device);
  const c10::ScalarType type = model::ScalarTypeOf(options.dtype);
  const bool packs = model::CanPack(device, type);
  const bool two_embeddings = architecture.tied_embeddings && packs;
  const int64_t embedding = two_embeddings ? architecture.vocabulary * architecture.hidden : 0;
  const int64_t rotations =
      2 * architecture.max_positions * (architecture.head_dim / 2) * SizeOf(DType::kFloat32);
  const int64_t kernels = packs && !model::PacksAsOwn(device, type) ? kOneDnnKernelBytes : 0;
  return {.weights = (model::NumParameters(architecture) + embedding) * SizeOf(options.dtype) +
                     rotations + kernels,
          .cache = options.kv_cache_bytes,
          .cache_at_once = !device.is_cpu(),
          .scratch = model::StepScratchBytes(architecture, device, options.dtype,
                                             options.max_step_tokens)};
}

absl::Status CheckFits(int64_t needed, int64_t promised, const EngineOptions& options) {
  const std::optional<int64_t> free = FreeMemory(options);
  if (!free || needed <= *free - promised) return absl::OkStatus();
  const std::string others =
      promised > 0 ? absl::StrCat(", of which models that are loading take ", promised) : "";
  return NeverFits("MODEL_TOO_LARGE",
                   absl::StrCat("the model needs about ", needed, " bytes in ",
                                NameOf(options.dtype), ", ", *free, " are free", others));
}

}  // namespace valuescope::engine
