// What a full cache block contains, as a name that two sequences can compare. Keys and values of a
// token depend on every token up to it and on the interventions that acted on them, so a block's
// key is a hash chain:
//
//   key(b) = SHA-256(key(b - 1), the block's tokens, the interventions active at each of them)
//
// begun with the tenant, so that nobody learns from timing what another tenant sent. SHA-256 has
// no collisions that anybody could make, so equal keys are equal content: a steered prefix is never
// taken for another.
#ifndef VALUESCOPE_ENGINE_PREFIX_KEYS_H_
#define VALUESCOPE_ENGINE_PREFIX_KEYS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace valuescope::engine {

using BlockKey = std::string;

// Names what acts on the token at a position; empty: nothing does. Equal names do equal things.
using SteeringNamer = std::function<std::string(int64_t position)>;

// The chain of one sequence. It grows with the sequence and never changes.
class PrefixKeys {
 public:
  PrefixKeys(absl::string_view tenant, int64_t block_size);

  // The keys of the full blocks of `ids` that were not given out before, in order.
  std::vector<BlockKey> Extend(const std::vector<int32_t>& ids, const SteeringNamer& steering);

 private:
  int64_t block_size_;
  BlockKey parent_;
  int64_t named_ = 0;  // blocks
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_PREFIX_KEYS_H_
