#include "rpc/request_codec.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "base/error.h"

namespace valuescope::rpc {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

template <typename Message>
Message Parse(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
  return message;
}

// vectors/v has rows for layers 1 and 3 at width 2.
class OneVector : public VectorResolver {
 public:
  absl::StatusOr<ResolvedVector> Resolve(absl::string_view tenant, absl::string_view name,
                                         const engine::ServedModel&, model::Site site,
                                         absl::string_view) override {
    if (tenant != "me" || name != "vectors/v") return ResourceNotFound(name);
    return ResolvedVector{.name = "vectors/v",
                          .digest = "d",
                          .site = site,
                          .width = 2,
                          .rows = {{1, {10, 11}}, {3, {30, 31}}}};
  }
};

class RequestCodecTest : public testing::Test {
 protected:
  RequestCodecTest() {
    model_.architecture.num_layers = 4;
    model_.architecture.hidden = 2;
    model_.architecture.intermediate = 3;
    model_.architecture.vocabulary = 10;
  }

  absl::StatusOr<std::vector<engine::Intervention>> Interventions(
      const std::vector<std::string>& texts) {
    google::protobuf::RepeatedPtrField<v1::Intervention> protos;
    for (const std::string& text : texts) *protos.Add() = Parse<v1::Intervention>(text);
    used_.clear();
    return InterventionsFromProto(protos, {.tenant = "me", .model = model_, .vectors = vectors_},
                                  used_);
  }

  void ExpectRefused(const std::string& intervention, const std::string& field,
                     const std::string& says) {
    const auto result = Interventions({intervention});
    ASSERT_FALSE(result.ok()) << intervention;
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << intervention;
    EXPECT_EQ(DetailsOf(result.status()).field, field) << intervention;
    EXPECT_THAT(std::string(result.status().message()), HasSubstr(says)) << intervention;
  }

  engine::ServedModel model_;
  OneVector vectors_;
  UsedResources used_;
};

// [2] float32: 1, 2.
const char kPair[] =
    R"(tensor { dtype: DATA_TYPE_FLOAT32 shape: 2 data: "\000\000\200\077\000\000\000\100" })";

TEST_F(RequestCodecTest, AnInlineRowServesEveryChosenLayer) {
  const auto result = Interventions(
      {std::string("layers { range { first: 1 last: 2 } } add { coefficient: 0 ") + kPair + "}"});
  ASSERT_TRUE(result.ok()) << result.status();
  const engine::Intervention& one = result->front();
  EXPECT_EQ(one.site, model::Site::kResidualPost);
  EXPECT_THAT(one.layers, ElementsAre(1, 2));
  EXPECT_EQ(one.tokens.kind, engine::TokenKind::kFromLastPrompt);
  EXPECT_EQ(one.add.coefficient, 0);  // an explicit zero is a zero
  EXPECT_THAT(*one.add.rows, ElementsAre(1, 2, 1, 2));
}

TEST_F(RequestCodecTest, ANamedVectorGivesEachLayerItsRowOrOneRowToAll) {
  auto result =
      Interventions({R"(layers { list { layers: 3 layers: 1 } } add { vector: "vectors/v" })"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->front().layers, ElementsAre(1, 3));
  EXPECT_THAT(*result->front().add.rows, ElementsAre(10, 11, 30, 31));
  EXPECT_EQ(result->front().add.coefficient, 1);
  EXPECT_EQ(used_["vectors/v"], "d");
  result = Interventions({R"(layers { all: true } add { vector: "vectors/v" source_layer: 3 })"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(*result->front().add.rows, ElementsAre(30, 31, 30, 31, 30, 31, 30, 31));
}

TEST_F(RequestCodecTest, BadInterventionsNameTheirFieldAndTheRange) {
  const std::string add = std::string("add { ") + kPair + "}";
  ExpectRefused(add, "interventions[0].layers", "0 to 3");
  ExpectRefused("layers { list { layers: 1 layers: 4 } }" + add,
                "interventions[0].layers.list.layers[1]", "0 to 3");
  ExpectRefused("layers { list { layers: -1 } }" + add, "interventions[0].layers.list.layers[0]",
                "0 to 3");
  ExpectRefused("layers { list { layers: 1 layers: 1 } }" + add,
                "interventions[0].layers.list.layers[1]", "twice");
  ExpectRefused("layers { list { } }" + add, "interventions[0].layers.list.layers", "at least one");
  ExpectRefused("layers { range { first: 2 last: 1 } }" + add, "interventions[0].layers.range.last",
                "2 to 3");
  ExpectRefused("layers { range { first: 0 last: 2147483647 } }" + add,
                "interventions[0].layers.range.last", "0 to 3");
  ExpectRefused("layers { all: false }" + add, "interventions[0].layers.all", "true");
  ExpectRefused("site: SITE_LOGITS layers { all: true }" + add, "interventions[0].layers",
                "no layers");
  ExpectRefused("layers { all: true }", "interventions[0]", "operation");
  ExpectRefused("layers { all: true } add { }", "interventions[0].add", "vector or a tensor");
  ExpectRefused("site: SITE_MLP_NEURONS layers { all: true }" + add,
                "interventions[0].add.tensor.shape", "[3]");
  ExpectRefused(std::string("layers { all: true } add { source_layer: 1 ") + kPair + "}",
                "interventions[0].add.source_layer", "named vector");
  ExpectRefused(R"(layers { all: true } add { vector: "vectors/v" })",
                "interventions[0].add.vector", "layer 0");
  ExpectRefused("layers { all: true } tokens { kind: TOKEN_KIND_ALL positions: 1 }" + add,
                "interventions[0].tokens.positions", "TOKEN_KIND_POSITIONS");
  ExpectRefused("site: 77 layers { all: true }" + add, "interventions[0].site", "SITE_");
}

TEST_F(RequestCodecTest, WhatIsNotServedIsNamed) {
  for (const std::string& operation :
       {"project_out", "clamp", "scale_neurons", "ablate_neurons", "replace"}) {
    const auto result = Interventions({"layers { all: true } " + operation + " { }"});
    EXPECT_EQ(result.status().code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(std::string(result.status().message()), HasSubstr("interventions[0]." + operation));
  }
  EXPECT_EQ(
      Interventions({std::string("preserve_norm: true layers { all: true } add { ") + kPair + "}"})
          .status()
          .code(),
      absl::StatusCode::kUnimplemented);
}

TEST_F(RequestCodecTest, AnotherTenantsVectorDoesNotExist) {
  EXPECT_EQ(Interventions({R"(layers { all: true } add { vector: "vectors/w" })"}).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(RequestCodecTest, TapsReadEverythingUnlessTold) {
  google::protobuf::RepeatedPtrField<v1::Tap> protos;
  protos.Add();
  *protos.Add() = Parse<v1::Tap>("site: SITE_EMBEDDING reduction: REDUCTION_MEAN");
  const auto taps = TapsFromProto(protos, model_);
  ASSERT_TRUE(taps.ok()) << taps.status();
  EXPECT_THAT((*taps)[0].layers, ElementsAre(0, 1, 2, 3));
  EXPECT_EQ((*taps)[0].tokens.kind, engine::TokenKind::kAll);
  EXPECT_EQ((*taps)[0].reduction, engine::Reduction::kNone);
  EXPECT_THAT((*taps)[1].layers, SizeIs(0));
  EXPECT_EQ((*taps)[1].reduction, engine::Reduction::kMean);
}

TEST_F(RequestCodecTest, TokenIdsAreCheckedAgainstTheVocabulary) {
  const auto bad = PromptFromProto("prompt", Parse<v1::Prompt>("token_ids { ids: 9 ids: 10 }"),
                                   model_, {.now = absl::UnixEpoch()});
  EXPECT_EQ(DetailsOf(bad.status()).field, "prompt.token_ids.ids[1]");
  EXPECT_THAT(std::string(bad.status().message()), HasSubstr("0 to 9"));
  EXPECT_EQ(
      DetailsOf(PromptFromProto("prompt", {}, model_, {.now = absl::UnixEpoch()}).status()).field,
      "prompt");
  EXPECT_EQ(
      DetailsOf(
          ResponseFromProto("r", Parse<v1::Response>("token_ids { ids: -1 }"), model_).status())
          .field,
      "r.token_ids.ids[0]");
}

TEST_F(RequestCodecTest, SamplingTakesDefaultsOnlyForWhatIsNotGiven) {
  engine::Sampling sampling = SamplingFromProto({}, std::nullopt, /*room=*/1000);
  EXPECT_EQ(sampling.max_tokens, 256);
  EXPECT_EQ(sampling.temperature, 1);
  EXPECT_EQ(sampling.top_p, 1);
  EXPECT_EQ(sampling.repetition_penalty, 1);
  EXPECT_EQ(sampling.top_logprobs, -1);
  EXPECT_EQ(SamplingFromProto({}, std::nullopt, /*room=*/7).max_tokens, 7);
  sampling = SamplingFromProto(
      Parse<v1::SamplingParams>("max_tokens: 0 temperature: 0 top_p: 0 repetition_penalty: 0 "
                                "seed: 0"),
      0, /*room=*/1000);
  EXPECT_EQ(sampling.max_tokens, 0);  // explicit, so the engine refuses it
  EXPECT_EQ(sampling.temperature, 0);
  EXPECT_EQ(sampling.top_p, 0);
  EXPECT_EQ(sampling.repetition_penalty, 0);
  EXPECT_EQ(sampling.seed, 0u);
  EXPECT_EQ(sampling.top_logprobs, 0);
}

TEST_F(RequestCodecTest, CompletionsHaveSeedsOfTheirOwnAndTheFirstHasTheRequests) {
  std::set<uint64_t> seeds;
  for (int i = 0; i < 64; ++i) seeds.insert(SeedOfCompletion(7, i));
  EXPECT_THAT(seeds, SizeIs(64));
  EXPECT_EQ(SeedOfCompletion(7, 0), 7u);
}

TEST_F(RequestCodecTest, NamesAreCollectionAndId) {
  EXPECT_EQ(*IdOfName("f", "models", "models/a.b-c"), "a.b-c");
  for (const char* bad :
       {"", "models", "models/", "vectors/a", "models/../x", "models/a/b", "modelsx/a"}) {
    const auto id = IdOfName("f", "models", bad);
    EXPECT_EQ(id.status().code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_EQ(DetailsOf(id.status()).field, "f") << bad;
  }
}

}  // namespace
}  // namespace valuescope::rpc
