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

TEST(Names, AreCompletedAndChecked) {
  EXPECT_EQ(ResourceName("models", "x"), "models/x");
  EXPECT_EQ(ResourceName("models", "models/x"), "models/x");
  EXPECT_EQ(*ParseSite("mlp_neurons"), v1::SITE_MLP_NEURONS);
  EXPECT_THAT(std::string(ParseSite("unspecified").status().message()), HasSubstr("residual_post"));
  EXPECT_EQ(*ParseReduction("mean"), v1::REDUCTION_MEAN);
}

}  // namespace
}  // namespace valuescope::command_line
