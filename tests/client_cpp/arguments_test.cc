// What people type, and what they are told when they mistype it.
#include "arguments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

namespace valuescope::command_line {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Layers, AreNumbersRangesAndLists) {
  EXPECT_THAT(ParseLayers("14")->list().layers(), ElementsAre(14));
  EXPECT_THAT(ParseLayers("10-12")->list().layers(), ElementsAre(10, 11, 12));
  EXPECT_THAT(ParseLayers("7-9,3,8")->list().layers(), ElementsAre(3, 7, 8, 9));
  EXPECT_TRUE(ParseLayers("all")->all());
}

TEST(Layers, RefuseWhatIsNoChoice) {
  for (const char* text : {"", "-1", "3-1", "a", "1-2-3", "3,", "1e3", "99999999999"}) {
    const auto layers = ParseLayers(text);
    ASSERT_FALSE(layers.ok()) << text;
    EXPECT_THAT(std::string(layers.status().message()), HasSubstr("3,5,7-9")) << text;
  }
}

TEST(Steering, HasANameACoefficientAndLayers) {
  const auto steering = ParseSteering("vectors/ab-c:-6.5@14", "generated");
  ASSERT_TRUE(steering.ok()) << steering.status();
  EXPECT_EQ(steering->add().vector(), "vectors/ab-c");
  EXPECT_EQ(steering->add().coefficient(), -6.5f);
  EXPECT_THAT(steering->layers().list().layers(), ElementsAre(14));
  EXPECT_EQ(steering->tokens().kind(), v1::TOKEN_KIND_GENERATED);
  EXPECT_EQ(ParseSteering("abc:1@all", "all")->add().vector(), "vectors/abc");
}

TEST(Steering, RefusesWhatIsNone) {
  for (const char* text : {"vectors/a", "vectors/a@3", "vectors/a:x@3", ":3@4", "vectors/a:nan@3",
                           "vectors/a:inf@3"}) {
    EXPECT_FALSE(ParseSteering(text, "all").ok()) << text;
  }
  EXPECT_THAT(std::string(ParseSteering("vectors/a:1@3", "everywhere").status().message()),
              HasSubstr("from_last_prompt"));
}

TEST(Steering, ReadsRowsFromAFile) {
  const std::string path = ::testing::TempDir() + "/rows.f32";
  const std::vector<float> rows = {1, 2, 3, 4, 5, 6};
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(rows.data()), 24);
  const auto each = ParseSteering("file:" + path + ":2@4-5", "all");
  ASSERT_TRUE(each.ok()) << each.status();
  EXPECT_THAT(each->add().tensor().shape(), ElementsAre(2, 3));
  EXPECT_THAT(ParseSteering("file:" + path + ":2@4", "all")->add().tensor().shape(),
              ElementsAre(6));
  EXPECT_FALSE(ParseSteering("file:/nowhere/rows:2@4", "all").ok());
  std::remove(path.c_str());
}

v1::Intervention Edit(absl::string_view text) {
  const auto edit = ParseEdit(text, "all");
  EXPECT_TRUE(edit.ok()) << edit.status();
  return edit.value_or(v1::Intervention());
}

TEST(Edits, HaveOneFormAnOperation) {
  v1::Intervention edit = Edit("add:vectors/a:-2@3/mlp_output");
  EXPECT_EQ(edit.add().vector(), "vectors/a");
  EXPECT_EQ(edit.add().coefficient(), -2);
  EXPECT_EQ(edit.site(), v1::SITE_MLP_OUTPUT);
  EXPECT_THAT(edit.layers().list().layers(), ElementsAre(3));
  EXPECT_EQ(edit.tokens().kind(), v1::TOKEN_KIND_ALL);
  edit = Edit("project_out:vectors/a+b:0.5@all");
  EXPECT_THAT(edit.project_out().vectors(), ElementsAre("vectors/a", "vectors/b"));
  EXPECT_EQ(edit.project_out().strength(), 0.5f);
  EXPECT_EQ(edit.site(), v1::SITE_UNSPECIFIED);
  EXPECT_EQ(Edit("project_out:a@all").project_out().strength(), 1);
  edit = Edit("clamp:a:0@10-11");
  EXPECT_TRUE(edit.clamp().has_value());
  EXPECT_EQ(edit.clamp().vector(), "vectors/a");
  edit = Edit("scale_neurons:3/17+4/0:0.5@all");
  ASSERT_EQ(edit.scale_neurons().neurons_size(), 2);
  EXPECT_EQ(edit.scale_neurons().neurons(0).layer(), 3);
  EXPECT_EQ(edit.scale_neurons().neurons(0).index(), 17);
  EXPECT_EQ(edit.scale_neurons().factor(), 0.5f);
  edit = Edit("ablate_neurons:neuronSets/s=shared@all");
  EXPECT_EQ(edit.ablate_neurons().neuron_set(), "neuronSets/s");
  EXPECT_EQ(edit.ablate_neurons().class_(), v1::NEURON_CLASS_SHARED);
  EXPECT_EQ(edit.ablate_neurons().mode(), v1::ABLATION_MODE_ZERO);
  edit = Edit("ablate_neurons:2/1:means@all/attention_heads");
  EXPECT_EQ(edit.ablate_neurons().mode(), v1::ABLATION_MODE_MEAN);
  EXPECT_EQ(edit.ablate_neurons().reference(), "vectors/means");
  EXPECT_EQ(edit.site(), v1::SITE_ATTENTION_HEADS);
}

TEST(Edits, TakeRowsFromFiles) {
  const std::string path = ::testing::TempDir() + "/edit_rows.f32";
  std::ofstream(path, std::ios::binary).write("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
  EXPECT_THAT(Edit("replace:file:" + path + "@4-5").replace().tensor().shape(), ElementsAre(2, 2));
  EXPECT_THAT(Edit("clamp:file:" + path + ":1@4").clamp().tensor().shape(), ElementsAre(4));
  const v1::Intervention logits = Edit("replace:file:" + path + "@/logits");
  EXPECT_EQ(logits.site(), v1::SITE_LOGITS);
  EXPECT_FALSE(logits.has_layers());
  std::remove(path.c_str());
}

TEST(Edits, RefuseWhatIsNoneAndShowTheForms) {
  for (const char* text :
       {"", "add", "add:a", "add:@3", "wish:a:1@3", "clamp:a@3", "clamp:a:x@3", "clamp:a:nan@3",
        "scale_neurons:3/17@all", "scale_neurons:3:1@all", "scale_neurons:a/b:1@all", "replace:a@3",
        "replace:file:@3", "add:file::1@3"}) {
    const auto edit = ParseEdit(text, "all");
    EXPECT_FALSE(edit.ok()) << text;
    EXPECT_THAT(std::string(edit.status().message()), HasSubstr("ablate_neurons:NEURONS")) << text;
  }
  EXPECT_THAT(std::string(ParseEdit("add:a:1@3/nowhere", "all").status().message()),
              HasSubstr("residual_mid"));
  EXPECT_THAT(
      std::string(ParseEdit("ablate_neurons:neuronSets/s=grand@3", "all").status().message()),
      HasSubstr("shared"));
}

TEST(Names, AreCompletedAndChecked) {
  EXPECT_EQ(ResourceName("models", "x"), "models/x");
  EXPECT_EQ(ResourceName("models", "models/x"), "models/x");
  EXPECT_EQ(*ParseSite("mlp_neurons"), v1::SITE_MLP_NEURONS);
  EXPECT_THAT(std::string(ParseSite("unspecified").status().message()), HasSubstr("residual_post"));
  EXPECT_EQ(*ParseReduction("mean"), v1::REDUCTION_MEAN);
}

}  // namespace
}  // namespace valuescope::command_line
