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

TEST(JobSpecsTest, OfASpecThatIsStillLargeTheFieldsWithinAreLeftOutToo) {
  v1::JobSpec spec;
  v1::ExtractVectorsRequest& extraction = *spec.mutable_extract_vectors();
  extraction.mutable_layers()->mutable_list()->add_layers(3);
  for (int i = 0; i < 2000; ++i) {
    extraction.mutable_generated()->add_queries(std::string(1000, 'a'));
  }
  extraction.mutable_generated()->set_seed(7);
  LeaveOutLargeFields(spec);
  EXPECT_EQ(extraction.generated().queries_size(), 0);
  EXPECT_EQ(extraction.generated().seed(), 7u);
  EXPECT_EQ(spec.omitted(spec.omitted_size() - 1).field(), "extract_vectors.generated.queries");
  EXPECT_EQ(spec.omitted(spec.omitted_size() - 1).count(), 2000);
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
