#include "base/clock.h"

#include <chrono>

namespace valuescope {
namespace {

class SystemClock : public Clock {
 public:
  absl::Time Now() const override { return absl::Now(); }
};

class SteadyClock : public Clock {
 public:
  absl::Time Now() const override {
    return began_ + absl::FromChrono(std::chrono::steady_clock::now() - origin_);
  }

 private:
  const absl::Time began_ = absl::Now();
  const std::chrono::steady_clock::time_point origin_ = std::chrono::steady_clock::now();
};

}  // namespace

const Clock& Clock::System() {
  static const SystemClock clock;
  return clock;
}

const Clock& Clock::Steady() {
  static const SteadyClock clock;
  return clock;
}

}  // namespace valuescope
