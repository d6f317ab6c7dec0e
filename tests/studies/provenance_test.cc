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
    bool batch_invariant;
    const char* determinism;
  };
  for (const Case& one : {Case{"cpu", DType::kFloat32, true, "bitwise on cpu float32"},
                          Case{"cpu", DType::kBFloat16, false, "to rounding"},
                          Case{"cpu", DType::kBFloat16, true, "bitwise on cpu bfloat16"},
                          Case{"cuda:1", DType::kFloat32, false, "to rounding"},
                          Case{"cuda:1", DType::kFloat16, true, "bitwise on cuda float16"}}) {
    engine::ServedModel model;
    model.device = one.device;
    model.dtype = one.dtype;
    model.batch_invariant = one.batch_invariant;
    const Provenance provenance = ProvenanceOf(model, /*rendered_chat=*/false);
    EXPECT_EQ(provenance.determinism, one.determinism);
    EXPECT_EQ(provenance.compute_dtype, one.dtype);
  }
}

TEST(ProvenanceTest, TheHardwareIsThatOfTheDevice) {
  engine::ServedModel model;
  model.device = "cpu";
  EXPECT_NE(ProvenanceOf(model, /*rendered_chat=*/false).hardware_class, "");
  model.device = "cuda:0";
  model.device_name = "some GPU";
  EXPECT_EQ(ProvenanceOf(model, /*rendered_chat=*/false).hardware_class, "some GPU");
}

TEST(ProvenanceTest, WhatSomebodyGaveWasComputedByNoModel) {
  engine::ServedModel model;
  model.weights_digest = "ab";
  const Provenance provenance = ProvenanceWithin(model);
  EXPECT_EQ(provenance.model_digest, "ab");
  EXPECT_EQ(provenance.compute_dtype, std::nullopt);
  EXPECT_EQ(provenance.determinism, "");
  EXPECT_EQ(provenance.hardware_class, "");
  const auto back = ProvenanceFromJson(ProvenanceToJson(provenance));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(*back, provenance);
}

TEST(ProvenanceTest, WhatIsDerivedSaysWhatItsSourcesAgreeOn) {
  Provenance first;
  first.model_digest = "ab";
  first.judge = "word list";
  first.seeds = {1};
  first.num_expressing = 3;
  first.num_non_expressing = 4;
  first.num_dropped = 1;
  first.compute_dtype = DType::kFloat32;
  first.determinism = "bitwise on cpu float32";
  first.inputs = {{"responses", "cd"}};
  first.options = "{}";
  Provenance second = first;
  second.judge = "a person";
  second.seeds = {2};
  second.num_expressing = 5;
  second.compute_dtype = DType::kBFloat16;
  second.determinism = "bitwise on cpu bfloat16";
  const Provenance derived =
      DerivedProvenance(std::array{&std::as_const(first), &std::as_const(second)});
  EXPECT_EQ(derived.model_digest, "ab");
  EXPECT_EQ(derived.judge, "word list; a person");
  EXPECT_THAT(derived.seeds, ElementsAre(1, 2));
  EXPECT_EQ(derived.num_expressing, 8);
  EXPECT_EQ(derived.num_non_expressing, 8);
  EXPECT_EQ(derived.num_dropped, 2);
  EXPECT_EQ(derived.compute_dtype, std::nullopt);
  EXPECT_EQ(derived.determinism, "to rounding");
  EXPECT_TRUE(derived.inputs.empty());
  EXPECT_EQ(derived.options, "");
  const Provenance alone = DerivedProvenance(std::array{&std::as_const(first)});
  EXPECT_EQ(alone.compute_dtype, DType::kFloat32);
  EXPECT_EQ(alone.determinism, "bitwise on cpu float32");
}

}  // namespace
}  // namespace valuescope::studies
