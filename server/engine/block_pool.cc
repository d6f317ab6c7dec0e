#include "engine/block_pool.h"

#include "base/check.h"

namespace valuescope::engine {

BlockPool::BlockPool(int64_t num_blocks) : blocks_(static_cast<size_t>(num_blocks)) {
  for (int64_t block = num_blocks - 1; block >= 0; --block) free_.push_back(block);
}

int64_t BlockPool::Take() {
  VS_CHECK(available() > 0);
  int64_t block;
  if (!free_.empty()) {
    block = free_.back();
    free_.pop_back();
  } else {
    block = unused_.begin()->second;
    unused_.erase(unused_.begin());
    by_key_.erase(At(block).key);
    At(block).key.clear();
  }
  At(block).holders = 1;
  return block;
}

std::optional<int64_t> BlockPool::Find(const BlockKey& key) const {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return std::nullopt;
  return found->second;
}

void BlockPool::Hold(int64_t block) {
  VS_CHECK(published(block));
  if (At(block).holders++ == 0) unused_.erase(At(block).released_at);
}

void BlockPool::Release(int64_t block) {
  VS_CHECK(holders(block) > 0);
  if (--At(block).holders > 0) return;
  if (!published(block)) {
    free_.push_back(block);
    return;
  }
  At(block).released_at = ++releases_;
  unused_.emplace(releases_, block);
}

void BlockPool::Publish(int64_t block, const BlockKey& key) {
  VS_CHECK(holders(block) > 0);
  if (published(block)) return;
  if (by_key_.emplace(key, block).second) At(block).key = key;
}

}  // namespace valuescope::engine
