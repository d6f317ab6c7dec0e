#include "studies/provenance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <utility>

namespace valuescope::studies {
namespace {

using testing::ElementsAre;

TEST(ProvenanceTest, ClaimsNoMoreThanTheModelPromises) {
  struct Case {
    const char* device;
    DType dtype;
    v1::DataType contract_dtype;
    bool batch_invariant;
    const char* determinism;
  };
  for (const Case& one :
       {Case{"cpu", DType::kFloat32, v1::DATA_TYPE_FLOAT32, true, "bitwise on cpu float32"},
        Case{"cpu", DType::kBFloat16, v1::DATA_TYPE_BFLOAT16, false, "to rounding"},
        Case{"cpu", DType::kBFloat16, v1::DATA_TYPE_BFLOAT16, true, "bitwise on cpu bfloat16"},
        Case{"cuda:1", DType::kFloat32, v1::DATA_TYPE_FLOAT32, false, "to rounding"},
        Case{"cuda:1", DType::kFloat16, v1::DATA_TYPE_FLOAT16, true, "bitwise on cuda float16"}}) {
    engine::ServedModel model;
    model.device = one.device;
    model.dtype = one.dtype;
    model.batch_invariant = one.batch_invariant;
    const v1::Provenance provenance = ProvenanceOf(model, /*rendered_chat=*/false);
    EXPECT_EQ(provenance.determinism(), one.determinism);
    EXPECT_EQ(provenance.compute_dtype(), one.contract_dtype);
  }
}

TEST(ProvenanceTest, TheHardwareIsThatOfTheDevice) {
  engine::ServedModel model;
  model.device = "cpu";
  EXPECT_NE(ProvenanceOf(model, /*rendered_chat=*/false).hardware_class(), "");
  model.device = "cuda:0";
  model.device_name = "some GPU";
  EXPECT_EQ(ProvenanceOf(model, /*rendered_chat=*/false).hardware_class(), "some GPU");
}

TEST(ProvenanceTest, WhatSomebodyGaveWasComputedByNoModel) {
  engine::ServedModel model;
  model.weights_digest = "ab";
  const v1::Provenance provenance = ProvenanceWithin(model);
  EXPECT_EQ(provenance.model_digest(), "ab");
  EXPECT_EQ(provenance.compute_dtype(), v1::DATA_TYPE_UNSPECIFIED);
  EXPECT_EQ(provenance.determinism(), "");
  EXPECT_EQ(provenance.hardware_class(), "");
}

TEST(ProvenanceTest, WhatIsDerivedSaysWhatItsSourcesAgreeOn) {
  v1::Provenance first;
  first.set_model_digest("ab");
  first.set_judge("word list");
  first.add_seeds(1);
  first.set_num_expressing(3);
  first.set_num_non_expressing(4);
  first.set_num_dropped(1);
  first.set_pooling(v1::POOLING_RESPONSE_MEAN);
  first.set_compute_dtype(v1::DATA_TYPE_FLOAT32);
  first.set_determinism("bitwise on cpu float32");
  first.add_inputs()->set_name("responses");
  first.set_options("{}");
  v1::Provenance second = first;
  second.set_judge("a person");
  second.set_seeds(0, 2);
  second.set_num_expressing(5);
  second.set_compute_dtype(v1::DATA_TYPE_BFLOAT16);
  second.set_determinism("bitwise on cpu bfloat16");
  const v1::Provenance derived =
      DerivedProvenance(std::array{&std::as_const(first), &std::as_const(second)});
  EXPECT_EQ(derived.model_digest(), "ab");
  EXPECT_EQ(derived.judge(), "word list; a person");
  EXPECT_THAT(derived.seeds(), ElementsAre(1, 2));
  EXPECT_EQ(derived.num_expressing(), 8);
  EXPECT_EQ(derived.num_non_expressing(), 8);
  EXPECT_EQ(derived.num_dropped(), 2);
  EXPECT_EQ(derived.pooling(), v1::POOLING_RESPONSE_MEAN);
  EXPECT_EQ(derived.compute_dtype(), v1::DATA_TYPE_UNSPECIFIED);
  EXPECT_EQ(derived.determinism(), "to rounding");
  EXPECT_EQ(derived.inputs_size(), 0);
  EXPECT_EQ(derived.options(), "");
  const v1::Provenance alone = DerivedProvenance(std::array{&std::as_const(first)});
  EXPECT_EQ(alone.compute_dtype(), v1::DATA_TYPE_FLOAT32);
  EXPECT_EQ(alone.determinism(), "bitwise on cpu float32");
}

}  // namespace
}  // namespace valuescope::studies
