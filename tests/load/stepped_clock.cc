// A library to be loaded before others (LD_PRELOAD): the process sees the machine's time of day
// moved by the seconds that stand, as a native int64, in the file that STEPPED_CLOCK names, and at
// once by others when they change, as where an administrator sets the clock. Who waits until a time
// of day wakes by the moved one; waits of a length, and the monotonic clock, are left alone.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdlib>

namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kSlice = kSecond / 20;  // between looks at whether the clock was moved
constexpr int64_t kYear = 365 * 86'400 * kSecond;

template <typename Function>
Function Real(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

int64_t Nanoseconds(const timespec& time) { return time.tv_sec * kSecond + time.tv_nsec; }
timespec Timespec(int64_t time) { return {.tv_sec = time / kSecond, .tv_nsec = time % kSecond}; }

int64_t Offset() {
  static const volatile int64_t* const seconds = [] {
    const int file = open(getenv("STEPPED_CLOCK"), O_RDONLY | O_CLOEXEC);
    void* const mapped = mmap(nullptr, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    return mapped == MAP_FAILED ? nullptr : static_cast<const volatile int64_t*>(mapped);
  }();
  return seconds == nullptr ? 0 : *seconds * kSecond;
}

int64_t RealNow() {
  timespec now;
  static const auto get = Real<int (*)(clockid_t, timespec*)>("clock_gettime");
  get(CLOCK_REALTIME, &now);
  return Nanoseconds(now);
}

// Waits until a moved time of day in slices: `wait(until)` is a wait by the machine's clock, which
// returns `timed_out` where it came to its end.
template <typename Wait>
long WaitUntil(const timespec& moved, long timed_out, const Wait& wait) {
  while (true) {
    const int64_t now = RealNow();
    const int64_t left = Nanoseconds(moved) - (now + Offset());
    const timespec until = Timespec(now + std::min(std::max<int64_t>(left, 0), kSlice));
    const long result = wait(until);
    if (result != timed_out || left <= kSlice) return result;
  }
}

}  // namespace

extern "C" {

int clock_gettime(clockid_t clock, timespec* time) noexcept {
  static const auto get = Real<int (*)(clockid_t, timespec*)>("clock_gettime");
  const int result = get(clock, time);
  if (result == 0 && clock == CLOCK_REALTIME) *time = Timespec(Nanoseconds(*time) + Offset());
  return result;
}

int gettimeofday(timeval* time, void*) noexcept {
  const int64_t now = RealNow() + Offset();
  *time = {.tv_sec = now / kSecond, .tv_usec = now % kSecond / 1000};
  return 0;
}

time_t time(time_t* out) noexcept {
  const time_t now = (RealNow() + Offset()) / kSecond;
  if (out != nullptr) *out = now;
  return now;
}

int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex,
                           const timespec* until) {
  static const auto wait =
      Real<int (*)(pthread_cond_t*, pthread_mutex_t*, const timespec*)>("pthread_cond_timedwait");
  // A condition of the monotonic clock, which counts from the machine's start.
  if (Nanoseconds(*until) < kYear) return wait(condition, mutex, until);
  return static_cast<int>(WaitUntil(*until, ETIMEDOUT, [&](const timespec& slice) -> long {
    return wait(condition, mutex, &slice);
  }));
}

long syscall(long number, ...) noexcept {
  static const auto call = Real<long (*)(long, long, long, long, long, long, long)>("syscall");
  va_list given;
  va_start(given, number);
  const auto next = [&given] { return va_arg(given, long); };
  const long a = next(), b = next(), c = next(), d = next(), e = next(), f = next();
  va_end(given);
  const auto* until = reinterpret_cast<const timespec*>(d);
  const bool waits = number == SYS_futex && (b & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET &&
                     (b & FUTEX_CLOCK_REALTIME) != 0 && until != nullptr;
  if (!waits) return call(number, a, b, c, d, e, f);
  bool ended = false;
  const long result = WaitUntil(*until, ETIMEDOUT, [&](const timespec& slice) -> long {
    const long woken = call(number, a, b, c, reinterpret_cast<long>(&slice), e, f);
    ended = woken == 0;
    return woken == 0 ? 0 : errno;
  });
  if (ended) return 0;
  errno = static_cast<int>(result);
  return -1;
}

}  // extern "C"
