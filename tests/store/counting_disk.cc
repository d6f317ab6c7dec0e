#include "tests/store/counting_disk.h"

#include <sqlite3.h>

#include <atomic>
#include <cstddef>

#include "absl/time/clock.h"
#include "base/check.h"

namespace valuescope::store {
namespace {

std::atomic<int64_t> syncs = 0;
std::atomic<int64_t> delay_microseconds = 0;
sqlite3_vfs* real = nullptr;
sqlite3_vfs counting;
// Of the one kind of files that the real file system has; a copy, but for xSync.
const sqlite3_io_methods* real_methods = nullptr;
sqlite3_io_methods counting_methods;

int Sync(sqlite3_file* file, int flags) {
  ++syncs;
  absl::SleepFor(absl::Microseconds(delay_microseconds.load()));
  return real_methods->xSync(file, flags);
}

int Open(sqlite3_vfs*, const char* name, sqlite3_file* file, int flags, int* flags_out) {
  const int code = real->xOpen(real, name, file, flags, flags_out);
  if (code != SQLITE_OK) return code;
  real_methods = file->pMethods;
  counting_methods = *real_methods;
  counting_methods.xSync = Sync;
  file->pMethods = &counting_methods;
  return code;
}

}  // namespace

CountingDisk::CountingDisk(absl::Duration delay) {
  VS_CHECK(real == nullptr);
  syncs = 0;
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

int64_t CountingDisk::syncs() const { return store::syncs; }

}  // namespace valuescope::store
