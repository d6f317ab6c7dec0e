#include "engine/prefix_keys.h"

#include "absl/strings/str_cat.h"
#include "base/sha256.h"

namespace valuescope::engine {

PrefixKeys::PrefixKeys(absl::string_view tenant, int64_t block_size)
    : block_size_(block_size), parent_(Sha256Hex(tenant)) {}

std::vector<BlockKey> PrefixKeys::Extend(const std::vector<int32_t>& ids,
                                         const SteeringNamer& steering) {
  std::vector<BlockKey> keys;
  while ((named_ + 1) * block_size_ <= static_cast<int64_t>(ids.size())) {
    // Every part has a fixed width or says its length, so no two contents are written alike.
    std::string content = parent_;
    for (int64_t position = named_ * block_size_; position < (named_ + 1) * block_size_;
         ++position) {
      const std::string name = steering(position);
      absl::StrAppend(&content, ids[static_cast<size_t>(position)], ":", name.size(), ":", name);
    }
    parent_ = Sha256Hex(content);
    keys.push_back(parent_);
    ++named_;
  }
  return keys;
}

}  // namespace valuescope::engine
