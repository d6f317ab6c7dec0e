// What every blob store does alike.
#include "store/blob_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/sha256.h"
#include "tests/store/blobs_under_test.h"

namespace valuescope::store {
namespace {

class BlobStoreTest : public testing::TestWithParam<BlobPlace> {
 protected:
  void SetUp() override { blobs_ = Open(); }

  std::unique_ptr<BlobStore> Open() {
    auto opened = place_->Open();
    EXPECT_TRUE(opened.ok()) << opened.status();
    return *std::move(opened);
  }

  const std::unique_ptr<BlobsUnderTest> place_ = MakeBlobs(GetParam());
  std::unique_ptr<BlobStore> blobs_;
};

INSTANTIATE_TEST_SUITE_P(Places, BlobStoreTest, testing::ValuesIn(kBlobPlaces), NameOfPlace);

// Bytes that no two places of are alike.
std::string SomeBytes(size_t size) {
  std::string bytes;
  for (size_t i = 0; bytes.size() < size; ++i) absl::StrAppend(&bytes, i, ".");
  bytes.resize(size);
  return bytes;
}

TEST_P(BlobStoreTest, ReadsBackWhatWasWrittenInChunksAfterReopening) {
  auto writer = blobs_->NewWriter();
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->Append("value ").ok());
  ASSERT_TRUE((*writer)->Append("mechanisms").ok());
  EXPECT_EQ((*writer)->size(), 16);
  const auto blob = (*writer)->Finish();
  ASSERT_TRUE(blob.ok()) << blob.status();
  EXPECT_EQ(*blob, (StoredBlob{.digest = Sha256Hex("value mechanisms"), .size = 16}));
  writer->reset();
  blobs_.reset();
  blobs_ = Open();
  EXPECT_EQ(*ReadBlob(*blobs_, blob->digest, /*max_size=*/16), "value mechanisms");
  EXPECT_EQ(ReadBlob(*blobs_, blob->digest, /*max_size=*/15).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_P(BlobStoreTest, BlobsOfEverySizeComeBackByteForByte) {
  for (const size_t size : {0u, 1u, 999u, 1000u, 1001u, 2000u, 12'345u}) {
    const std::string bytes = SomeBytes(size);
    auto writer = blobs_->NewWriter();
    for (size_t i = 0; i < size; i += 700) {
      ASSERT_TRUE((*writer)->Append(absl::string_view(bytes).substr(i, 700)).ok());
    }
    const auto blob = (*writer)->Finish(Sha256Hex(bytes));
    ASSERT_TRUE(blob.ok()) << size << ": " << blob.status();
    EXPECT_EQ(blob->digest, Sha256Hex(bytes));
    EXPECT_EQ(*blobs_->Size(blob->digest), static_cast<int64_t>(size));
    EXPECT_EQ(*blobs_->Read(blob->digest, 0, 1 << 20), bytes);
    EXPECT_EQ(*blobs_->Read(blob->digest, static_cast<int64_t>(size), 1), "");
  }
}

TEST_P(BlobStoreTest, ReadsFromAnyOffsetAndRefusesOnesOutside) {
  const std::string digest = WriteBlob(*blobs_, "0123456789")->digest;
  constexpr int64_t kLongest = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(*blobs_->Read(digest, 3, 4), "3456");
  EXPECT_EQ(*blobs_->Read(digest, 8, 100), "89");
  EXPECT_EQ(*blobs_->Read(digest, 8, kLongest), "89");
  EXPECT_EQ(*blobs_->Read(digest, 10, 1), "");
  EXPECT_EQ(*blobs_->Read(digest, 2, 0), "");
  EXPECT_EQ(*blobs_->Size(digest), 10);
  EXPECT_EQ(blobs_->Read(digest, 11, 1).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(blobs_->Read(digest, 11, 0).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(blobs_->Read(digest, kLongest, kLongest).status().code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ(blobs_->Read(digest, -1, 1).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(blobs_->Read(digest, 0, -1).status().code(), absl::StatusCode::kOutOfRange);
}

TEST_P(BlobStoreTest, WhatIsNotThereIsNotFound) {
  const std::string digest = Sha256Hex("never written");
  for (const absl::Status& status :
       {blobs_->Size(digest).status(), blobs_->Read(digest, 0, 1).status(),
        blobs_->Read(digest, 0, 0).status(), blobs_->Read(digest, -1, 1).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
    EXPECT_EQ(DetailsOf(status).reason, "BLOB_NOT_FOUND");
  }
}

TEST_P(BlobStoreTest, OnlyDigestsNameBlobs) {
  std::string upper = Sha256Hex("x");
  upper[0] = 'A';
  for (const std::string& digest :
       {std::string("../secret"), std::string(), std::string(64, '/'), std::string(64, '\0'),
        std::string(63, 'a'), std::string(65, 'a'), upper}) {
    EXPECT_EQ(blobs_->Read(digest, 0, 1).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(blobs_->Size(digest).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(blobs_->Remove(digest, -absl::InfiniteDuration()).code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST_P(BlobStoreTest, AWrongDigestStoresNothing) {
  auto writer = blobs_->NewWriter();
  ASSERT_TRUE((*writer)->Append("tampered").ok());
  const absl::Status status = (*writer)->Finish(Sha256Hex("original")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DetailsOf(status).reason, "CHECKSUM_MISMATCH");
  writer->reset();
  EXPECT_EQ(place_->Kept(), 0);
}

TEST_P(BlobStoreTest, AnAbandonedWriteLeavesNothing) {
  auto writer = blobs_->NewWriter();
  ASSERT_TRUE((*writer)->Append(SomeBytes(5000)).ok());
  writer->reset();
  EXPECT_EQ(place_->Kept(), 0);
}

TEST_P(BlobStoreTest, EqualBytesAreKeptOnce) {
  ASSERT_TRUE(WriteBlob(*blobs_, "same").ok());
  ASSERT_TRUE(WriteBlob(*blobs_, "same").ok());
  EXPECT_EQ(place_->Kept(), 1);
}

TEST_P(BlobStoreTest, WhatWasDamagedIsWhatItWasWhenItIsWrittenAgain) {
  const std::string digest = WriteBlob(*blobs_, "same")->digest;
  place_->PutStray(absl::StrCat(digest.substr(0, 2), "/", digest));
  ASSERT_TRUE(WriteBlob(*blobs_, "same").ok());
  const auto read = ReadBlob(*blobs_, digest, 100);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, "same");
  EXPECT_EQ(place_->Kept(), 1);
}

TEST_P(BlobStoreTest, ManyThreadsWriteAndReadAtOnce) {
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 6; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 8; ++i) {
        const std::string bytes = absl::StrCat(SomeBytes(1500), thread % 2, ".", i);
        const auto blob = WriteBlob(*blobs_, bytes);
        wrong += !blob.ok() || *ReadBlob(*blobs_, blob->digest, 1 << 20) != bytes;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(place_->Kept(), 16);
}

TEST_P(BlobStoreTest, RemovesOldBlobsAndKeepsThoseWrittenAgain) {
  const std::string digest = WriteBlob(*blobs_, "bytes")->digest;
  place_->Age(digest, absl::Hours(3));
  ASSERT_TRUE(WriteBlob(*blobs_, "bytes").ok());
  ASSERT_TRUE(blobs_->Remove(digest, absl::Hours(1)).ok());
  EXPECT_TRUE(blobs_->Size(digest).ok()) << "written again, so it is young";

  place_->Age(digest, absl::Hours(3));
  ASSERT_TRUE(blobs_->Remove(digest, absl::Hours(1)).ok());
  EXPECT_EQ(blobs_->Size(digest).status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(blobs_->Remove(digest, absl::ZeroDuration()).ok()) << "removing twice is no error";
  EXPECT_EQ(place_->Kept(), 0) << "nothing is left of the removal";
}

TEST_P(BlobStoreTest, AWalkMeetsEveryOldBlobOnceAndNothingElse) {
  std::vector<std::string> written;
  for (int i = 0; i < 40; ++i) written.push_back(WriteBlob(*blobs_, absl::StrCat(i))->digest);
  std::sort(written.begin(), written.end());
  place_->PutStray(written[0].substr(0, 2) + "/stray");
  place_->PutStray("incoming/upload");
  place_->PutStray("0a/" + written[0]);
  std::vector<std::string> met;
  std::string after;
  while (true) {
    const auto part = blobs_->List(after, /*limit=*/7, -absl::InfiniteDuration());
    ASSERT_TRUE(part.ok()) << part.status();
    ASSERT_LE(part->size(), 7u);
    if (part->empty()) break;
    met.insert(met.end(), part->begin(), part->end());
    after = met.back();
  }
  EXPECT_EQ(met, written);
  EXPECT_THAT(*blobs_->List("", 100, absl::Hours(1)), testing::IsEmpty()) << "all are young";
  place_->Age(written[3], absl::Hours(2));
  EXPECT_THAT(*blobs_->List("", 100, absl::Hours(1)), testing::ElementsAre(written[3]));
}

TEST_P(BlobStoreTest, APlaceIsThatOfTheFirstDatabaseThatClaimsIt) {
  ASSERT_TRUE(blobs_->Claim("first").ok());
  EXPECT_TRUE(blobs_->Claim("first").ok());
  const absl::Status refused = blobs_->Claim("second");
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(DetailsOf(refused).reason, "BLOBS_OF_ANOTHER_STORE");
  EXPECT_THAT(refused.message(), testing::HasSubstr("first"));
  EXPECT_THAT(refused.message(), testing::HasSubstr("use another directory or prefix"));
  EXPECT_THAT(refused.message(), testing::HasSubstr("remove .owner"));
  const auto again = Open();
  EXPECT_TRUE(again->Claim("first").ok());
  EXPECT_FALSE(again->Claim("second").ok());
  EXPECT_THAT(*blobs_->List("", 10, absl::ZeroDuration()), testing::IsEmpty()) << "it is no blob";
}

TEST_P(BlobStoreTest, OfDatabasesThatClaimAPlaceAtOnceOneHasIt) {
  constexpr int kDatabases = 8;
  std::vector<std::unique_ptr<BlobStore>> opened;
  for (int i = 0; i < kDatabases; ++i) opened.push_back(Open());
  std::atomic<int> claimed = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kDatabases; ++i) {
    threads.emplace_back([&, i] {
      const absl::Status status = opened[static_cast<size_t>(i)]->Claim(absl::StrCat("id", i));
      claimed += status.ok();
      EXPECT_TRUE(status.ok() || DetailsOf(status).reason == "BLOBS_OF_ANOTHER_STORE") << status;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(claimed, 1);
}

TEST_P(BlobStoreTest, AScratchFileGivesBackWhatWasWrittenAndHasNoName) {
  const auto scratch = blobs_->NewScratchFile();
  ASSERT_TRUE(scratch.ok()) << scratch.status();
  ASSERT_EQ((*scratch)->Write(/*offset=*/6, "world"), absl::OkStatus());
  ASSERT_EQ((*scratch)->Write(/*offset=*/0, "hello "), absl::OkStatus());
  std::string read(7, ' ');
  ASSERT_EQ((*scratch)->Read(/*offset=*/2, read), absl::OkStatus());
  EXPECT_EQ(read, "llo wor");
  EXPECT_EQ((*scratch)->Read(/*offset=*/5, read).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(place_->Kept(), 0);
}

TEST_P(BlobStoreTest, ServersThatShareAPlaceReadAndRemoveWhatOthersWrote) {
  auto writer = blobs_->NewWriter();
  ASSERT_TRUE((*writer)->Append("bytes").ok());
  const auto second = Open();
  const auto blob = (*writer)->Finish();
  ASSERT_TRUE(blob.ok()) << blob.status() << ": the second one took it for left behind";
  EXPECT_EQ(*ReadBlob(*second, blob->digest, /*max_size=*/10), "bytes");
  ASSERT_TRUE(second->Remove(blob->digest, -absl::InfiniteDuration()).ok());
  EXPECT_EQ(blobs_->Size(blob->digest).status().code(), absl::StatusCode::kNotFound);
}

TEST_P(BlobStoreTest, ABlobThatIsWrittenAgainWhileAnotherServerRemovesItIsThere) {
  const auto removing = Open();
  const std::string digest = Sha256Hex("bytes");
  for (int round = 0; round < 50; ++round) {
    ASSERT_TRUE(WriteBlob(*blobs_, "bytes").ok());
    place_->Age(digest, absl::Hours(2));
    std::thread remover([&] { EXPECT_TRUE(removing->Remove(digest, absl::Hours(1)).ok()); });
    EXPECT_TRUE(WriteBlob(*blobs_, "bytes").ok());
    remover.join();
    ASSERT_TRUE(blobs_->Size(digest).ok()) << "round " << round;
  }
}

}  // namespace
}  // namespace valuescope::store
