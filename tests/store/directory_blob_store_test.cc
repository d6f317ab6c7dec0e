// What blobs in a directory have beside what all blob stores do.
#include "store/directory_blob_store.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/sha256.h"
#include "store/blob_store.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::store {
namespace {

namespace fs = std::filesystem;

class DirectoryBlobStoreTest : public testing::Test {
 protected:
  void SetUp() override { Open(); }

  void Open() {
    blobs_.reset();
    auto opened = OpenDirectoryBlobStore(folder_ / "blobs");
    ASSERT_TRUE(opened.ok()) << opened.status();
    blobs_ = *std::move(opened);
  }

  int FilesIn(const std::string& folder) {
    int files = 0;
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      files += entry.is_regular_file() && entry.path().filename() != ".lock";
    }
    return files;
  }

  TemporaryFolder folder_;
  std::unique_ptr<BlobStore> blobs_;
};

TEST_F(DirectoryBlobStoreTest, OpeningRemovesWhatADeadProcessHadNotFinished) {
  std::ofstream(folder_ / "blobs/incoming/left-behind") << "half";
  ASSERT_EQ(FilesIn(folder_ / "blobs"), 1);
  Open();
  EXPECT_EQ(FilesIn(folder_ / "blobs"), 0);
}

TEST_F(DirectoryBlobStoreTest, HostileDigestsNeverBecomePaths) {
  std::ofstream(folder_ / "secret") << "secret";
  std::string upper = Sha256Hex("x");
  upper[0] = 'A';
  for (const std::string& digest :
       {std::string("../secret"), std::string("../../secret"), std::string(), std::string(64, '/'),
        std::string(64, '\0'), std::string(63, 'a'), std::string(65, 'a'), upper}) {
    EXPECT_EQ(blobs_->Read(digest, 0, 1).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(blobs_->Size(digest).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(blobs_->Remove(digest, -absl::InfiniteDuration()).code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(fs::exists(folder_ / "secret"));
}

TEST_F(DirectoryBlobStoreTest, ASecondOpeningIsRefused) {
  const absl::Status status = OpenDirectoryBlobStore(folder_ / "blobs").status();
  EXPECT_EQ(DetailsOf(status).reason, "STORE_IN_USE");
}

TEST_F(DirectoryBlobStoreTest, WhoUsesADirectoryAloneSharesItWithNobody) {
  const std::string folder = folder_ / "shared";
  const auto first = OpenDirectoryBlobStore(folder, LockMode::kShared);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(DetailsOf(OpenDirectoryBlobStore(folder).status()).reason, "STORE_IN_USE")
      << "nobody uses it alone meanwhile";
}

TEST_F(DirectoryBlobStoreTest, WhatWasLeftBehindInASharedDirectoryIsRemovedADayLater) {
  const std::string folder = folder_ / "shared";
  ASSERT_TRUE(OpenDirectoryBlobStore(folder, LockMode::kShared).ok());
  for (const char* name : {"old", "young"}) std::ofstream(folder + "/incoming/" + name) << "half";
  fs::last_write_time(folder + "/incoming/old",
                      fs::file_time_type::clock::now() - std::chrono::hours(25));
  ASSERT_TRUE(OpenDirectoryBlobStore(folder, LockMode::kShared).ok());
  EXPECT_FALSE(fs::exists(folder + "/incoming/old"));
  EXPECT_TRUE(fs::exists(folder + "/incoming/young"));
}

}  // namespace
}  // namespace valuescope::store
