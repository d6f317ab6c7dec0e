#include "rpc/status_to_grpc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace valuescope::rpc {
namespace {

using testing::HasSubstr;
using testing::Not;

google::rpc::Status DetailsIn(const grpc::Status& status) {
  google::rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  return details;
}

template <typename Message>
std::optional<Message> Find(const google::rpc::Status& status) {
  for (const auto& detail : status.details()) {
    Message message;
    if (detail.UnpackTo(&message)) return message;
  }
  return std::nullopt;
}

TEST(StatusToGrpcTest, OkIsOk) { EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok()); }

TEST(StatusToGrpcTest, ABadFieldIsNamedInBadRequest) {
  const absl::Status status =
      InField("interventions[2]", InvalidField("layers.list.layers[0]", "is 30, allowed 0 to 29"));
  const grpc::Status translated = ToGrpcStatus(status);
  EXPECT_EQ(translated.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const google::rpc::Status details = DetailsIn(translated);
  EXPECT_EQ(details.code(), 3);
  EXPECT_EQ(details.message(), translated.error_message());
  const auto info = Find<google::rpc::ErrorInfo>(details);
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(info->domain(), "valuescope");
  EXPECT_EQ(info->reason(), "INVALID_FIELD");
  const auto bad = Find<google::rpc::BadRequest>(details);
  ASSERT_TRUE(bad.has_value());
  ASSERT_EQ(bad->field_violations_size(), 1);
  EXPECT_EQ(bad->field_violations(0).field(), "interventions[2].layers.list.layers[0]");
  EXPECT_THAT(bad->field_violations(0).description(), HasSubstr("0 to 29"));
  EXPECT_FALSE(Find<google::rpc::RetryInfo>(details).has_value());
}

TEST(StatusToGrpcTest, RetryLaterSaysWhen) {
  const absl::Status status = RetryLater("QUEUE_FULL", "full", absl::Milliseconds(1500));
  const auto retry = Find<google::rpc::RetryInfo>(DetailsIn(ToGrpcStatus(status)));
  ASSERT_TRUE(retry.has_value());
  EXPECT_EQ(retry->retry_delay().seconds(), 1);
  EXPECT_EQ(retry->retry_delay().nanos(), 500'000'000);
}

TEST(StatusToGrpcTest, WhatNeverFitsHasAReasonAndNoRetry) {
  const absl::Status status = NeverFits("CAPTURE_TOO_LARGE", "too large");
  const google::rpc::Status details = DetailsIn(ToGrpcStatus(status));
  EXPECT_EQ(Find<google::rpc::ErrorInfo>(details)->reason(), "CAPTURE_TOO_LARGE");
  EXPECT_FALSE(Find<google::rpc::RetryInfo>(details).has_value());
}

TEST(StatusToGrpcTest, FaultsKeepTheirWordsForTheLog) {
  const grpc::Status translated =
      ToGrpcStatus(absl::InternalError("exception: /home/someone/secret.db is locked"));
  EXPECT_EQ(translated.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_THAT(translated.error_message(), Not(HasSubstr("secret")));
  EXPECT_THAT(translated.error_message(), HasSubstr("x-request-id"));
  EXPECT_THAT(translated.error_details(), Not(HasSubstr("secret")));
}

}  // namespace
}  // namespace valuescope::rpc
