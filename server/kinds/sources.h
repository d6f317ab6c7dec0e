// What kinds take models, resources and bytes from.
#ifndef VALUESCOPE_KINDS_SOURCES_H_
#define VALUESCOPE_KINDS_SOURCES_H_

#include <cstdint>

#include "engine/model_registry.h"
#include "services/vector_resolver.h"
#include "store/blob_store.h"
#include "store/store.h"

namespace valuescope::kinds {

// All outlive the kinds.
struct Sources {
  engine::ModelRegistry* models;
  store::Store* store;
  store::BlobStore* blobs;
  services::VectorResolver* vectors;
  // Of disk, that the means of one extraction's responses may take; above it they are summed up and
  // not kept.
  int64_t extraction_scratch_bytes;
};

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_SOURCES_H_
