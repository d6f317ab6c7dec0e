#include "tests/store/counting_disk.h"

#include <sqlite3.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/check.h"

namespace valuescope::store {
namespace {

std::atomic<int64_t> sync_count = 0;
std::atomic<int64_t> written_bytes = 0;
std::atomic<int64_t> delay_microseconds = 0;
sqlite3_vfs* real = nullptr;
sqlite3_vfs counting;

// The methods of one kind of files (they differ in how they lock), but for xSync and xWrite.
struct CountingMethods : sqlite3_io_methods {
  const sqlite3_io_methods* real;
};
std::array<CountingMethods, 8> kinds;
absl::Mutex kinds_mutex;

int Sync(sqlite3_file* file, int flags) {
  ++sync_count;
  absl::SleepFor(absl::Microseconds(delay_microseconds.load()));
  return static_cast<const CountingMethods*>(file->pMethods)->real->xSync(file, flags);
}

int Write(sqlite3_file* file, const void* bytes, int size, sqlite3_int64 offset) {
  written_bytes += size;
  return static_cast<const CountingMethods*>(file->pMethods)
      ->real->xWrite(file, bytes, size, offset);
}

const sqlite3_io_methods* Counting(const sqlite3_io_methods* methods) {
  absl::MutexLock lock(&kinds_mutex);
  const auto kind = std::find_if(kinds.begin(), kinds.end(), [&](const CountingMethods& known) {
    return known.real == methods || known.real == nullptr;
  });
  VS_CHECK(kind != kinds.end());
  if (kind->real == nullptr) {
    static_cast<sqlite3_io_methods&>(*kind) = *methods;
    kind->xSync = Sync;
    kind->xWrite = Write;
    kind->real = methods;
  }
  return &*kind;
}

int Open(sqlite3_vfs*, const char* name, sqlite3_file* file, int flags, int* flags_out) {
  const int code = real->xOpen(real, name, file, flags, flags_out);
  if (code == SQLITE_OK) file->pMethods = Counting(file->pMethods);
  return code;
}

}  // namespace

CountingDisk::CountingDisk(absl::Duration delay) {
  VS_CHECK(real == nullptr);
  sync_count = written_bytes = 0;
  delay_microseconds = absl::ToInt64Microseconds(delay);
  real = sqlite3_vfs_find(nullptr);
  counting = *real;
  counting.zName = "counting";
  counting.xOpen = Open;
  VS_CHECK(sqlite3_vfs_register(&counting, /*makeDflt=*/1) == SQLITE_OK);
}

CountingDisk::~CountingDisk() {
  sqlite3_vfs_unregister(&counting);
  sqlite3_vfs_register(real, /*makeDflt=*/1);
  real = nullptr;
}

int64_t CountingDisk::syncs() const { return sync_count; }

int64_t CountingDisk::written() const { return written_bytes; }

}  // namespace valuescope::store
