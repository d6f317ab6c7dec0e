// Holds the S3 blob store against a real S3 store, outside of the test suite: what it relies on and
// a store may do otherwise. Everything it writes lies under a prefix of its own and is removed.
//
//   ninja -C build check_s3
//   AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... build/tests/check_s3 http://127.0.0.1:7070
//   BUCKET
//
// The bucket must exist; a region may stand behind it. Stores from package registries that can be
// run for this (moto looks at signatures only where INITIAL_NO_AUTH_ACTION_COUNT is set):
//
//   pip install 'moto[server]' && moto_server -p 7070
//   go install github.com/versity/versitygw/cmd/versitygw@latest &&
//     ROOT_ACCESS_KEY=... ROOT_SECRET_KEY=... versitygw --port 127.0.0.1:7070 posix DIRECTORY
//
// Prints a line for each thing that is so, and ends with 1 behind the first that is not.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/id.h"
#include "base/sha256.h"
#include "base/split_mix.h"
#include "store/s3_blob_store.h"

namespace valuescope::store {
namespace {

constexpr int64_t kPartBytes = int64_t{5} << 20;  // the least that AWS takes

// Goes on only where `is_so`.
void Say(bool is_so, const std::string& what) {
  std::printf("%s  %s\n", is_so ? "yes" : "NO ", what.c_str());
  std::fflush(stdout);
  if (!is_so) std::exit(1);
}

void Say(const absl::Status& status, const std::string& what) {
  Say(status.ok(), status.ok() ? what : absl::StrCat(what, ": ", status.ToString()));
}

std::string Bytes(int64_t size) {
  std::string bytes(static_cast<size_t>(size), '\0');
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<char>(SplitMix64(bytes.size(), i));
  }
  return bytes;
}

std::unique_ptr<BlobStore> Open(const S3Options& options) {
  auto store = OpenS3BlobStore(options);
  Say(store.status(), "the bucket is there and can be listed");
  return *std::move(store);
}

void CheckBlob(BlobStore& store, int64_t size) {
  const std::string bytes = Bytes(size);
  const absl::Time began = absl::Now();
  const auto blob = WriteBlob(store, bytes);
  Say(blob.status(), absl::StrCat(size, " bytes are written, in ",
                                  absl::ToInt64Milliseconds(absl::Now() - began), " ms"));
  const absl::StatusOr<int64_t> there = store.Size(blob->digest);
  Say(there.ok() && *there == size, "they have their size");
  const auto is = [&](int64_t offset, int64_t length, absl::string_view expected) {
    const absl::StatusOr<std::string> read = store.Read(blob->digest, offset, length);
    if (!read.ok()) Say(read.status(), "they can be read");
    return *read == expected;
  };
  Say(is(0, std::numeric_limits<int64_t>::max(), bytes), "they are read as a whole");
  for (uint64_t i = 0; i < 5 && size > 0; ++i) {
    const auto offset = static_cast<int64_t>(SplitMix64(7, i) % static_cast<uint64_t>(size));
    Say(is(offset, 1000, absl::string_view(bytes).substr(static_cast<size_t>(offset), 1000)),
        absl::StrCat("and from offset ", offset));
  }
  Say(is(size, 1, ""), "behind the last byte there is none");
  Say(store.Read(blob->digest, size + 1, 1).status().code() == absl::StatusCode::kOutOfRange,
      "and farther is out of range");
}

void CheckListAndRemoval(BlobStore& store) {
  std::vector<std::string> met;
  std::string after;
  while (true) {
    const auto part = store.List(after, /*limit=*/2, -absl::InfiniteDuration());
    Say(part.status(), "a page is listed");
    if (part->empty()) break;
    met.insert(met.end(), part->begin(), part->end());
    after = met.back();
  }
  Say(met.size() == 5 && std::is_sorted(met.begin(), met.end()), "all are listed in order");
  const auto old = store.List("", 100, absl::Hours(1));
  Say(old.ok() && old->empty(), "none is an hour old");
  for (const std::string& digest : met) {
    Say(store.Remove(digest, absl::Hours(1)).ok() && store.Size(digest).ok(), "the young stay");
    Say(store.Remove(digest, -absl::InfiniteDuration()), "one is removed");
    Say(store.Size(digest).status().code() == absl::StatusCode::kNotFound, "and is gone");
  }
  Say(store.Read(met[0], 0, 1).status().code() == absl::StatusCode::kNotFound, "also to readers");
  Say(store.ClearUnfinished(), "uploads and marks are looked through");
}

void CheckRace(BlobStore& writing, BlobStore& removing) {
  const std::string digest = Sha256Hex("bytes");
  for (int round = 0; round < 20; ++round) {
    std::thread remover([&] { (void)removing.Remove(digest, absl::Seconds(1)); });
    const absl::Status written = WriteBlob(writing, "bytes").status();
    remover.join();
    Say(written.ok() && writing.Size(digest).ok(), "what is written while it is removed is there");
    if (round % 4 == 0) absl::SleepFor(absl::Milliseconds(2100));  // it grows old
  }
  Say(removing.Remove(digest, -absl::InfiniteDuration()), "it is removed in the end");
}

void CheckRefusals(S3Options options) {
  S3Options nowhere = options;
  nowhere.bucket = "valuescope-there-is-none";
  const absl::Status missing = OpenS3BlobStore(nowhere).status();
  Say(missing.code() == absl::StatusCode::kFailedPrecondition,
      absl::StrCat("a bucket that is missing: ", missing.message()));
  setenv("AWS_SECRET_ACCESS_KEY", "another", /*overwrite=*/1);
  const absl::Status refused = OpenS3BlobStore(options).status();
  Say(refused.code() == absl::StatusCode::kFailedPrecondition,
      absl::StrCat("a wrong key: ", refused.message()));
}

int Main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "check_s3 ENDPOINT BUCKET [REGION]; see the head of check_s3.cc\n");
    return 2;
  }
  const S3Options options{
      .bucket = argv[2],
      .prefix = absl::StrCat("valuescope-check/", NewUuid()),
      .endpoint = argv[1],
      .region = argc > 3 ? argv[3] : "us-east-1",
      .scratch_folder = std::filesystem::temp_directory_path() / "valuescope-check",
      .part_bytes = kPartBytes,
      .on_exchange = [](const S3Exchange& exchange) {
        if (exchange.status.ok() || absl::IsNotFound(exchange.status)) return;
        std::printf("     %s: %s\n", std::string(exchange.operation).c_str(),
                    exchange.status.ToString().c_str());
      }};
  const auto store = Open(options);
  for (const int64_t size : {int64_t{0}, int64_t{1}, kPartBytes, kPartBytes + 1, 3 * kPartBytes}) {
    CheckBlob(*store, size);
  }
  CheckListAndRemoval(*store);
  CheckRace(*store, *Open(options));
  CheckRefusals(options);
  return 0;
}

}  // namespace
}  // namespace valuescope::store

int main(int argc, char** argv) { return valuescope::store::Main(argc, argv); }
