// The pass of a sequence as it is, before copies of it restart (restart.h): what it carries is kept
// at the positions that run again, and its keys and values are what the copies share.
#ifndef VALUESCOPE_ENGINE_CLEAN_PASS_H_
#define VALUESCOPE_ENGINE_CLEAN_PASS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "engine/restart.h"
#include "model/kv_cache.h"
#include "model/site.h"
#include "model/step.h"
#include "model/transformer.h"

namespace valuescope::engine {

class CleanPass {
 public:
  // Both outlive it.
  CleanPass(const model::Transformer& transformer, const Restart& restart);

  // What `site` of `layer` carries where copies run: [positions, width] float32, filled by Run.
  at::Tensor Keep(model::Site site, int layer);

  // Once, after all Keeps. Returns the cache for copies of `ids` that run the blocks from `first`
  // on. Throws std::bad_alloc.
  model::KvCache Run(std::span<const int64_t> ids, int first);

 private:
  const model::Transformer& transformer_;
  const Restart& restart_;
  model::StepProgram program_;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_CLEAN_PASS_H_
