// Unknown enum values are found wherever they stand in a request.
#include "rpc/request_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

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

TEST(CheckEnums, LookingTakesNoMemoryThatStays) {
  v1::GenerateRequest request;
  google::protobuf::Struct* arguments =
      request.mutable_prompt()->mutable_chat()->mutable_template_arguments();
  for (int depth = 0; depth < 8; ++depth) {
    for (int i = 0; i < 100; ++i) {
      (*arguments->mutable_fields())[std::to_string(i)].set_string_value("a value of some length");
    }
    arguments = (*arguments->mutable_fields())["inner"].mutable_struct_value();
  }
  const size_t before = request.SpaceUsedLong();
  EXPECT_TRUE(CheckEnums(request).ok());
  EXPECT_EQ(request.SpaceUsedLong(), before);
}

}  // namespace
}  // namespace valuescope::rpc
