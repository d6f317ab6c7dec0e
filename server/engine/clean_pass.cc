#include "engine/clean_pass.h"

#include <new>
#include <utility>

namespace valuescope::engine {

CleanPass::CleanPass(const model::Transformer& transformer, const Restart& restart)
    : transformer_(transformer),
      restart_(restart),
      program_(static_cast<size_t>(NumWires(transformer.architecture()))) {}

at::Tensor CleanPass::Keep(model::Site site, int layer) {
  return engine::Keep({site, layer}, restart_.copies.begin, restart_.copies.end,
                      transformer_.architecture(), transformer_.device(), program_);
}

model::KvCache CleanPass::Run(std::span<const int64_t> ids, int first) {
  const SequenceCopies& copies = restart_.copies;
  auto cache = model::KvCache::Allocate(transformer_.architecture(), copies.cache_blocks(),
                                        SequenceCopies::kBlockTokens, transformer_.dtype(),
                                        transformer_.device());
  if (!cache.ok()) throw std::bad_alloc();
  const SequenceCopies whole{.end = copies.end};
  const int64_t any[] = {copies.end - 1};  // a step has some logits
  transformer_.Forward(BatchOf(whole, ids, any, transformer_.device()), *cache, program_);
  CopyFirstBlocks(copies, first, restart_.last, *cache);
  return *std::move(cache);
}

}  // namespace valuescope::engine
