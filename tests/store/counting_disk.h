// A file system for SQLite that counts, and can slow, what has to reach the disk: the default one,
// with a count of its calls of fsync and of the bytes written. Databases that are opened while one
// lives use it.
#ifndef VALUESCOPE_TESTS_STORE_COUNTING_DISK_H_
#define VALUESCOPE_TESTS_STORE_COUNTING_DISK_H_

#include <cstdint>

#include "absl/time/time.h"

namespace valuescope::store {

class CountingDisk {
 public:
  // `delay` is added to each sync. One at a time.
  explicit CountingDisk(absl::Duration delay = absl::ZeroDuration());
  ~CountingDisk();
  CountingDisk(const CountingDisk&) = delete;
  CountingDisk& operator=(const CountingDisk&) = delete;

  int64_t syncs() const;    // so far
  int64_t written() const;  // bytes so far
};

}  // namespace valuescope::store

#endif  // VALUESCOPE_TESTS_STORE_COUNTING_DISK_H_
