// Unknown enum values are found wherever they stand in a request.
#include "rpc/request_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "valuescope/v1/activations.pb.h"
#include "valuescope/v1/generation.pb.h"

namespace valuescope::rpc {
namespace {

TEST(CheckEnums, KnownValuesPassEverywhere) {
  v1::CaptureRequest request;
  request.add_taps()->set_site(v1::SITE_MLP_NEURONS);
  request.mutable_taps(0)->set_reduction(v1::REDUCTION_UNSPECIFIED);
  request.add_inputs()->mutable_prompt()->set_text("x");
  EXPECT_TRUE(CheckEnums(request).ok());
  EXPECT_TRUE(CheckEnums(v1::GenerateRequest()).ok());
}

TEST(CheckEnums, AnUnknownValueIsNamedWithItsPathAndTheValuesThereAre) {
  v1::CaptureRequest request;
  request.add_taps()->set_site(v1::SITE_MLP_NEURONS);
  request.add_taps()->set_reduction(static_cast<v1::Reduction>(999));
  const absl::Status status = CheckEnums(request);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DetailsOf(status).field, "taps[1].reduction");
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("REDUCTION_MEAN"));
}

TEST(CheckEnums, InsideNestedMessagesToo) {
  v1::GenerateRequest request;
  request.add_interventions()->mutable_tokens()->set_kind(static_cast<v1::TokenKind>(-1));
  EXPECT_EQ(DetailsOf(CheckEnums(request)).field, "interventions[0].tokens.kind");
}

}  // namespace
}  // namespace valuescope::rpc
