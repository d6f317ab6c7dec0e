// Jobs that extract vectors, and what they leave.
#ifndef VALUESCOPE_TESTS_KINDS_EXTRACTION_JOBS_H_
#define VALUESCOPE_TESTS_KINDS_EXTRACTION_JOBS_H_

#include <gtest/gtest.h>

#include <string>

#include "tests/kinds/small_site.h"

namespace valuescope::kinds {

inline v1::JobSpec SpecOf(const v1::ExtractVectorsRequest& request) {
  v1::JobSpec spec;
  *spec.mutable_extract_vectors() = request;
  return spec;
}

// Of an artifact.
inline std::string BytesOf(SmallSite& site, const std::string& artifact) {
  const auto resource =
      site.store->GetResource("lab", store::ResourceKind::kArtifact, IdOf(artifact));
  EXPECT_TRUE(resource.ok()) << resource.status();
  return *store::ReadBlob(*site.blobs, resource->blob_digest, 1 << 20);
}

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_TESTS_KINDS_EXTRACTION_JOBS_H_
