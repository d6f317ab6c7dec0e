// Confidence intervals as messages of the contract.
#ifndef VALUESCOPE_STUDIES_CONFIDENCE_INTERVAL_H_
#define VALUESCOPE_STUDIES_CONFIDENCE_INTERVAL_H_

#include "analysis/statistics.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::studies {

inline v1::Interval IntervalToProto(const analysis::ConfidenceInterval& interval) {
  v1::Interval proto;
  proto.set_lower(interval.lower);
  proto.set_upper(interval.upper);
  proto.set_level(interval.level);
  return proto;
}

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_CONFIDENCE_INTERVAL_H_
