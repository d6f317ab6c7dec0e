// When places of a kind came free of late, from which whoever finds none hears when to come back.
#ifndef VALUESCOPE_BASE_FREED_PLACES_H_
#define VALUESCOPE_BASE_FREED_PLACES_H_

#include <algorithm>
#include <cstddef>
#include <deque>

#include "absl/time/time.h"

namespace valuescope {

class FreedPlaces {
 public:
  // A place was taken while none was held: the time that it takes counts from here.
  void Begin(absl::Time now) { times_ = {now}; }

  // A place came free, and others are held.
  void Freed(absl::Time now) {
    times_.push_back(now);
    if (times_.size() > kTimesBetween + 1) times_.pop_front();
  }

  // How long it takes until one comes free, as the mean of the last ones: 1 s to 60 s.
  absl::Duration UntilNext(absl::Time now) const {
    constexpr absl::Duration kLeast = absl::Seconds(1), kMost = absl::Minutes(1);
    if (times_.empty()) return kLeast;
    const auto between = static_cast<double>(std::max<size_t>(1, times_.size() - 1));
    return std::clamp((now - times_.front()) / between, kLeast, kMost);
  }

 private:
  static constexpr size_t kTimesBetween = 16;

  std::deque<absl::Time> times_;
};

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_FREED_PLACES_H_
