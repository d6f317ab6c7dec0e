#include "services/job_specs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace valuescope::services {
namespace {

v1::JobSpec SpecOf(int responses, size_t bytes_each) {
  v1::JobSpec spec;
  spec.mutable_attribute_neurons()->set_vector("vectors/v");
  for (int i = 0; i < responses; ++i) {
    spec.mutable_attribute_neurons()->add_responses()->mutable_response()->set_text(
        std::string(bytes_each, 'a'));
  }
  return spec;
}

TEST(JobSpecsTest, ASmallSpecIsKeptWhole) {
  const v1::JobSpec spec = SpecOf(100, 1000);
  v1::JobSpec kept = spec;
  LeaveOutLargeFields(kept);
  EXPECT_EQ(kept.SerializeAsString(), spec.SerializeAsString());
  EXPECT_TRUE(CheckSpecSize(kept).ok());
}

TEST(JobSpecsTest, ALargeSpecLosesItsRepeatedFieldsAndSaysWhichAndHowMany) {
  v1::JobSpec spec = SpecOf(2000, 1000);
  LeaveOutLargeFields(spec);
  EXPECT_EQ(spec.attribute_neurons().responses_size(), 0);
  EXPECT_EQ(spec.attribute_neurons().vector(), "vectors/v");
  ASSERT_EQ(spec.omitted_size(), 1);
  EXPECT_EQ(spec.omitted(0).field(), "attribute_neurons.responses");
  EXPECT_EQ(spec.omitted(0).count(), 2000);
  EXPECT_TRUE(CheckSpecSize(spec).ok());
}

TEST(JobSpecsTest, WhatIsStillLargeIsRefused) {
  v1::JobSpec spec = SpecOf(1, 1);
  spec.mutable_attribute_neurons()->set_artifact(std::string(kMostSpecBytes, 'a'));
  LeaveOutLargeFields(spec);
  EXPECT_EQ(DetailsOf(CheckSpecSize(spec)).field, "spec");
}

}  // namespace
}  // namespace valuescope::services
