#include "store/directory_blob_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/error.h"
#include "base/failpoint.h"
#include "base/id.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "store/open_file.h"

namespace valuescope::store {
namespace {

namespace fs = std::filesystem;

// Of a writer between two pieces: an upload that pauses longer has no caller any more.
constexpr absl::Duration kLongestPause = absl::Hours(24);
// Of what is read of the owner's identity.
constexpr int64_t kLongestOwner = 256;

absl::Status SyncDirectory(const fs::path& directory) {
  const Descriptor descriptor(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (descriptor.value() < 0 || fsync(descriptor.value()) != 0) {
    return FileError("sync a directory", errno);
  }
  return absl::OkStatus();
}

absl::Status MakeDirectory(const fs::path& directory) {
  if (mkdir(directory.c_str(), 0700) == 0) return SyncDirectory(directory.parent_path());
  if (errno == EEXIST) return absl::OkStatus();
  return FileError("make a directory", errno);
}

// Names in a folder that are not below `from`, ascending. What cannot be read is empty: whoever
// walks through comes again.
std::vector<std::string> NamesIn(const fs::path& folder, absl::string_view from) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    std::string name = entry->path().filename().string();
    if (name >= from) names.push_back(std::move(name));
  }
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status RemoveWrittenBefore(const fs::path& folder, absl::Time time) {
  for (const std::string& name : NamesIn(folder, /*from=*/"")) {
    struct stat status;
    const std::string path = folder / name;
    if (stat(path.c_str(), &status) != 0) continue;  // its writer was quicker
    if (absl::TimeFromTimespec(status.st_mtim) >= time) continue;
    if (unlink(path.c_str()) != 0 && errno != ENOENT) {
      return FileError("clear unfinished files", errno);
    }
  }
  return absl::OkStatus();
}

// Bytes of a file as BlobStore::Read has them.
absl::StatusOr<std::string> ReadFile(const fs::path& path, int64_t offset, int64_t length) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.value() < 0) return errno == ENOENT ? BlobNotFound() : FileError("open", errno);
  struct stat status;
  if (fstat(file.value(), &status) != 0) return FileError("read", errno);
  VS_RETURN_IF_ERROR(CheckRange(offset, length, status.st_size));
  std::string bytes(static_cast<size_t>(std::min<int64_t>(length, status.st_size - offset)), 0);
  VS_RETURN_IF_ERROR(ReadFully(file, offset, bytes, "a blob became shorter while it was read"));
  return bytes;
}

class DirectoryBlobStore : public BlobStore {
 public:
  DirectoryBlobStore(fs::path root, LockMode mode, std::unique_ptr<FileLock> lock)
      : root_(std::move(root)), mode_(mode), lock_(std::move(lock)) {}

  absl::Status Claim(absl::string_view identity) override {
    absl::MutexLock lock(&publish_mutex_);
    VS_ASSIGN_OR_RETURN(const auto others, LockOthersOut(LockMode::kAlone));
    const fs::path owner = root_ / kOwnerName;
    const absl::StatusOr<std::string> present = ReadFile(owner, /*offset=*/0, kLongestOwner);
    if (present.ok()) return CheckOwner(*present, identity);
    if (!absl::IsNotFound(present.status())) return present.status();
    const fs::path incoming = IncomingPath();
    const Descriptor file(open(incoming.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (file.value() < 0) return FileError("make a file", errno);
    VS_RETURN_IF_ERROR(WriteFully(file, /*offset=*/0, identity));
    if (fsync(file.value()) != 0) return FileError("sync", errno);
    if (rename(incoming.c_str(), owner.c_str()) != 0) return FileError("claim its place", errno);
    return SyncDirectory(root_);
  }

  absl::StatusOr<std::unique_ptr<BlobWriter>> NewWriter() override;
  absl::StatusOr<std::unique_ptr<ScratchFile>> NewScratchFile() override {
    return MakeScratchFile(root_ / "incoming");
  }

  absl::StatusOr<std::string> Read(absl::string_view digest, int64_t offset,
                                   int64_t length) override {
    VS_RETURN_IF_ERROR(CheckDigest("digest", digest));
    return ReadFile(PathOf(digest), offset, length);
  }

  absl::StatusOr<int64_t> Size(absl::string_view digest) override {
    VS_RETURN_IF_ERROR(CheckDigest("digest", digest));
    struct stat status;
    if (stat(PathOf(digest).c_str(), &status) == 0) return static_cast<int64_t>(status.st_size);
    if (errno == ENOENT) return BlobNotFound();
    return FileError("read", errno);
  }

  absl::StatusOr<std::vector<std::string>> List(absl::string_view after, int64_t limit,
                                                absl::Duration age) override {
    const absl::Time finished_before = absl::Now() - age;
    std::vector<std::string> digests;
    for (const std::string& folder : NamesIn(root_, /*from=*/after.substr(0, 2))) {
      if (folder.size() != 2) continue;
      for (std::string& digest : NamesIn(root_ / folder, after)) {
        if (static_cast<int64_t>(digests.size()) >= limit) return digests;
        struct stat status;
        if (digest == after || !CheckDigest("digest", digest).ok() ||
            folder != digest.substr(0, 2) ||
            stat((root_ / folder / digest).c_str(), &status) != 0 ||
            absl::TimeFromTimespec(status.st_mtim) > finished_before) {
          continue;
        }
        digests.push_back(std::move(digest));
      }
    }
    return digests;
  }

  absl::Status Remove(absl::string_view digest, absl::Duration age) override {
    VS_RETURN_IF_ERROR(CheckDigest("digest", digest));
    absl::MutexLock lock(&publish_mutex_);
    VS_ASSIGN_OR_RETURN(const auto others, LockOthersOut(LockMode::kAlone));
    const fs::path path = PathOf(digest);
    struct stat status;
    if (stat(path.c_str(), &status) != 0) {
      return errno == ENOENT ? absl::OkStatus() : FileError("remove", errno);
    }
    if (absl::TimeFromTimespec(status.st_mtim) > absl::Now() - age) return absl::OkStatus();
    if (unlink(path.c_str()) != 0 && errno != ENOENT) return FileError("remove", errno);
    return absl::OkStatus();
  }

  absl::Status ClearUnfinished() override {
    return RemoveWrittenBefore(root_ / "incoming", absl::Now() - kLongestPause);
  }

  // Gives the synced file at `incoming` its name. It takes the place of one that is there, whose
  // bytes may have been damaged since it was written, and is young.
  absl::Status Publish(const fs::path& incoming, absl::string_view digest) {
    absl::MutexLock lock(&publish_mutex_);
    VS_ASSIGN_OR_RETURN(const auto others, LockOthersOut(LockMode::kShared));
    const fs::path path = PathOf(digest);
    if (utimensat(AT_FDCWD, incoming.c_str(), /*times=now*/ nullptr, /*flags=*/0) != 0) {
      return FileError("publish bytes", errno);
    }
    VS_RETURN_IF_ERROR(MakeDirectory(path.parent_path()));
    if (rename(incoming.c_str(), path.c_str()) != 0) return FileError("publish bytes", errno);
    return SyncDirectory(path.parent_path());
  }

  fs::path IncomingPath() const { return root_ / "incoming" / NewUuid(); }

 private:
  // `digest` has passed CheckDigest.
  fs::path PathOf(absl::string_view digest) const {
    return root_ / std::string(digest.substr(0, 2)) / std::string(digest);
  }

  // What publish_mutex_ is in this process, among processes: nothing where there is one.
  absl::StatusOr<std::unique_ptr<FileLock>> LockOthersOut(LockMode mode) const {
    if (mode_ == LockMode::kAlone) return nullptr;
    return FileLock::Await(root_ / ".publish", mode);
  }

  const fs::path root_;
  const LockMode mode_;
  const std::unique_ptr<FileLock> lock_;
  absl::Mutex publish_mutex_;  // a removal must not fall between "it is there" and "it is young"
};

class DirectoryBlobWriter : public BlobWriter {
 public:
  DirectoryBlobWriter(DirectoryBlobStore* store, fs::path path, int descriptor)
      : store_(store), path_(std::move(path)), file_(descriptor) {}
  ~DirectoryBlobWriter() override {
    if (!published_) unlink(path_.c_str());
  }

  absl::Status Append(absl::string_view bytes) override {
    VS_RETURN_IF_ERROR(WriteFully(file_, size_, bytes));
    hash_.Update(bytes);
    size_ += static_cast<int64_t>(bytes.size());
    return absl::OkStatus();
  }

  int64_t size() const override { return size_; }

  absl::StatusOr<StoredBlob> Finish(absl::string_view expected_digest) override {
    StoredBlob blob{.digest = hash_.HexDigest(), .size = size_};
    VS_RETURN_IF_ERROR(CheckExpected(expected_digest, blob.digest));
    if (fsync(file_.value()) != 0) return FileError("sync", errno);
    VS_FAILPOINT("blob_synced");
    VS_RETURN_IF_ERROR(store_->Publish(path_, blob.digest));
    published_ = true;
    return blob;
  }

 private:
  DirectoryBlobStore* const store_;
  const fs::path path_;
  const Descriptor file_;
  Sha256 hash_;
  int64_t size_ = 0;
  bool published_ = false;
};

absl::StatusOr<std::unique_ptr<BlobWriter>> DirectoryBlobStore::NewWriter() {
  fs::path path = IncomingPath();
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (descriptor < 0) return FileError("make a file", errno);
  return std::make_unique<DirectoryBlobWriter>(this, std::move(path), descriptor);
}

}  // namespace

absl::StatusOr<std::unique_ptr<BlobStore>> OpenDirectoryBlobStore(const std::string& root,
                                                                  LockMode mode) {
  std::error_code error;
  fs::create_directories(root, error);
  if (error) return FileError("make its directory", error.value());
  const fs::path path = fs::canonical(root, error);
  if (error) return FileError("open its directory", error.value());
  VS_ASSIGN_OR_RETURN(std::unique_ptr<FileLock> lock, FileLock::Acquire(path / ".lock", mode));
  VS_RETURN_IF_ERROR(MakeDirectory(path / "incoming"));
  // Whatever is in incoming/ was being written by a process that died, or is by one that lives.
  VS_RETURN_IF_ERROR(RemoveWrittenBefore(path / "incoming", mode == LockMode::kAlone
                                                                ? absl::InfiniteFuture()
                                                                : absl::Now() - kLongestPause));
  return std::make_unique<DirectoryBlobStore>(path, mode, std::move(lock));
}

}  // namespace valuescope::store
