// Whose turn it is: start-time fair queueing of tenants (Goyal, Vin and Cheng, 1996), where what is
// shared is the time of workers.
//
// A tenant's virtual time is the worker time that its jobs took, divided by its weight. The tenant
// that is furthest behind is served next. What a step will cost is not known before; so each that
// runs counts as kStepUnderWay until its time is told, and several workers do not all run to the
// same tenant. A tenant that had nothing to do collects no credit: it starts where the last one
// that was served had started.
#ifndef VALUESCOPE_STORE_FAIR_TURNS_H_
#define VALUESCOPE_STORE_FAIR_TURNS_H_

#include <cstdint>
#include <tuple>

#include "absl/time/time.h"

namespace valuescope::store {

inline constexpr absl::Duration kStepUnderWay = absl::Seconds(1);

// What `worked` adds to the virtual time of a tenant.
absl::Duration VirtualTimeOf(absl::Duration worked, double weight);

// A tenant with work to do.
struct Share {
  absl::Duration virtual_time;
  double weight = 1;
  int64_t running = 0;    // steps of its jobs under way
  int64_t last_turn = 0;  // higher where it was served later
};

// The virtual time from which the tenant goes on where `served` is where the last one that was
// served had started. It raises a tenant that was idle, and none that was waiting: that one was
// behind by no more than what it had under way.
absl::Duration StartOf(const Share& share, absl::Duration served);

// Orders tenants: the least is served first; between equals, who was served longest ago.
struct Turn {
  absl::Duration time;
  int64_t last_turn = 0;

  bool operator<(const Turn& other) const {
    return std::tie(time, last_turn) < std::tie(other.time, other.last_turn);
  }
};
Turn TurnOf(const Share& share, absl::Duration served);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_FAIR_TURNS_H_
