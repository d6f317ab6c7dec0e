#include "tests/store/blobs_under_test.h"

#include <chrono>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "store/directory_blob_store.h"
#include "store/s3_blob_store.h"
#include "tests/store/fake_s3.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::store {
namespace {

namespace fs = std::filesystem;

class Directory : public BlobsUnderTest {
 public:
  absl::StatusOr<std::unique_ptr<BlobStore>> Open() override {
    return OpenDirectoryBlobStore(folder_ / "blobs", LockMode::kShared);
  }

  int Kept() override {
    int files = 0;
    for (const auto& entry : fs::recursive_directory_iterator(folder_ / "blobs")) {
      files += entry.is_regular_file() && entry.path().filename().string()[0] != '.';
    }
    return files;
  }

  void Age(const std::string& digest, absl::Duration by) override {
    const fs::path file = folder_ / ("blobs/" + digest.substr(0, 2) + "/" + digest);
    fs::last_write_time(file, fs::last_write_time(file) - absl::ToChronoSeconds(by));
  }

  void PutStray(const std::string& name) override {
    fs::create_directories(fs::path(folder_ / ("blobs/" + name)).parent_path());
    std::ofstream(folder_ / ("blobs/" + name)) << "not a blob";
  }

 private:
  const TemporaryFolder folder_;
};

class S3 : public BlobsUnderTest {
 public:
  S3() { fake_.Tell({{"do", "page"}, {"keys", 6}}); }

  absl::StatusOr<std::unique_ptr<BlobStore>> Open() override {
    return OpenS3BlobStore(fake_.Options());
  }

  int Kept() override {
    return static_cast<int>(fake_.Keys().size() + fake_.Tell({{"do", "uploads"}}).size());
  }

  void Age(const std::string& digest, absl::Duration by) override {
    fake_.Tell({{"do", "age"}, {"key", digest}, {"seconds", absl::ToInt64Seconds(by)}});
  }

  void PutStray(const std::string& name) override {
    fake_.Tell({{"do", "put"}, {"key", absl::StrCat("lab/values/", name)}, {"text", "not a blob"}});
  }

 private:
  FakeS3& fake_ = FakeS3::Anew();
};

}  // namespace

std::unique_ptr<BlobsUnderTest> MakeBlobs(BlobPlace place) {
  if (place == BlobPlace::kDirectory) return std::make_unique<Directory>();
  return std::make_unique<S3>();
}

}  // namespace valuescope::store
