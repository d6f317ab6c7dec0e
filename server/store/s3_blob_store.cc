#include "store/s3_blob_store.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "base/error.h"
#include "base/id.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "store/open_file.h"
#include "store/s3_client.h"
#include "store/s3_upload.h"

namespace valuescope::store {
namespace {

namespace fs = std::filesystem;

// A request is not served that was signed longer ago than 15 minutes: what a remover that died has
// sent comes to nothing from then on.
constexpr absl::Duration kLongestRemoval = absl::Minutes(20);
// An upload or a mark that is older has nobody any more.
constexpr absl::Duration kUnfinishedAge = absl::Hours(24);
constexpr int64_t kLargestObject = int64_t{1} << 50;  // bytes; S3's are smaller
constexpr int kMostUploads = 3;                       // of one blob that others keep removing

class S3BlobStore : public BlobStore {
 public:
  explicit S3BlobStore(S3Options options)
      : prefix_(options.prefix.empty() ? "" : absl::StrCat(options.prefix, "/")),
        client_(std::move(options)) {}

  absl::Status Claim(absl::string_view identity) override {
    VS_ASSIGN_OR_RETURN(std::string owner, ReadOwner());
    if (owner.empty()) {
      VS_RETURN_IF_ERROR(WriteOwner(identity));
      VS_ASSIGN_OR_RETURN(owner, ReadOwner());
    }
    return CheckOwner(owner, identity);
  }

  absl::StatusOr<std::unique_ptr<BlobWriter>> NewWriter() override;

  absl::StatusOr<std::unique_ptr<ScratchFile>> NewScratchFile() override {
    return MakeScratchFile(client_.options().scratch_folder);
  }

  absl::StatusOr<std::string> Read(absl::string_view digest, int64_t offset,
                                   int64_t length) override {
    VS_RETURN_IF_ERROR(CheckDigest("digest", digest));
    if (offset < 0 || offset > kLargestObject || length <= 0) {
      VS_ASSIGN_OR_RETURN(const int64_t size, Size(digest));
      VS_RETURN_IF_ERROR(CheckRange(offset, length, size));
      return "";
    }
    VS_ASSIGN_OR_RETURN(Part part, ReadPart(digest, offset, length));
    if (IsOther(part, digest)) {
      VS_ASSIGN_OR_RETURN(part, ReadPart(digest, offset, length));  // a wire may have changed it
    }
    if (!IsOther(part, digest)) return std::move(part.bytes);
    return ErrorWithReason(absl::StatusCode::kDataLoss, "BLOB_DAMAGED",
                           "the S3 store has other bytes than were stored");
  }

  absl::StatusOr<int64_t> Size(absl::string_view digest) override {
    VS_RETURN_IF_ERROR(CheckDigest("digest", digest));
    VS_ASSIGN_OR_RETURN(const S3Answer answer, Head(digest));
    int64_t size;
    if (!absl::SimpleAtoi(answer.Header("content-length"), &size) || size < 0) {
      return Unreachable("it answers with an object without a size");
    }
    return size;
  }

  absl::StatusOr<std::vector<std::string>> List(absl::string_view after, int64_t limit,
                                                absl::Duration age) override {
    std::vector<std::string> digests;
    Position position{.folder = prefix_, .after = after.empty() ? prefix_ : KeyOf(after)};
    while (!position.at_end) {
      VS_ASSIGN_OR_RETURN(const std::vector<S3Object> objects, ListOlder(age, position));
      for (const S3Object& object : objects) {
        if (static_cast<int64_t>(digests.size()) >= limit) return digests;
        const absl::string_view digest = DigestOf(object.key);
        if (!digest.empty()) digests.emplace_back(digest);
      }
    }
    return digests;
  }

  absl::Status Remove(absl::string_view digest, absl::Duration age) override {
    VS_RETURN_IF_ERROR(CheckDigest("digest", digest));
    VS_ASSIGN_OR_RETURN(const bool may_go, IsOlder(digest, age));
    if (!may_go) return absl::OkStatus();
    S3Request mark{
        .operation = "put", .method = "PUT", .key = absl::StrCat(MarksOf(digest), NewUuid())};
    VS_RETURN_IF_ERROR(client_.Send(mark).status());
    VS_ASSIGN_OR_RETURN(const bool goes, IsOlder(digest, age));
    // Once only: behind a second attempt the first could still come to pass. After an error the
    // mark stays, until whoever looks at it knows that nothing will come.
    if (goes) VS_RETURN_IF_ERROR(Delete(KeyOf(digest)));
    return Delete(mark.key);
  }

  absl::Status ClearUnfinished() override {
    VS_RETURN_IF_ERROR(AbortOldUploads());
    Position position{.folder = absl::StrCat(prefix_, "removing/")};
    position.after = position.folder;
    while (!position.at_end) {
      VS_ASSIGN_OR_RETURN(const std::vector<S3Object> marks, ListOlder(kUnfinishedAge, position));
      for (const S3Object& mark : marks) {
        if (IsMark(mark.key)) VS_RETURN_IF_ERROR(Delete(mark.key));
      }
    }
    return absl::OkStatus();
  }

  void StopRetrying() override { client_.StopRetrying(); }

  // Makes the blob visible, and sure to stay. What is there already is sent again: it is young
  // then.
  absl::Status Publish(const StagedBlob& blob) {
    for (int uploads = 0; uploads < kMostUploads; ++uploads) {
      VS_RETURN_IF_ERROR(Upload(client_, KeyOf(blob.digest), blob));
      VS_RETURN_IF_ERROR(AwaitRemovals(blob.digest));
      const absl::StatusOr<int64_t> size = Size(blob.digest);
      if (absl::IsNotFound(size.status())) continue;
      if (size.ok() && *size != blob.size) return Unreachable("it kept other bytes than were sent");
      return size.status();
    }
    return BeingRemoved();
  }

  int64_t part_bytes() const { return client_.options().part_bytes; }

 private:
  struct Part {
    std::string bytes;
    bool whole = false;  // all that the blob has
  };

  // Where a list of keys goes on.
  struct Position {
    std::string folder;  // what they all begin with
    std::string after;
    std::string token;
    bool at_end = false;
  };

  static absl::Status BeingRemoved() {
    return RetryLater("BLOB_BEING_REMOVED", "the same bytes are being removed from the S3 store",
                      absl::Minutes(1));
  }

  static bool IsOther(const Part& part, absl::string_view digest) {
    return part.whole && Sha256Hex(part.bytes) != digest;
  }

  // `digest` has passed CheckDigest.
  std::string KeyOf(absl::string_view digest) const {
    return absl::StrCat(prefix_, digest.substr(0, 2), "/", digest);
  }
  std::string MarksOf(absl::string_view digest) const {
    return absl::StrCat(prefix_, "removing/", digest, "/");
  }

  // The digest of a blob's key; empty for other keys.
  absl::string_view DigestOf(absl::string_view key) const {
    if (!absl::ConsumePrefix(&key, prefix_) || key.size() < 3) return "";
    const absl::string_view digest = key.substr(3);
    return CheckDigest("key", digest).ok() &&
                   key.substr(0, 3) == absl::StrCat(digest.substr(0, 2), "/")
               ? digest
               : absl::string_view();
  }

  bool IsMark(absl::string_view key) const {
    if (!absl::ConsumePrefix(&key, absl::StrCat(prefix_, "removing/"))) return false;
    const size_t slash = key.find('/');
    return CheckDigest("key", key.substr(0, slash)).ok() &&
           key.find_first_not_of("0123456789abcdef-", slash + 1) == absl::string_view::npos;
  }

  // Empty where the place is nobody's.
  absl::StatusOr<std::string> ReadOwner() {
    const absl::StatusOr<S3Answer> answer =
        client_.Send({.operation = "get", .key = absl::StrCat(prefix_, kOwnerName)});
    if (absl::IsNotFound(answer.status())) return "";
    VS_RETURN_IF_ERROR(answer.status());
    return answer->body;
  }

  // Only where nobody else did: of two at once one comes first. A store that does not know the
  // condition refuses it or writes all the same; there whoever reads its own behind it has it.
  absl::Status WriteOwner(absl::string_view identity) {
    S3Request request{
        .operation = "put", .method = "PUT", .key = absl::StrCat(prefix_, kOwnerName)};
    request.body = S3Body::OfText(std::string(identity));
    request.headers = {{"if-none-match", "*"}};
    request.expected_status = 412;
    const absl::Status status = client_.Send(request).status();
    if (DetailsOf(status).reason != "STORAGE_REFUSED") return status;
    request.headers.clear();
    return client_.Send(request).status();
  }

  absl::StatusOr<S3Answer> Head(absl::string_view digest) {
    return client_.Send({.operation = "head", .method = "HEAD", .key = KeyOf(digest)});
  }

  absl::Status Delete(const std::string& key) {
    const S3Request request{.operation = "delete", .method = "DELETE", .key = key};
    const absl::Status status = client_.Try(request, S3Client::Attempts(&client_)).status();
    return absl::IsNotFound(status) ? absl::OkStatus() : status;
  }

  // Whether there is such a blob, last sent at least `age` ago.
  absl::StatusOr<bool> IsOlder(absl::string_view digest, absl::Duration age) {
    const absl::StatusOr<S3Answer> answer = Head(digest);
    if (absl::IsNotFound(answer.status())) return false;
    VS_RETURN_IF_ERROR(answer.status());
    VS_ASSIGN_OR_RETURN(const absl::Time now, answer->Date());
    VS_ASSIGN_OR_RETURN(const absl::Time modified, TimeOfHeader(*answer, "last-modified"));
    return modified <= now - age;
  }

  // Bytes [offset, min(offset + length, size)), length > 0. What came before a connection broke is
  // not asked for again.
  absl::StatusOr<Part> ReadPart(absl::string_view digest, int64_t offset, int64_t length) {
    Part part;
    S3Client::Attempts attempts(&client_);
    while (true) {
      const auto got = static_cast<int64_t>(part.bytes.size());
      S3Request request{.operation = "get", .key = KeyOf(digest)};
      const int64_t last = offset + std::min(length, kLargestObject) - 1;
      request.headers = {{"range", absl::StrCat("bytes=", offset + got, "-", last)}};
      request.expected_status = 416;
      request.content = &part.bytes;
      request.max_content = length - got;
      const absl::StatusOr<S3Answer> answer = client_.Try(request, attempts);
      absl::Status status = answer.status();
      if (answer.ok() && answer->status == 416) {
        VS_ASSIGN_OR_RETURN(const int64_t size, Size(digest));
        VS_RETURN_IF_ERROR(CheckRange(offset, length, size));
        if (offset == size) return Part{.whole = offset == 0};
        status = Unreachable("it does not have the range it should");
      } else if (answer.ok()) {
        status = CheckPart(*answer, offset, length, part);
      }
      if (status.ok()) return part;
      if (!attempts.Again(status)) return status;
    }
  }

  // Whether the part is all that was asked for.
  static absl::Status CheckPart(const S3Answer& answer, int64_t offset, int64_t length,
                                Part& part) {
    const auto got = static_cast<int64_t>(part.bytes.size());
    int64_t size = got;  // where it sends the whole although a range was asked for
    if (answer.status == 206) {
      VS_ASSIGN_OR_RETURN(size, WholeSizeOf(answer));
    } else if (offset > 0) {
      part.bytes.clear();
      return Unreachable("it does not serve ranges");
    }
    part.whole = offset == 0 && got == size;
    if (got == std::min(length, size - offset)) return absl::OkStatus();
    part.bytes.clear();
    return Unreachable("it answers with a range that was not asked for");
  }

  // One page of objects that were last sent at least `age` ago; moves the position behind it.
  absl::StatusOr<std::vector<S3Object>> ListOlder(absl::Duration age, Position& position) {
    S3Request request{.operation = "list"};
    if (!position.token.empty()) request.query = {{"continuation-token", position.token}};
    request.query.insert(request.query.end(), {{"list-type", "2"}, {"prefix", position.folder}});
    if (position.token.empty()) request.query.emplace_back("start-after", position.after);
    VS_ASSIGN_OR_RETURN(const S3Answer answer, client_.Send(request));
    VS_ASSIGN_OR_RETURN(const absl::Time now, answer.Date());
    VS_ASSIGN_OR_RETURN(S3Listing listing, ParseListing(answer.body, position.after));
    if (!listing.objects.empty()) position.after = listing.objects.back().key;
    position.token = listing.next;
    position.at_end = listing.next.empty();
    std::erase_if(listing.objects,
                  [&](const S3Object& object) { return object.last_modified > now - age; });
    return std::move(listing.objects);
  }

  // Waits until nobody is removing the blob any more.
  absl::Status AwaitRemovals(absl::string_view digest) {
    S3Client::Attempts attempts(&client_);
    while (true) {
      VS_ASSIGN_OR_RETURN(const bool marked, IsMarked(digest));
      if (!marked) return absl::OkStatus();
      if (!attempts.Again(Unreachable("the same bytes are being removed"))) return BeingRemoved();
    }
  }

  absl::StatusOr<bool> IsMarked(absl::string_view digest) {
    S3Request request{.operation = "list"};
    request.query = {{"list-type", "2"}, {"prefix", MarksOf(digest)}};
    VS_ASSIGN_OR_RETURN(const S3Answer answer, client_.Send(request));
    VS_ASSIGN_OR_RETURN(const absl::Time now, answer.Date());
    VS_ASSIGN_OR_RETURN(const S3Listing listing, ParseListing(answer.body, /*after=*/""));
    return std::any_of(listing.objects.begin(), listing.objects.end(), [&](const S3Object& mark) {
      return mark.last_modified >= now - kLongestRemoval;
    });
  }

  absl::Status AbortOldUploads() {
    S3Request request{.operation = "list"};
    request.query = {{"prefix", prefix_}, {"uploads", ""}};
    request.expected_status = 501;
    VS_ASSIGN_OR_RETURN(const S3Answer answer, client_.Send(request));
    if (answer.status == 501) return absl::OkStatus();  // a store that does not tell of uploads
    VS_ASSIGN_OR_RETURN(const absl::Time now, answer.Date());
    VS_ASSIGN_OR_RETURN(const std::vector<S3Upload> uploads, ParseUploads(answer.body));
    for (const S3Upload& upload : uploads) {
      if (DigestOf(upload.key).empty() || upload.initiated >= now - kUnfinishedAge) continue;
      VS_RETURN_IF_ERROR(AbortUpload(client_, upload.key, upload.id));
    }
    return absl::OkStatus();
  }

  const std::string prefix_;  // of keys, with its slash
  S3Client client_;
};

class S3BlobWriter : public BlobWriter {
 public:
  S3BlobWriter(S3BlobStore* store, std::unique_ptr<ScratchFile> file)
      : store_(store), file_(std::move(file)) {}

  absl::Status Append(absl::string_view bytes) override {
    VS_RETURN_IF_ERROR(file_->Write(size_, bytes));
    hash_.Update(bytes);
    while (!bytes.empty()) {
      const int64_t room = store_->part_bytes() - size_ % store_->part_bytes();
      const absl::string_view piece = bytes.substr(0, static_cast<size_t>(room));
      part_hash_->Update(piece);
      size_ += static_cast<int64_t>(piece.size());
      bytes.remove_prefix(piece.size());
      if (size_ % store_->part_bytes() == 0) EndPart();
    }
    if (static_cast<int64_t>(part_digests_.size()) < kMaxUploadParts) return absl::OkStatus();
    return NeverFits("BLOB_TOO_LARGE",
                     absl::StrCat("a blob in S3 has less than ",
                                  kMaxUploadParts * store_->part_bytes(), " bytes"));
  }

  int64_t size() const override { return size_; }

  absl::StatusOr<StoredBlob> Finish(absl::string_view expected_digest) override {
    StoredBlob blob{.digest = hash_.HexDigest(), .size = size_};
    VS_RETURN_IF_ERROR(CheckExpected(expected_digest, blob.digest));
    if (size_ % store_->part_bytes() > 0) EndPart();
    VS_RETURN_IF_ERROR(store_->Publish({.file = file_.get(),
                                        .size = size_,
                                        .digest = blob.digest,
                                        .part_digests = std::move(part_digests_)}));
    return blob;
  }

 private:
  void EndPart() {
    part_digests_.push_back(part_hash_->HexDigest());
    part_hash_.emplace();
  }

  S3BlobStore* const store_;
  const std::unique_ptr<ScratchFile> file_;
  Sha256 hash_;                                     // of all
  std::optional<Sha256> part_hash_{std::in_place};  // of the part that is being filled
  std::vector<std::string> part_digests_;
  int64_t size_ = 0;
};

absl::StatusOr<std::unique_ptr<BlobWriter>> S3BlobStore::NewWriter() {
  VS_ASSIGN_OR_RETURN(std::unique_ptr<ScratchFile> file, NewScratchFile());
  return std::make_unique<S3BlobWriter>(this, std::move(file));
}

}  // namespace

absl::StatusOr<std::unique_ptr<BlobStore>> OpenS3BlobStore(S3Options options) {
  std::error_code error;
  fs::create_directories(options.scratch_folder, error);
  if (error) return FileError("make its scratch directory", error.value());
  auto store = std::make_unique<S3BlobStore>(std::move(options));
  const absl::Status status =
      store->List(/*after=*/"", /*limit=*/0, /*age=*/absl::ZeroDuration()).status();
  if (status.ok()) return store;
  if (DetailsOf(status).reason != "STORAGE_REFUSED") return status;
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "STORAGE_REFUSED",
                         status.message());
}

}  // namespace valuescope::store
