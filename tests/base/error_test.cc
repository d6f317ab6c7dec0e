#include "base/error.h"

#include <gtest/gtest.h>

namespace valuescope {
namespace {

TEST(Error, OutOfRangeNamesTheFieldAndTheRange) {
  const absl::Status status = OutOfRange("layers[0]", 99, 0, 29);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "`layers[0]`: is 99, allowed range is 0 to 29");
  EXPECT_EQ(DetailsOf(status).reason, "OUT_OF_RANGE");
  EXPECT_EQ(DetailsOf(status).field, "layers[0]");
}

TEST(Error, InFieldPrefixesThePathOnceAndLeavesOthersAlone) {
  EXPECT_EQ(DetailsOf(InField("interventions[2]", InvalidField("layers", "x"))).field,
            "interventions[2].layers");
  EXPECT_EQ(DetailsOf(InField("inputs", InvalidField("[3].prompt", "x"))).field,
            "inputs[3].prompt");
  EXPECT_EQ(InField("a", ResourceNotFound("models/x")), ResourceNotFound("models/x"));
}

TEST(Error, RetryLaterCarriesItsDelayAndNeverFitsCarriesNone) {
  EXPECT_EQ(DetailsOf(RetryLater("QUEUE_FULL", "full", absl::Seconds(2))).retry_after,
            absl::Seconds(2));
  EXPECT_FALSE(DetailsOf(NeverFits("TOO_LARGE", "too large")).retry_after.has_value());
}

}  // namespace
}  // namespace valuescope
