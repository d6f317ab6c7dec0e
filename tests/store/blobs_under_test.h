// The blob stores that every test of their behaviour runs on.
#ifndef VALUESCOPE_TESTS_STORE_BLOBS_UNDER_TEST_H_
#define VALUESCOPE_TESTS_STORE_BLOBS_UNDER_TEST_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "store/blob_store.h"

namespace valuescope::store {

enum class BlobPlace { kDirectory, kS3 };
inline constexpr BlobPlace kBlobPlaces[] = {BlobPlace::kDirectory, BlobPlace::kS3};

inline std::string NameOfPlace(const testing::TestParamInfo<BlobPlace>& info) {
  return info.param == BlobPlace::kDirectory ? "Directory" : "S3";
}

// A place for blobs, empty at first.
class BlobsUnderTest {
 public:
  virtual ~BlobsUnderTest() = default;
  // Over what earlier ones left, as servers that share it do.
  virtual absl::StatusOr<std::unique_ptr<BlobStore>> Open() = 0;
  // Files or objects that are there: blobs, and what is unfinished.
  virtual int Kept() = 0;
  // Makes what was finished, or begun, of `digest` older.
  virtual void Age(const std::string& digest, absl::Duration by) = 0;
  // Somebody else's bytes, beside the blobs.
  virtual void PutStray(const std::string& name) = 0;
};

std::unique_ptr<BlobsUnderTest> MakeBlobs(BlobPlace place);

}  // namespace valuescope::store

#endif  // VALUESCOPE_TESTS_STORE_BLOBS_UNDER_TEST_H_
