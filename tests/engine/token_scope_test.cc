// Which tokens every TokenKind names, and what is refused.
#include "engine/token_scope.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace valuescope::engine {
namespace {

using Positions = std::vector<int64_t>;

// A prompt of four tokens and three more: generated, or given.
constexpr SequenceExtent kGeneration{.prompt = 4, .most = 7, .generates = true};
constexpr SequenceExtent kOnlyAPrompt{.prompt = 4, .most = 4, .generates = false};
constexpr SequenceExtent kGiven{.prompt = 4, .most = 7, .generates = false};

Positions Contained(const TokenScope& scope, int64_t most) {
  Positions positions;
  for (int64_t position = 0; position < most; ++position) {
    if (scope.Contains(position)) positions.push_back(position);
  }
  return positions;
}

struct Row {
  const char* name;
  TokenKind kind;
  Positions given;  // for kPositions
  SequenceExtent extent;
  bool for_tap;
  Positions expected;
};

class Scopes : public ::testing::TestWithParam<Row> {};

TEST_P(Scopes, HoldTheTokensOfTheirKind) {
  const Row& row = GetParam();
  const auto scope =
      TokenScope::Resolve({.kind = row.kind, .positions = row.given}, row.extent, row.for_tap);
  ASSERT_TRUE(scope.ok()) << scope.status();
  EXPECT_EQ(Contained(*scope, row.extent.most), row.expected);
  EXPECT_EQ(scope->MostTokens(), static_cast<int64_t>(row.expected.size()));
}

INSTANTIATE_TEST_SUITE_P(
    TruthTable, Scopes,
    ::testing::Values(
        Row{"AllGenerated", TokenKind::kAll, {}, kGeneration, false, {0, 1, 2, 3, 4, 5, 6}},
        Row{"AllGiven", TokenKind::kAll, {}, kGiven, true, {0, 1, 2, 3, 4, 5, 6}},
        Row{"AllButFirstGenerated",
            TokenKind::kAllButFirst,
            {},
            kGeneration,
            false,
            {1, 2, 3, 4, 5, 6}},
        Row{"AllButFirstGiven", TokenKind::kAllButFirst, {}, kGiven, true, {1, 2, 3, 4, 5, 6}},
        Row{"PromptGenerated", TokenKind::kPrompt, {}, kGeneration, false, {0, 1, 2, 3}},
        Row{"PromptGiven", TokenKind::kPrompt, {}, kGiven, true, {0, 1, 2, 3}},
        Row{"ResponseGenerated", TokenKind::kResponse, {}, kGeneration, false, {4, 5, 6}},
        Row{"ResponseGiven", TokenKind::kResponse, {}, kGiven, true, {4, 5, 6}},
        Row{"LastPromptGenerated", TokenKind::kLastPrompt, {}, kGeneration, false, {3}},
        Row{"LastPromptGiven", TokenKind::kLastPrompt, {}, kGiven, false, {3}},
        Row{"LastGivenTap", TokenKind::kLast, {}, kGiven, true, {6}},
        Row{"LastGivenSteering", TokenKind::kLast, {}, kGiven, false, {6}},
        Row{"FromLastPromptGenerated",
            TokenKind::kFromLastPrompt,
            {},
            kGeneration,
            false,
            {3, 4, 5, 6}},
        Row{"FromLastPromptGiven", TokenKind::kFromLastPrompt, {}, kGiven, true, {3, 4, 5, 6}},
        Row{"PositionsGenerated", TokenKind::kPositions, {5, 0}, kGeneration, false, {0, 5}},
        Row{"NegativeCountsFromThePromptsEnd",
            TokenKind::kPositions,
            {-1, -4},
            kGeneration,
            false,
            {0, 3}},
        Row{"NegativeCountsFromTheEndOfAll",
            TokenKind::kPositions,
            {-1, -7},
            kGiven,
            true,
            {0, 6}}),
    [](const auto& info) { return info.param.name; });

struct Refusal {
  const char* name;
  TokenKind kind;
  Positions given;
  SequenceExtent extent;
  bool for_tap;
  const char* field;
  const char* reason;
  const char* said;  // part of the description
};

class Refusals : public ::testing::TestWithParam<Refusal> {};

TEST_P(Refusals, NameTheFieldAndTheRange) {
  const Refusal& row = GetParam();
  const absl::Status status =
      TokenScope::Resolve({.kind = row.kind, .positions = row.given}, row.extent, row.for_tap)
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const ErrorDetails details = DetailsOf(status);
  EXPECT_EQ(details.field, row.field);
  EXPECT_EQ(details.reason, row.reason);
  EXPECT_NE(details.description.find(row.said), std::string::npos) << details.description;
}

constexpr SequenceExtent kOneToken{.prompt = 4, .most = 4, .generates = true};

INSTANTIATE_TEST_SUITE_P(
    Everything, Refusals,
    ::testing::Values(Refusal{"TooLarge",
                              TokenKind::kPositions,
                              {0, 7},
                              kGeneration,
                              false,
                              "positions[1]",
                              "OUT_OF_RANGE",
                              "is 7, allowed range is -4 to 6"},
                      Refusal{"TooNegativeForAPrompt",
                              TokenKind::kPositions,
                              {-5},
                              kGeneration,
                              false,
                              "positions[0]",
                              "OUT_OF_RANGE",
                              "is -5, allowed range is -4 to 6"},
                      Refusal{"TooNegativeForAll",
                              TokenKind::kPositions,
                              {-8},
                              kGiven,
                              true,
                              "positions[0]",
                              "OUT_OF_RANGE",
                              "is -8, allowed range is -7 to 6"},
                      Refusal{"Huge",
                              TokenKind::kPositions,
                              {INT64_MAX},
                              kGiven,
                              true,
                              "positions[0]",
                              "OUT_OF_RANGE",
                              "allowed range is -7 to 6"},
                      Refusal{"MostNegative",
                              TokenKind::kPositions,
                              {INT64_MIN},
                              kGiven,
                              true,
                              "positions[0]",
                              "OUT_OF_RANGE",
                              "allowed range is -7 to 6"},
                      Refusal{"Twice",
                              TokenKind::kPositions,
                              {2, 2},
                              kGiven,
                              true,
                              "positions[1]",
                              "INVALID_FIELD",
                              "twice"},
                      Refusal{"TwiceByTwoNames",
                              TokenKind::kPositions,
                              {6, -1},
                              kGiven,
                              true,
                              "positions[1]",
                              "INVALID_FIELD",
                              "twice"},
                      Refusal{"NoPositions",
                              TokenKind::kPositions,
                              {},
                              kGiven,
                              true,
                              "positions",
                              "INVALID_FIELD",
                              "at least one"},
                      Refusal{"ATapOnAResponseThatIsNotThere",
                              TokenKind::kResponse,
                              {},
                              kOnlyAPrompt,
                              true,
                              "kind",
                              "TAP_READS_NOTHING",
                              "read nothing"},
                      // One generated token is never fed: there is no response token to act on.
                      Refusal{"ResponseOfOneToken",
                              TokenKind::kResponse,
                              {},
                              kOneToken,
                              false,
                              "kind",
                              "INTERVENTION_TOUCHES_NOTHING",
                              "touch nothing"},
                      Refusal{"LastOfAGeneration",
                              TokenKind::kLast,
                              {},
                              kGeneration,
                              false,
                              "kind",
                              "INVALID_FIELD",
                              "LAST"}),
    [](const auto& info) { return info.param.name; });

TEST(TokenScope, MayHoldGeneratedTokensWhereItSelectsBehindThePrompt) {
  const auto may_hold = [](const TokenSelection& selection) {
    return MayHoldGenerated(selection, kGeneration.prompt);
  };
  EXPECT_TRUE(may_hold({.kind = TokenKind::kAll, .positions = {}}));
  EXPECT_TRUE(may_hold({.kind = TokenKind::kAllButFirst, .positions = {}}));
  EXPECT_TRUE(may_hold({.kind = TokenKind::kResponse, .positions = {}}));
  EXPECT_TRUE(may_hold({.kind = TokenKind::kFromLastPrompt, .positions = {}}));
  EXPECT_TRUE(may_hold({.kind = TokenKind::kLast, .positions = {}}));
  EXPECT_TRUE(may_hold({.kind = TokenKind::kPositions, .positions = {1, 6}}));
  EXPECT_FALSE(may_hold({.kind = TokenKind::kPrompt, .positions = {}}));
  EXPECT_FALSE(may_hold({.kind = TokenKind::kLastPrompt, .positions = {}}));
  EXPECT_FALSE(may_hold({.kind = TokenKind::kPositions, .positions = {1, -1}}));
}

}  // namespace
}  // namespace valuescope::engine
