// The blocks of a key/value cache as bookkeeping: who holds each, what a full one contains, and
// which may be taken. Pure policy: it knows block numbers and keys, no tensors.
//
// A block is free, or held by one or more sequences, or cached: full, held by nobody and kept under
// the key of its content until somebody needs the room. What was used longest ago goes first. Only
// the one that took a block may write it, and only until it is published.
#ifndef VALUESCOPE_ENGINE_BLOCK_POOL_H_
#define VALUESCOPE_ENGINE_BLOCK_POOL_H_

#include <cstdint>
#include <map>
#include <optional>
#include <unordered_map>
#include <vector>

#include "engine/prefix_keys.h"

namespace valuescope::engine {

class BlockPool {
 public:
  explicit BlockPool(int64_t num_blocks);

  // A block of unknown content for one holder, who may write it. Takes what is free, else what was
  // cached longest ago, which is then forgotten. Needs available() > 0.
  int64_t Take();

  // The block that has this content, held or cached.
  std::optional<int64_t> Find(const BlockKey& key) const;
  // One more holder of a published block, who may only read it.
  void Hold(int64_t block);
  // One holder less. The last one leaves a published block cached and any other free.
  void Release(int64_t block);

  // A held block is full and will not be written again; others may find it. Without effect where
  // another block has this content already: this one then stays its holder's own.
  void Publish(int64_t block, const BlockKey& key);

  int64_t holders(int64_t block) const { return blocks_[static_cast<size_t>(block)].holders; }
  bool published(int64_t block) const { return !blocks_[static_cast<size_t>(block)].key.empty(); }
  // Held by nobody: free or cached.
  int64_t available() const { return static_cast<int64_t>(free_.size() + unused_.size()); }
  int64_t held() const { return static_cast<int64_t>(blocks_.size()) - available(); }
  int64_t cached() const { return static_cast<int64_t>(unused_.size()); }

 private:
  struct Block {
    int64_t holders = 0;
    BlockKey key;             // empty: not published
    int64_t released_at = 0;  // while cached: its place in unused_
  };

  Block& At(int64_t block) { return blocks_[static_cast<size_t>(block)]; }

  std::vector<Block> blocks_;
  std::vector<int64_t> free_;          // the last one is taken first
  std::map<int64_t, int64_t> unused_;  // cached blocks by the time of their release
  std::unordered_map<BlockKey, int64_t> by_key_;
  int64_t releases_ = 0;  // the clock of unused_
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_BLOCK_POOL_H_
