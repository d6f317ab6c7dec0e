#include "store/blob_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/sha256.h"
#include "store/directory_blob_store.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::store {
namespace {

namespace fs = std::filesystem;

class BlobStoreTest : public testing::Test {
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

TEST_F(BlobStoreTest, ReadsBackWhatWasWrittenInChunksAfterReopening) {
  auto writer = blobs_->NewWriter();
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->Append("value ").ok());
  ASSERT_TRUE((*writer)->Append("mechanisms").ok());
  EXPECT_EQ((*writer)->size(), 16);
  const auto blob = (*writer)->Finish();
  ASSERT_TRUE(blob.ok());
  EXPECT_EQ(*blob, (StoredBlob{.digest = Sha256Hex("value mechanisms"), .size = 16}));
  writer->reset();
  Open();
  EXPECT_EQ(*ReadBlob(*blobs_, blob->digest, /*max_size=*/16), "value mechanisms");
  EXPECT_EQ(ReadBlob(*blobs_, blob->digest, /*max_size=*/15).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_F(BlobStoreTest, ReadsFromAnyOffsetAndRefusesOnesOutside) {
  const std::string digest = WriteBlob(*blobs_, "0123456789")->digest;
  EXPECT_EQ(*blobs_->Read(digest, 3, 4), "3456");
  EXPECT_EQ(*blobs_->Read(digest, 8, 100), "89");
  EXPECT_EQ(*blobs_->Read(digest, 10, 1), "");
  EXPECT_EQ(*blobs_->Size(digest), 10);
  EXPECT_EQ(blobs_->Read(digest, 11, 1).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(blobs_->Read(digest, -1, 1).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(blobs_->Read(digest, 0, -1).status().code(), absl::StatusCode::kOutOfRange);
}

TEST_F(BlobStoreTest, AWrongDigestStoresNothing) {
  auto writer = blobs_->NewWriter();
  ASSERT_TRUE((*writer)->Append("tampered").ok());
  const absl::Status status = (*writer)->Finish(Sha256Hex("original")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DetailsOf(status).reason, "CHECKSUM_MISMATCH");
  writer->reset();
  EXPECT_EQ(FilesIn(folder_ / "blobs"), 0);
}

TEST_F(BlobStoreTest, AnAbandonedWriteLeavesNothing) {
  auto writer = blobs_->NewWriter();
  ASSERT_TRUE((*writer)->Append("half of it").ok());
  EXPECT_EQ(FilesIn(folder_ / "blobs"), 1);
  writer->reset();
  EXPECT_EQ(FilesIn(folder_ / "blobs"), 0);
}

TEST_F(BlobStoreTest, OpeningRemovesWhatADeadProcessHadNotFinished) {
  std::ofstream(folder_ / "blobs/incoming/left-behind") << "half";
  ASSERT_EQ(FilesIn(folder_ / "blobs"), 1);
  Open();
  EXPECT_EQ(FilesIn(folder_ / "blobs"), 0);
}

TEST_F(BlobStoreTest, EqualBytesAreKeptOnce) {
  ASSERT_TRUE(WriteBlob(*blobs_, "same").ok());
  ASSERT_TRUE(WriteBlob(*blobs_, "same").ok());
  EXPECT_EQ(FilesIn(folder_ / "blobs"), 1);
}

TEST_F(BlobStoreTest, HostileDigestsNeverBecomePaths) {
  std::ofstream(folder_ / "secret") << "secret";
  std::string upper = Sha256Hex("x");
  upper[0] = 'A';
  for (const std::string& digest :
       {std::string("../secret"), std::string("../../secret"), std::string(), std::string(64, '/'),
        std::string(64, '\0'), std::string(63, 'a'), std::string(65, 'a'), upper}) {
    EXPECT_EQ(blobs_->Read(digest, 0, 1).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(blobs_->Size(digest).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(blobs_->Remove(digest, absl::InfiniteFuture()).code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(fs::exists(folder_ / "secret"));
}

TEST_F(BlobStoreTest, RemovesOldBlobsAndKeepsThoseWrittenAgain) {
  const std::string digest = WriteBlob(*blobs_, "bytes")->digest;
  const fs::path file = folder_ / ("blobs/" + digest.substr(0, 2) + "/" + digest);
  fs::last_write_time(file, fs::file_time_type::clock::now() - std::chrono::hours(3));
  ASSERT_TRUE(WriteBlob(*blobs_, "bytes").ok());
  ASSERT_TRUE(blobs_->Remove(digest, absl::Now() - absl::Hours(1)).ok());
  EXPECT_TRUE(blobs_->Size(digest).ok()) << "written again, so it is young";

  fs::last_write_time(file, fs::file_time_type::clock::now() - std::chrono::hours(3));
  ASSERT_TRUE(blobs_->Remove(digest, absl::Now() - absl::Hours(1)).ok());
  EXPECT_EQ(blobs_->Size(digest).status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(blobs_->Remove(digest, absl::Now()).ok()) << "removing twice is no error";
}

TEST_F(BlobStoreTest, AWalkMeetsEveryOldBlobOnceAndNothingElse) {
  std::vector<std::string> written;
  for (int i = 0; i < 40; ++i) written.push_back(WriteBlob(*blobs_, absl::StrCat(i))->digest);
  std::sort(written.begin(), written.end());
  std::ofstream(folder_ / ("blobs/" + written[0].substr(0, 2) + "/stray")) << "not a blob";
  std::ofstream(folder_ / "blobs/incoming/upload") << "half";
  std::vector<std::string> met;
  std::string after;
  while (true) {
    const auto part = blobs_->List(after, /*limit=*/7, absl::InfiniteFuture());
    ASSERT_TRUE(part.ok()) << part.status();
    ASSERT_LE(part->size(), 7u);
    if (part->empty()) break;
    met.insert(met.end(), part->begin(), part->end());
    after = met.back();
  }
  EXPECT_EQ(met, written);
  EXPECT_THAT(*blobs_->List("", 100, absl::Now() - absl::Hours(1)), testing::IsEmpty())
      << "all are young";
}

TEST_F(BlobStoreTest, ASecondOpeningIsRefused) {
  const absl::Status status = OpenDirectoryBlobStore(folder_ / "blobs").status();
  EXPECT_EQ(DetailsOf(status).reason, "STORE_IN_USE");
}

TEST_F(BlobStoreTest, AScratchFileGivesBackWhatWasWrittenAndHasNoName) {
  const auto scratch = blobs_->NewScratchFile();
  ASSERT_TRUE(scratch.ok()) << scratch.status();
  ASSERT_EQ((*scratch)->Write(/*offset=*/6, "world"), absl::OkStatus());
  ASSERT_EQ((*scratch)->Write(/*offset=*/0, "hello "), absl::OkStatus());
  std::string read(7, ' ');
  ASSERT_EQ((*scratch)->Read(/*offset=*/2, read), absl::OkStatus());
  EXPECT_EQ(read, "llo wor");
  EXPECT_EQ((*scratch)->Read(/*offset=*/5, read).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(FilesIn(folder_ / "blobs"), 0);
}

TEST_F(BlobStoreTest, ServersThatShareADirectoryReadAndRemoveWhatOthersWrote) {
  const std::string folder = folder_ / "shared";
  const auto first = OpenDirectoryBlobStore(folder, LockMode::kShared);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(DetailsOf(OpenDirectoryBlobStore(folder).status()).reason, "STORE_IN_USE")
      << "nobody uses it alone meanwhile";
  auto writer = (*first)->NewWriter();
  ASSERT_TRUE((*writer)->Append("bytes").ok());
  const auto second = OpenDirectoryBlobStore(folder, LockMode::kShared);
  ASSERT_TRUE(second.ok()) << second.status();
  const auto blob = (*writer)->Finish();
  ASSERT_TRUE(blob.ok()) << blob.status() << ": the second one took it for left behind";
  EXPECT_EQ(*ReadBlob(**second, blob->digest, /*max_size=*/10), "bytes");
  ASSERT_TRUE((*second)->Remove(blob->digest, absl::InfiniteFuture()).ok());
  EXPECT_EQ((*first)->Size(blob->digest).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(BlobStoreTest, WhatWasLeftBehindInASharedDirectoryIsRemovedADayLater) {
  const std::string folder = folder_ / "shared";
  ASSERT_TRUE(OpenDirectoryBlobStore(folder, LockMode::kShared).ok());
  for (const char* name : {"old", "young"}) std::ofstream(folder + "/incoming/" + name) << "half";
  fs::last_write_time(folder + "/incoming/old",
                      fs::file_time_type::clock::now() - std::chrono::hours(25));
  ASSERT_TRUE(OpenDirectoryBlobStore(folder, LockMode::kShared).ok());
  EXPECT_FALSE(fs::exists(folder + "/incoming/old"));
  EXPECT_TRUE(fs::exists(folder + "/incoming/young"));
}

TEST_F(BlobStoreTest, ABlobThatIsWrittenAgainWhileAnotherServerRemovesItIsThere) {
  const std::string folder = folder_ / "shared";
  const auto writing = OpenDirectoryBlobStore(folder, LockMode::kShared);
  const auto removing = OpenDirectoryBlobStore(folder, LockMode::kShared);
  const std::string digest = Sha256Hex("bytes");
  const std::string path = folder + "/" + digest.substr(0, 2) + "/" + digest;
  for (int round = 0; round < 200; ++round) {
    ASSERT_TRUE(WriteBlob(**writing, "bytes").ok());
    fs::last_write_time(path, fs::file_time_type::clock::now() - std::chrono::hours(2));
    const absl::Time unused_since = absl::Now() - absl::Hours(1);
    std::thread remover([&] { EXPECT_TRUE((*removing)->Remove(digest, unused_since).ok()); });
    EXPECT_TRUE(WriteBlob(**writing, "bytes").ok());
    remover.join();
    ASSERT_TRUE((*writing)->Size(digest).ok()) << "round " << round;
  }
}

}  // namespace
}  // namespace valuescope::store
