#include "store/fair_turns.h"

#include <algorithm>

namespace valuescope::store {
namespace {

absl::Duration UnderWay(const Share& share) {
  return VirtualTimeOf(share.running * kStepUnderWay, share.weight);
}

}  // namespace

absl::Duration VirtualTimeOf(absl::Duration worked, double weight) { return worked / weight; }

absl::Duration StartOf(const Share& share, absl::Duration served) {
  return std::max(share.virtual_time, served - UnderWay(share));
}

Turn TurnOf(const Share& share, absl::Duration served) {
  return {.time = StartOf(share, served) + UnderWay(share), .last_turn = share.last_turn};
}

}  // namespace valuescope::store
