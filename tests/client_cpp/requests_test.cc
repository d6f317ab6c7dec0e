// Which flags go with what, and the requests that they make. A flag that would change nothing is
// told, not dropped.
#include "requests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

namespace valuescope::command_line {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

AttributeFlags Attribution(const std::string& method) {
  AttributeFlags flags;
  flags.model = "m";
  flags.method = method;
  if (method == "direct_contribution") flags.target.vector = "v";
  return flags;
}

std::string Refusal(const AttributeFlags& flags) {
  return std::string(MakeAttribution(flags).status().message());
}

// Sets one flag of an attribution.
struct MethodFlag {
  std::string name;
  std::vector<std::string> methods;  // that have it
  std::function<void(AttributeFlags&)> set;
};

std::vector<MethodFlag> MethodFlags() {
  const std::vector<std::string> ablations = {"attribution_patching", "integrated_gradients",
                                              "causal_ablation"};
  return {
      {"--source_layer", {"direct_contribution"}, [](auto& flags) { flags.source_layer = 0; }},
      {"--target_layer", ablations,
       [](auto& flags) {
         flags.target.vector = "v";
         flags.target.layer = 0;
       }},
      {"--positive", ablations, [](auto& flags) { flags.target.positive = {"7"}; }},
      {"--baseline", {"attribution_patching"}, [](auto& flags) { flags.baseline = "zero"; }},
      {"--definition",
       {"activation_probability_difference"},
       [](auto& flags) { flags.definition = "product"; }},
      {"--steps", {"integrated_gradients"}, [](auto& flags) { flags.steps = 3; }},
      {"--tolerance", {"integrated_gradients"}, [](auto& flags) { flags.tolerance = 0.1; }},
      {"--max_steps", {"integrated_gradients"}, [](auto& flags) { flags.max_steps = 12; }},
      {"--reference", {"causal_ablation"}, [](auto& flags) { flags.reference = "means"; }},
      {"--candidates", {"causal_ablation"}, [](auto& flags) { flags.candidates = "1/2"; }},
      {"--tokens", ablations, [](auto& flags) { flags.tokens = "response"; }},
      {"--recompute_norm_scale",
       {"log_probability_increase"},
       [](auto& flags) { flags.recompute_norm_scale = true; }},
  };
}

TEST(Attribution, TakesTheFlagsOfItsMethodAndNoOthers) {
  for (const char* method :
       {"direct_contribution", "activation_probability_difference", "attribution_patching",
        "integrated_gradients", "log_probability_increase", "causal_ablation"}) {
    EXPECT_TRUE(MakeAttribution(Attribution(method)).ok()) << method;
    for (const MethodFlag& flag : MethodFlags()) {
      AttributeFlags flags = Attribution(method);
      flag.set(flags);
      if (std::count(flag.methods.begin(), flag.methods.end(), method) > 0) {
        EXPECT_TRUE(MakeAttribution(flags).ok()) << method << " " << flag.name;
      } else {
        // A vector that the target's layer goes with is refused before the layer.
        EXPECT_THAT(Refusal(flags),
                    AllOf(HasSubstr(" goes with --method "), HasSubstr(flag.methods.front()),
                          HasSubstr(std::string("not with ") + method)))
            << flag.name;
      }
    }
  }
}

TEST(Attribution, NamesTheFlagsThatATargetLacks) {
  AttributeFlags flags = Attribution("attribution_patching");
  flags.target.layer = 1;
  EXPECT_EQ(Refusal(flags), "--target_layer goes with --vector");
  flags.target = {.vector = "v"};
  EXPECT_THAT(Refusal(flags), HasSubstr("needs --target_layer"));
  flags.target = {.negative = {"7"}};
  EXPECT_EQ(Refusal(flags), "--negative goes with --positive");
  flags.target = {.vector = "v", .layer = 1, .positive = {"7"}};
  EXPECT_THAT(Refusal(flags), HasSubstr("two targets"));
  flags = Attribution("direct_contribution");
  flags.target.vector.clear();
  EXPECT_EQ(Refusal(flags), "--method direct_contribution needs --vector");
  EXPECT_THAT(Refusal(Attribution("magic")), HasSubstr("choose one of direct_contribution"));
}

TEST(Attribution, CarriesWhatWasTyped) {
  AttributeFlags flags = Attribution("direct_contribution");
  flags.source_layer = 5;
  flags.top_k = 7;
  flags.display_name = "mine";
  const auto direct = MakeAttribution(flags);
  ASSERT_TRUE(direct.ok()) << direct.status();
  EXPECT_EQ(direct->vector(), "vectors/v");
  EXPECT_EQ(direct->source_layer(), 5);
  EXPECT_EQ(direct->top_k(), 7);
  EXPECT_EQ(direct->display_name(), "mine");
  EXPECT_FALSE(direct->has_target());

  flags = Attribution("integrated_gradients");
  flags.tolerance = 0.25;
  flags.max_steps = 36;
  flags.tokens = "last_prompt";
  flags.target = {.vector = "v", .layer = 2};
  const auto gradients = MakeAttribution(flags);
  ASSERT_TRUE(gradients.ok()) << gradients.status();
  EXPECT_EQ(gradients->integrated_gradients().tolerance(), 0.25);
  EXPECT_EQ(gradients->integrated_gradients().max_steps(), 36);
  EXPECT_EQ(gradients->integrated_gradients().tokens().kind(), v1::TOKEN_KIND_LAST_PROMPT);
  EXPECT_EQ(gradients->target().vector_projection().vector(), "vectors/v");
  EXPECT_EQ(gradients->target().vector_projection().layer(), 2);

  flags = Attribution("causal_ablation");
  flags.candidates = "1/2+0/3";
  const auto ablation = MakeAttribution(flags);
  ASSERT_TRUE(ablation.ok()) << ablation.status();
  ASSERT_EQ(ablation->causal_ablation().candidates_size(), 2);
  EXPECT_EQ(ablation->causal_ablation().candidates(1).index(), 3);
}

TEST(NeuronTests, HaveAFactorOrAnAblation) {
  const auto refusal = [](const std::function<void(TestFlags&)>& set) {
    TestFlags flags;
    flags.model = "m";
    flags.neurons = "0/1";
    set(flags);
    return std::string(MakeNeuronTest(flags).status().message());
  };
  EXPECT_EQ(refusal([](TestFlags&) {}), "");
  EXPECT_EQ(refusal([](TestFlags& flags) { flags.mode = "zero"; }), "");
  EXPECT_EQ(refusal([](TestFlags& flags) { flags.factor = 2; }),
            "--factor goes with --test scale, not with remove");
  EXPECT_EQ(refusal([](TestFlags& flags) { flags.test = "scale"; }), "--test scale needs --factor");
  EXPECT_EQ(refusal([](TestFlags& flags) {
              flags.test = "scale";
              flags.factor = 2;
              flags.mode = "zero";
            }),
            "--mode goes with --test remove or keep_only, not with scale");
  EXPECT_EQ(refusal([](TestFlags& flags) { flags.target.layer = 1; }),
            "--target_layer goes with --vector");
}

class ExtractionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::ofstream(path) << "What now?\n";
    flags.model = "m";
    flags.queries = path;
  }
  void TearDown() override { std::remove(path.c_str()); }

  const std::string path = ::testing::TempDir() + "/extraction_queries.txt";
  ExtractFlags flags;
};

TEST_F(ExtractionTest, HasLabelledConditionsWithoutAJudge) {
  flags.expressing = {"Seek adventure.", "Love risk."};
  flags.not_expressing = {""};
  const auto request = MakeExtraction(flags);
  ASSERT_TRUE(request.ok()) << request.status();
  const v1::GeneratedResponses& generated = request->generated();
  EXPECT_FALSE(generated.has_judge());
  ASSERT_EQ(generated.conditions_size(), 2);
  EXPECT_THAT(generated.conditions(0).system_messages(),
              ElementsAre("Seek adventure.", "Love risk."));
  EXPECT_TRUE(generated.conditions(0).expresses());
  EXPECT_THAT(generated.conditions(1).system_messages(), ElementsAre(""));
  EXPECT_TRUE(generated.conditions(1).has_expresses());
  EXPECT_FALSE(generated.conditions(1).expresses());
}

TEST_F(ExtractionTest, HasAJudgeForAnswersWithoutALabelAndForNoOthers) {
  flags.expressing = {"Seek adventure."};
  flags.judge.words = {"thrill*"};
  EXPECT_THAT(std::string(MakeExtraction(flags).status().message()),
              HasSubstr("give --system_message"));
  flags.system_messages = {"Answer."};
  const auto request = MakeExtraction(flags);
  ASSERT_TRUE(request.ok()) << request.status();
  ASSERT_EQ(request->generated().conditions_size(), 2);
  EXPECT_FALSE(request->generated().conditions(0).has_expresses());
  EXPECT_THAT(request->generated().judge().word_list().words(), ElementsAre("thrill*"));
  flags.judge.words.clear();
  EXPECT_THAT(std::string(MakeExtraction(flags).status().message()),
              HasSubstr("needs --words or --rubric"));
}

TEST(Edits, GiveScopeAndNormAMeaning) {
  PromptFlags flags;
  EXPECT_TRUE(ParseEdits(flags).ok());
  flags.preserve_norm = true;
  EXPECT_THAT(std::string(ParseEdits(flags).status().message()), HasSubstr("go with --vector"));
  flags.preserve_norm = false;
  flags.scope = "all";
  EXPECT_FALSE(ParseEdits(flags).ok());
  flags.vectors = {"v:1@3"};
  EXPECT_TRUE(ParseEdits(flags).ok());
}

}  // namespace
}  // namespace valuescope::command_line
