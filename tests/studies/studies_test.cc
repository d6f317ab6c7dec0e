#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "store/directory_blob_store.h"
#include "studies/attribute_neurons.h"
#include "studies/classify_neurons.h"
#include "studies/decompose_vectors.h"
#include "studies/extract_vectors.h"
#include "studies/labelled_responses.h"
#include "studies/stored_vector.h"
#include "studies/tensor_file.h"
#include "tests/store/temporary_folder.h"
#include "tests/studies/fake_engine.h"

namespace valuescope::studies {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

constexpr char kDigestA[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

LabelledResponse Response(std::vector<int32_t> ids, bool expresses, std::string query = "") {
  return {.prompt = {1},
          .response = std::move(ids),
          .expresses = expresses,
          .query_id = std::move(query)};
}

ResponseSet Set(std::vector<LabelledResponse> responses) {
  return Trim(std::move(responses), {.end_of_turn = {}, .include_end_of_turn = false});
}

// Of both layers.
absl::StatusOr<ExtractedVector> Extracted(FakeEngine& engine, const ResponseSet& set,
                                          bool token_norms = true,
                                          const ExtractionOptions& options = {}) {
  const ResponseMeansPlan plan{.tenant = "lab",
                               .layers = {0, 1},
                               .tokens = TokensOf(options.pooling),
                               .token_norms = token_norms};
  int64_t cached = 0;
  VS_ASSIGN_OR_RETURN(KeptMeans means,
                      KeptMeans::Begin(engine, static_cast<int64_t>(set.responses.size()),
                                       ShapeOf(plan, engine.architecture())));
  VS_RETURN_IF_ERROR(AddMeans(engine, set.responses, plan, Cancellation(), means, cached));
  return ExtractVector(engine, set, AllOf(set), means, plan.layers, options, {});
}

StoredVector VectorOf(std::vector<float> rows) {
  StoredVector vector;
  vector.record.set_model("models/tiny");
  vector.record.set_model_digest(kDigestA);
  vector.record.set_site(v1::SITE_RESIDUAL_POST);
  vector.record.set_width(3);
  vector.record.add_layers(0);
  vector.record.add_layers(1);
  vector.rows = std::move(rows);
  return vector;
}

TEST(LabelledResponsesTest, EndOfTurnGoesAndWhatIsEmptyIsCounted) {
  const std::vector<int32_t> eos = {2, 3};
  const ResponseSet set = Trim({Response({5, 2, 6, 3, 2}, true), Response({2, 3}, true),
                                Response({}, false), Response({7}, false)},
                               {.end_of_turn = eos, .include_end_of_turn = false});
  ASSERT_EQ(set.responses.size(), 2u);
  EXPECT_THAT(set.responses[0].response, ElementsAre(5, 2, 6));
  EXPECT_EQ(set.num_dropped, 2);
  EXPECT_EQ(set.num_expressing, 1);
  EXPECT_EQ(set.num_non_expressing, 1);
  EXPECT_EQ(set.num_tokens, 6);
}

TEST(LabelledResponsesTest, EndOfTurnStaysWhereAskedFor) {
  const std::vector<int32_t> eos = {2};
  const ResponseSet set =
      Trim({Response({5, 2}, true)}, {.end_of_turn = eos, .include_end_of_turn = true});
  EXPECT_THAT(set.responses[0].response, ElementsAre(5, 2));
}

TEST(LabelledResponsesTest, TokensThatTheModelCannotTakeAreNamed) {
  const FakeEngine engine;
  const auto field = [&engine](LabelledResponse response) {
    const std::vector<LabelledResponse> list = {Response({1}, true), std::move(response)};
    return DetailsOf(CheckTokens(list, engine.architecture())).field;
  };
  EXPECT_EQ(field(Response({1, 100}, true)), "[1].response.token_ids.ids[1]");
  EXPECT_EQ(field({.prompt = {-1}, .response = {1}}), "[1].prompt.token_ids.ids[0]");
  EXPECT_EQ(field({.prompt = {}, .response = {1}}), "[1].prompt");
  EXPECT_EQ(field(Response(std::vector<int32_t>(64, 1), true)), "[1].prompt");
  EXPECT_EQ(field(Response(std::vector<int32_t>(63, 1), true)), "");
}

TEST(LabelledResponsesTest, StoredSetsComeBackAndKeepWhichResponsesShareAQuery) {
  ResponseSet set =
      Set({Response({4, 5}, true, "b"), Response({6}, false), Response({7}, false, "b")});
  set.num_dropped = 3;
  const std::string bytes = EncodeResponseSet(set);
  const auto back = DecodeResponseSet(bytes);
  ASSERT_TRUE(back.ok()) << back.status();
  ASSERT_EQ(back->responses.size(), 3u);
  EXPECT_THAT(back->responses[0].response, ElementsAre(4, 5));
  EXPECT_EQ(back->responses[0].query_id, back->responses[2].query_id);
  EXPECT_NE(back->responses[0].query_id, back->responses[1].query_id);
  EXPECT_EQ(back->num_dropped, 3);
  EXPECT_EQ(back->num_expressing, 1);
  EXPECT_EQ(EncodeResponseSet(*back), bytes);
}

TEST(LabelledResponsesTest, TheDigestIsOfWhatAStudyReads) {
  const auto digest = [](std::vector<LabelledResponse> responses) {
    return DigestOf(Set(std::move(responses)));
  };
  const std::string first = digest({Response({4, 5}, true, "b"), Response({6}, false)});
  // Names of queries say nothing.
  EXPECT_EQ(digest({Response({4, 5}, true, "c"), Response({6}, false)}), first);
  std::set<std::string> digests = {first};
  for (const std::vector<LabelledResponse>& other : std::vector<std::vector<LabelledResponse>>{
           {Response({4, 5}, true, "b"), Response({6}, false, "b")},
           {Response({4, 5}, false, "b"), Response({6}, true)},
           {Response({4}, true, "b"), Response({5, 6}, false)},
           {Response({6}, false), Response({4, 5}, true, "b")},
           {{.prompt = {1, 4}, .response = {5}, .expresses = true}, Response({6}, false)}}) {
    EXPECT_TRUE(digests.insert(digest(other)).second);
  }
}

TEST(LabelledResponsesTest, EveryTruncationOfAStoredSetIsDataLoss) {
  const std::string bytes = EncodeResponseSet(Set({Response({4, 5}, true), Response({6}, false)}));
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_EQ(DecodeResponseSet(bytes.substr(0, size)).status().code(), absl::StatusCode::kDataLoss)
        << size;
  }
}

// mean ids: expressing (10 + 20) / 2 = 15, others (4 + 6) / 2 = 5; element d of the difference is
// 10 (d + 1), whatever the layer adds.
TEST(ExtractVectorTest, EqualsTheDifferenceInMeansByHand) {
  FakeEngine engine;
  const ResponseSet set = Set({Response({8, 12}, true), Response({4}, false), Response({20}, true),
                               Response({5, 6, 7}, false)});
  const auto extracted = Extracted(engine, set);
  ASSERT_TRUE(extracted.ok()) << extracted.status();
  EXPECT_THAT(extracted->rows, ElementsAre(10, 20, 30, 10, 20, 30));
  ASSERT_EQ(extracted->statistics.size(), 2u);
  EXPECT_EQ(extracted->statistics[1].layer(), 1);
  EXPECT_EQ(extracted->statistics[0].num_expressing(), 2);
  EXPECT_DOUBLE_EQ(extracted->statistics[0].norm(), std::sqrt(1400.0));
  // Of the 7 tokens, 8 + 12 + 4 + 20 + 5 + 6 + 7 in all, and of layer 1 one more each.
  EXPECT_FLOAT_EQ(extracted->statistics[0].relative_norm(), std::sqrt(1400.0) / (62.0 / 7));
  EXPECT_FLOAT_EQ(extracted->statistics[1].relative_norm(), std::sqrt(1400.0) / (69.0 / 7));
}

// Of layer 0, whose first element of a token is its id and whose norm is said to be that too.
TEST(ExtractVectorTest, PoolingChoosesTheTokens) {
  FakeEngine engine;
  ResponseSet set = Set({Response({8, 12, 40}, true), Response({4}, false), Response({20}, true),
                         Response({5, 7}, false)});
  set.responses[0].prompt = {3, 9};
  struct Case {
    v1::Pooling pooling;
    double difference, mean_norm;
  };
  for (const Case& wanted :
       {Case{v1::POOLING_RESPONSE_MEAN, (20.0 + 20) / 2 - (4 + 6) / 2.0, 96.0 / 7},
        Case{v1::POOLING_TOKEN_MEAN, 80.0 / 4 - 16.0 / 3, 96.0 / 7},
        // Of one token the norm is that of its row, the id times that of (1, 2, 3).
        Case{v1::POOLING_LAST_TOKEN, (40.0 + 20) / 2 - (4 + 7) / 2.0, 71.0 / 4 * std::sqrt(14.0)},
        Case{v1::POOLING_LAST_PROMPT_TOKEN, (9.0 + 1) / 2 - 1, 12.0 / 4 * std::sqrt(14.0)}}) {
    const bool all_tokens = TokensOf(wanted.pooling) == engine::TokenKind::kResponse;
    const auto extracted =
        Extracted(engine, set, /*token_norms=*/all_tokens, {.pooling = wanted.pooling});
    ASSERT_TRUE(extracted.ok()) << extracted.status();
    EXPECT_FLOAT_EQ(extracted->rows[0], wanted.difference) << wanted.pooling;
    const v1::VectorStatistics& statistics = extracted->statistics[0];
    EXPECT_FLOAT_EQ(statistics.relative_norm(), statistics.norm() / wanted.mean_norm)
        << wanted.pooling;
  }
}

// Ids of a pair differ by 4 and 8 times (1, 2, 3); nothing else does.
TEST(ExtractVectorTest, PcaIsOfPairsAndTellsWhatItLeftOut) {
  FakeEngine engine;
  const ResponseSet set =
      Set({Response({8}, true, "a"), Response({4}, false, "a"), Response({20}, true, "b"),
           Response({12}, false, "b"), Response({50}, true, "c"), Response({51}, true)});
  const auto extracted = Extracted(engine, set, /*token_norms=*/true,
                                   {.method = v1::EXTRACTION_METHOD_PCA, .intervals = false});
  ASSERT_TRUE(extracted.ok()) << extracted.status();
  const v1::VectorStatistics& statistics = extracted->statistics[0];
  for (int d = 0; d < 3; ++d) EXPECT_FLOAT_EQ(extracted->rows[d], (d + 1) / std::sqrt(14.0));
  EXPECT_EQ(statistics.num_pairs(), 2);
  EXPECT_FLOAT_EQ(statistics.explained_variance(), 1);
  EXPECT_FALSE(statistics.has_intercept());
  EXPECT_FLOAT_EQ(statistics.split_half_cosine(), 1);
  EXPECT_THAT(extracted->warnings, Contains(HasSubstr("2 of 4 queries lack responses")));
  std::vector<std::pair<std::string, v1::StatisticAbsence>> missing;
  for (const v1::MissingStatistic& one : statistics.missing()) {
    missing.emplace_back(one.field(), one.absence());
  }
  EXPECT_THAT(missing, ElementsAre(Pair("relative_norm", v1::STATISTIC_ABSENCE_METHOD),
                                   Pair("debiased_squared_norm", v1::STATISTIC_ABSENCE_METHOD),
                                   Pair("clustered_squared_norm", v1::STATISTIC_ABSENCE_METHOD)));
}

TEST(ExtractVectorTest, AProbeTellsItsInterceptAndThatItHasNoLength) {
  FakeEngine engine;
  const ResponseSet set = Set({Response({8}, true, "a"), Response({4}, false, "a"),
                               Response({20}, true, "b"), Response({12}, false, "b")});
  const auto extracted =
      Extracted(engine, set, /*token_norms=*/true, {.method = v1::EXTRACTION_METHOD_LINEAR_PROBE});
  ASSERT_TRUE(extracted.ok()) << extracted.status();
  const v1::VectorStatistics& statistics = extracted->statistics[0];
  EXPECT_GT(extracted->rows[0], 0);
  EXPECT_FLOAT_EQ(extracted->rows[1], 2 * extracted->rows[0]);
  // Expressing at 8 and 20, others at 4 and 12: the middle is at 44 / 4 or near it.
  EXPECT_NEAR(-statistics.intercept() / (14 * extracted->rows[0]), 11, 4);
  EXPECT_FALSE(statistics.has_num_pairs() || statistics.has_explained_variance() ||
               statistics.has_norm_interval() || statistics.has_within_noise());
  EXPECT_THAT(extracted->warnings, testing::Each(testing::Not(HasSubstr("method"))));
}

TEST(ExtractVectorTest, WithoutTokenNormsTheNormIsRelativeToMeansAndSaysSo) {
  FakeEngine engine;
  const ResponseSet set = Set({Response({8, 12}, true), Response({4}, false), Response({20}, true),
                               Response({5, 6, 7}, false)});
  const auto extracted = Extracted(engine, set, /*token_norms=*/false);
  ASSERT_TRUE(extracted.ok()) << extracted.status();
  // Means of ids 10, 4, 20 and 6, and the norm of (1, 2, 3).
  EXPECT_DOUBLE_EQ(extracted->statistics[0].relative_norm(), 1);
  EXPECT_THAT(extracted->warnings, Contains(HasSubstr("response means")));
}

TEST(ExtractVectorTest, WhatIsMissingIsNamedInOrderOfItsFields) {
  FakeEngine engine;
  const auto extracted = Extracted(engine, Set({Response({8}, true, "a"), Response({4}, false, "a"),
                                                Response({5}, false, "b")}));
  ASSERT_TRUE(extracted.ok()) << extracted.status();
  std::vector<std::pair<std::string, v1::StatisticAbsence>> missing;
  for (const v1::MissingStatistic& one : extracted->statistics[1].missing()) {
    missing.emplace_back(one.field(), one.absence());
  }
  EXPECT_THAT(missing,
              ElementsAre(Pair("split_half_cosine", v1::STATISTIC_ABSENCE_ONE_QUERY),
                          Pair("reliability", v1::STATISTIC_ABSENCE_ONE_QUERY),
                          Pair("norm_interval", v1::STATISTIC_ABSENCE_ONE_QUERY),
                          Pair("auroc", v1::STATISTIC_ABSENCE_ONE_QUERY),
                          Pair("debiased_squared_norm", v1::STATISTIC_ABSENCE_ONE_RESPONSE),
                          Pair("clustered_squared_norm", v1::STATISTIC_ABSENCE_ONE_QUERY),
                          Pair("squared_norm_interval", v1::STATISTIC_ABSENCE_ONE_QUERY)));
  const auto* type = v1::VectorStatistics::descriptor();
  for (const v1::MissingStatistic& one : extracted->statistics[1].missing()) {
    const auto* field = type->FindFieldByName(one.field());
    EXPECT_FALSE(
        extracted->statistics[1].GetReflection()->HasField(extracted->statistics[1], field));
  }
  EXPECT_THAT(extracted->warnings, Contains(HasSubstr("2 of 2 rows: all responses of a label")));
}

TEST(ExtractVectorTest, AnIntervalThatReachesZeroIsWithinNoise) {
  FakeEngine engine;
  std::vector<LabelledResponse> apart, alike;
  for (int i = 0; i < 12; ++i) {
    apart.push_back(Response({i % 2 == 0 ? 60 + i : i}, i % 2 == 0));
    alike.push_back(Response({40 + 7 * i % 12}, i % 2 == 0));
  }
  const auto effect = Extracted(engine, Set(apart)), noise = Extracted(engine, Set(alike));
  ASSERT_TRUE(effect.ok() && noise.ok());
  EXPECT_FALSE(effect->statistics[0].within_noise());
  EXPECT_GT(effect->statistics[0].norm_interval().lower(), 0);
  EXPECT_TRUE(noise->statistics[0].within_noise());
  EXPECT_EQ(noise->statistics[0].norm_interval().lower(), 0);
  EXPECT_THAT(noise->warnings, Contains(HasSubstr("within_noise")));
}

TEST(ExtractVectorTest, SwappingLabelsNegates) {
  FakeEngine engine;
  std::vector<LabelledResponse> responses = {Response({8, 12}, true), Response({4}, false),
                                             Response({20}, true), Response({9}, false)};
  const auto straight = Extracted(engine, Set(responses));
  for (LabelledResponse& response : responses) response.expresses = !response.expresses;
  const auto swapped = Extracted(engine, Set(responses));
  ASSERT_TRUE(straight.ok() && swapped.ok());
  ASSERT_NE(straight->rows[0], 0);
  for (size_t i = 0; i < straight->rows.size(); ++i) {
    EXPECT_EQ(straight->rows[i], -swapped->rows[i]);
  }
}

TEST(ExtractVectorTest, NeedsBothLabels) {
  FakeEngine engine;
  const auto extracted = Extracted(engine, Set({Response({8}, true)}));
  EXPECT_EQ(DetailsOf(extracted.status()).reason, "EMPTY_LABEL");
}

constexpr MeansShape kTwoRowsOfThree = {.rows = 2, .width = 3, .token_norms = true};

// All of a response, rows and norms.
std::vector<float> NumbersOf(const KeptMeans& means, int64_t response) {
  std::vector<float> numbers(static_cast<size_t>(means.shape().rows * means.shape().width));
  for (int64_t row = 0; row < means.shape().rows; ++row) {
    const auto part = std::span<float>(numbers).subspan(
        static_cast<size_t>(row * means.shape().width), static_cast<size_t>(means.shape().width));
    EXPECT_EQ(means.Read(response, row, /*begin=*/0, part), absl::OkStatus());
  }
  const std::span<const float> norms = means.token_norms(response);
  numbers.insert(numbers.end(), norms.begin(), norms.end());
  return numbers;
}

TEST(KeptMeansTest, ComeBackAndOtherBytesAreDataLoss) {
  FakeEngine engine;
  KeptMeans means = *KeptMeans::Begin(engine, /*responses=*/3, kTwoRowsOfThree);
  means.Add(std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8});
  means.Add(std::vector<float>{11, 12, 13, 14, 15, -0.0f, 17, 18});
  const std::string bytes = means.Serialize();
  const auto parsed = [&](absl::string_view from, int64_t done, const MeansShape& shape) {
    return KeptMeans::Parse(engine, from, done, /*responses=*/3, shape);
  };
  const auto back = parsed(bytes, 2, kTwoRowsOfThree);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->Serialize(), bytes);
  EXPECT_THAT(NumbersOf(*back, 1), ElementsAre(11, 12, 13, 14, 15, 0, 17, 18));
  EXPECT_EQ(parsed(bytes, 1, kTwoRowsOfThree).status().code(), absl::StatusCode::kDataLoss);
  const MeansShape wider = {.rows = 2, .width = 4, .token_norms = true};
  EXPECT_EQ(parsed(bytes, 2, wider).status().code(), absl::StatusCode::kDataLoss);
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_EQ(parsed(bytes.substr(0, size), 2, kTwoRowsOfThree).status().code(),
              absl::StatusCode::kDataLoss);
  }
}

TEST(SummedMeansTest, ComeBackAndOtherBytesAreDataLoss) {
  FakeEngine engine;
  SummedMeans sums = *SummedMeans::Begin(engine, kTwoRowsOfThree, /*weigh_by_tokens=*/false);
  const SummedMeans::Place place = {.half = 1, .label = 1, .weight = 1, .tokens = 5};
  ASSERT_EQ(sums.Add(place, std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8}), absl::OkStatus());
  EXPECT_EQ(sums.layers()[1].token_norms, 5 * 8);
  const std::string bytes = sums.Serialize();
  EXPECT_EQ(bytes.size(), SummedMeans::Bytes(kTwoRowsOfThree, /*weigh_by_tokens=*/false));
  const auto parsed = [&](absl::string_view from, int64_t most, const MeansShape& shape) {
    return SummedMeans::Parse(engine, from, most, shape, /*weigh_by_tokens=*/false);
  };
  for (const int64_t most : {1, 2}) {
    const auto back = parsed(bytes, most, kTwoRowsOfThree);
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(back->count(), 1);
    EXPECT_EQ(back->Serialize(), bytes);
  }
  EXPECT_EQ(parsed(bytes, 0, kTwoRowsOfThree).status().code(), absl::StatusCode::kDataLoss);
  const MeansShape wider = {.rows = 2, .width = 4, .token_norms = true};
  EXPECT_EQ(parsed(bytes, 1, wider).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(parsed("x" + bytes.substr(1), 1, kTwoRowsOfThree).status().code(),
            absl::StatusCode::kDataLoss);
  engine.most_kept = static_cast<int64_t>(bytes.size()) - 1;
  EXPECT_EQ(parsed(bytes, 1, kTwoRowsOfThree).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(KeptMeansTest, AsideTheyReadAsInMemoryAndTakeNoneButForNorms) {
  TemporaryFolder folder;
  const auto blobs = *store::OpenDirectoryBlobStore(folder / "blobs");
  for (const bool token_norms : {true, false}) {
    FakeEngine engine;
    const MeansShape shape = {.rows = 2, .width = 3, .token_norms = token_norms};
    KeptMeans in_memory = *KeptMeans::Begin(engine, /*responses=*/5, shape);
    engine.most_kept = KeptMeans::BytesInMemory(/*responses=*/5, shape);
    EXPECT_EQ(engine.most_kept, token_norms ? 5 * 2 * 4 : 0);
    KeptMeans aside = *KeptMeans::BeginAside(engine, *blobs, /*responses=*/5, shape);
    engine.most_kept = INT64_MAX;
    float next = 0;
    for (const int of_shard : {2, 3}) {
      KeptMeans shard = *KeptMeans::Begin(engine, of_shard, shape);
      for (int i = 0; i < of_shard; ++i) {
        std::vector<float> mean(static_cast<size_t>(shape.elements()));
        for (float& number : mean) number = ++next;
        shard.Add(mean);
      }
      ASSERT_EQ(in_memory.Add(shard), absl::OkStatus());
      ASSERT_EQ(aside.Add(shard), absl::OkStatus());
    }
    ASSERT_EQ(aside.count(), 5);
    for (int64_t i = 0; i < 5; ++i) EXPECT_EQ(NumbersOf(aside, i), NumbersOf(in_memory, i));
    std::vector<float> middle(1);
    ASSERT_EQ(aside.Read(/*response=*/4, /*row=*/1, /*begin=*/1, middle), absl::OkStatus());
    EXPECT_EQ(middle[0], NumbersOf(in_memory, 4)[4]);
  }
}

TEST(ExtractVectorTest, WhatAMethodWorksWithIsHeldAndRefusedWhereItNeverFits) {
  FakeEngine engine;
  std::vector<LabelledResponse> responses;
  for (int i = 0; i < 40; ++i) responses.push_back(Response({i}, i % 2 == 0, absl::StrCat(i / 2)));
  const ResponseSet set = Set(std::move(responses));
  for (const v1::ExtractionMethod method :
       {v1::EXTRACTION_METHOD_DIFFERENCE_IN_MEANS, v1::EXTRACTION_METHOD_PCA,
        v1::EXTRACTION_METHOD_LINEAR_PROBE}) {
    const ExtractionOptions options = {.method = method};
    // The means of these few are in memory too, at once or before.
    engine.most_kept =
        std::max<int64_t>(WorkingBytes(set, AllOf(set), /*width=*/3, method), 40 * 2 * 4 * 4);
    EXPECT_TRUE(Extracted(engine, set, /*token_norms=*/true, options).ok()) << method;
    if (engine.most_kept == 40 * 2 * 4 * 4) continue;
    engine.most_kept -= 1;
    EXPECT_EQ(DetailsOf(Extracted(engine, set, /*token_norms=*/true, options).status()).reason,
              "CAPTURES_TOO_LARGE")
        << method;
  }
}

TEST(StoredVectorTest, AnotherModelOrSiteIsRefused) {
  FakeModels models;
  models.Add("tiny", kDigestA);
  models.Add("other", std::string(64, 'b'));
  const StoredVector vector = VectorOf({1, 2, 3, 4, 5, 6});
  const auto usable = [&vector, &models](const char* model, model::Site site) {
    return CheckUsable(vector, **models.Get(model), site, "vector");
  };
  EXPECT_TRUE(usable("tiny", model::Site::kResidualPost).ok());
  EXPECT_EQ(usable("other", model::Site::kResidualPost).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(DetailsOf(usable("tiny", model::Site::kMlpNeurons)).reason, "WRONG_SITE");
}

TEST(StoredVectorTest, BadContentIsNamed) {
  const FakeEngine engine;
  const auto reason = [&engine](StoredVector vector) {
    const ErrorDetails details = DetailsOf(CheckVector(vector, engine.architecture()));
    return details.field + " " + details.reason;
  };
  EXPECT_EQ(reason(VectorOf({1, 2, 3, 4, 5, 6})), " ");
  StoredVector wide = VectorOf({1, 2, 3, 4, 5, 6, 7, 8});
  wide.record.set_width(4);
  EXPECT_EQ(reason(wide), "data WRONG_WIDTH");
  EXPECT_EQ(reason(VectorOf({1, 2, 3, 4, 5, std::numeric_limits<float>::infinity()})),
            "data NOT_FINITE");
  EXPECT_EQ(reason(VectorOf({1, 2, 3})), "data INVALID_FIELD");
  StoredVector outside = VectorOf({1, 2, 3, 4, 5, 6});
  outside.record.set_layers(1, 2);
  EXPECT_EQ(reason(outside), "layers[1] OUT_OF_RANGE");
  outside.record.set_layers(0, 1);
  outside.record.set_layers(1, 1);
  EXPECT_EQ(reason(outside), "layers[1] INVALID_FIELD");
}

// Neuron i of layer l: the means differ by 10 (i + 1), w_i = (i + 1, i l, -1). With v = (1, 0, 0)
// at layer 0 the score is 10 (i + 1) (i + 1); with v = (0, 2, 0) at layer 1 it is 10 (i + 1) 2 i
// / 4 = 5 i (i + 1).
TEST(ScoreNeuronsTest, EqualsTheContributionByHand) {
  FakeEngine engine;
  ActivationSums sums(8);
  const std::vector<LabelledResponse> chunk = {Response({15}, true), Response({5}, false)};
  ASSERT_TRUE(
      AddChunk(engine, chunk, {.tenant = "lab", .layers = {0, 1}}, Cancellation(), sums).ok());
  const std::vector<int> layers = {0, 1};
  const auto columns =
      ScoreNeurons(engine, sums, VectorOf({1, 0, 0, 0, 2, 0}), layers, std::nullopt, {});
  ASSERT_TRUE(columns.ok()) << columns.status();
  EXPECT_THAT((*columns)[0].scores, ElementsAre(10, 40, 90, 160));
  EXPECT_THAT((*columns)[1].scores, ElementsAre(0, 10, 30, 60));
  EXPECT_THAT((*columns)[1].mean_non_expressing, ElementsAre(6, 11, 16, 21));
}

// v = (0, 2, 0) behind block 1: of block 0, w_i has nothing along it; block 1 as in the test
// above.
TEST(ScoreNeuronsTest, ASourceLayerIsWrittenByTheBlocksUpToItAndNoOthers) {
  FakeEngine engine;
  ActivationSums sums(8);
  const std::vector<LabelledResponse> chunk = {Response({15}, true), Response({5}, false)};
  ASSERT_TRUE(
      AddChunk(engine, chunk, {.tenant = "lab", .layers = {0, 1}}, Cancellation(), sums).ok());
  const StoredVector vector = VectorOf({1, 0, 0, 0, 2, 0});
  const auto columns = ScoreNeurons(engine, sums, vector, std::vector<int>{0, 1}, 1, {});
  ASSERT_TRUE(columns.ok()) << columns.status();
  EXPECT_THAT((*columns)[0].scores, ElementsAre(0, 0, 0, 0));
  EXPECT_THAT((*columns)[1].scores, ElementsAre(0, 10, 30, 60));
  const absl::Status later =
      ScoreNeurons(engine, sums, vector, std::vector<int>{0, 1}, 0, {}).status();
  EXPECT_EQ(later.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DetailsOf(later).field, "layers");
  EXPECT_THAT(later.message(), HasSubstr("names layer 1, allowed are 0 to 0"));
}

TEST(ScoreNeuronsTest, StopsBetweenTwoLayersWhenItIsCancelled) {
  FakeEngine engine;
  ActivationSums sums(8);
  const std::vector<LabelledResponse> chunk = {Response({15}, true), Response({5}, false)};
  ASSERT_TRUE(
      AddChunk(engine, chunk, {.tenant = "lab", .layers = {0, 1}}, Cancellation(), sums).ok());
  Cancellation cancellation;
  std::vector<int> read;
  engine.before_directions = [&](int layer) {
    read.push_back(layer);
    cancellation.Cancel();
  };
  const std::vector<int> layers = {0, 1};
  const auto columns =
      ScoreNeurons(engine, sums, VectorOf({1, 0, 0, 0, 2, 0}), layers, std::nullopt, cancellation);
  EXPECT_EQ(columns.status().code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(read, ElementsAre(0));
}

TEST(ResponseSetTest, ASetThatNoWorkerCouldHoldIsKnownFromItsCounts) {
  ResponseSet set;
  set.num_tokens = 60'000'000;
  EXPECT_TRUE(CheckEncodedSize(set).ok());
  set.num_tokens = 70'000'000;
  EXPECT_EQ(DetailsOf(CheckEncodedSize(set)).reason, "DATA_SET_TOO_LARGE");
  set = Trim({{.prompt = {1, 2}, .response = {3}, .expresses = true}},
             {.end_of_turn = {}, .include_end_of_turn = true});
  const auto bytes = static_cast<int64_t>(EncodeResponseSet(set).size());
  EXPECT_LE(bytes, set.num_tokens * 4 + 4 * 4 + 4096) << "what the check takes it to have";
}

TEST(ScoreNeuronsTest, AMissingRowIsNamed) {
  FakeEngine engine;
  StoredVector vector = VectorOf({1, 2, 3});
  vector.record.mutable_layers()->Resize(1, 0);
  vector.record.set_layers(0, 1);
  const std::vector<int> layers = {0, 1};
  EXPECT_EQ(DetailsOf(CheckRows(vector, layers, std::nullopt)).field, "vector");
  EXPECT_EQ(DetailsOf(CheckRows(vector, layers, 0)).field, "source_layer");
  EXPECT_TRUE(CheckRows(vector, layers, 1).ok());  // which both blocks may have written
}

TEST(ScoreActivationProbabilitiesTest, IsTheDifferenceOfTheMeansOfResponses) {
  ActivationSums sums(4);
  ASSERT_TRUE(sums.Add(true, std::vector<float>{1, .5, 0, .25}).ok());
  ASSERT_TRUE(sums.Add(true, std::vector<float>{0, .5, 0, .75}).ok());
  const std::vector<int> layers = {2, 5};
  EXPECT_EQ(DetailsOf(ScoreActivationProbabilities(sums, layers).status()).reason, "EMPTY_LABEL");
  ASSERT_TRUE(sums.Add(false, std::vector<float>{1, 0, .5, .5}).ok());
  const auto columns = ScoreActivationProbabilities(sums, layers);
  ASSERT_TRUE(columns.ok()) << columns.status();
  EXPECT_EQ((*columns)[1].layer, 5);
  EXPECT_THAT((*columns)[0].scores, ElementsAre(-.5, .5));
  EXPECT_THAT((*columns)[1].scores, ElementsAre(-.5, 0));
  EXPECT_THAT((*columns)[1].mean_expressing, ElementsAre(0, .5));
  EXPECT_THAT((*columns)[1].mean_non_expressing, ElementsAre(.5, .5));
}

TEST(ActivationSumsTest, PartialsComeBackAndDamageIsFound) {
  ActivationSums sums(2);
  ASSERT_TRUE(sums.Add(true, std::vector<float>{1, 2}).ok());
  ASSERT_TRUE(sums.Add(false, std::vector<float>{3, 4}).ok());
  EXPECT_FALSE(sums.Add(true, std::vector<float>{1, std::nanf("")}).ok());
  const std::string bytes = sums.Serialize();
  const auto back = ActivationSums::Parse(bytes, 2);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->Serialize(), bytes);
  EXPECT_THAT(back->Means(true), ElementsAre(1, 2));
  EXPECT_FALSE(ActivationSums::Parse(bytes, 3).ok());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(ActivationSums::Parse(bytes.substr(0, size), 2).ok()) << size;
  }
}

TEST(ClassifyNeuronsTest, LayersWithoutASharedDirectionAreLeftOutOrRefused) {
  FakeEngine engine;
  // Layer 0: collinear. Layer 1: two directions with a positive product.
  const StoredVector intrinsic = VectorOf({1, 0, 0, 1, 0.5, 0});
  const StoredVector prompted = VectorOf({2, 0, 0, 1, -0.5, 0});
  ClassificationPlan plan;
  plan.layers = {0, 1};
  plan.geometry.top_percent = 50;
  const auto result = ClassifyNeurons(engine, intrinsic, prompted, plan, Cancellation());
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->columns.size(), 1u);
  EXPECT_EQ(result->columns[0].layer, 1);
  EXPECT_THAT(result->warnings, ElementsAre(HasSubstr("layer 0")));
  EXPECT_EQ(result->layers[0].num_members(), 2);
  plan.strict = true;
  EXPECT_EQ(
      DetailsOf(ClassifyNeurons(engine, intrinsic, prompted, plan, Cancellation()).status()).reason,
      "NO_SHARED_DIRECTION");
}

// As DecomposeVectors writes an axis that does not exist.
TEST(ClassifyNeuronsTest, ALayerWhoseAxisIsZeroIsLeftOutOrRefusedByItsName) {
  FakeEngine engine;
  const StoredVector shared = VectorOf({1, 0, 0, 1, 0, 0});
  const StoredVector difference = VectorOf({0, 0, 0, 0, 1, 0});
  ClassificationPlan plan;
  plan.source = AxesSource::kAxes;
  plan.layers = {0, 1};
  const auto result = ClassifyNeurons(engine, shared, difference, plan, Cancellation());
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->layers.size(), 1u);
  EXPECT_EQ(result->layers[0].layer(), 1);
  EXPECT_THAT(result->warnings, ElementsAre(HasSubstr("layer 0: `axes.difference`")));
  plan.layers = {0};
  const absl::Status none =
      ClassifyNeurons(engine, shared, difference, plan, Cancellation()).status();
  EXPECT_EQ(DetailsOf(none).reason, "NO_SHARED_DIRECTION");
  EXPECT_THAT(none.message(), HasSubstr("layer 0"));
  plan.layers = {0, 1};
  plan.strict = true;
  const absl::Status strict =
      ClassifyNeurons(engine, shared, difference, plan, Cancellation()).status();
  EXPECT_EQ(DetailsOf(strict).reason, "NO_SHARED_DIRECTION");
  EXPECT_THAT(strict.message(), HasSubstr("layer 0"));
}

// v_int = (3, 0, 0), v_prompt = (3, 4, 0) at layer 0: cosine 3/5, orthogonal parts by hand.
TEST(DecomposePairsTest, SplitsEveryLayerAndComparesValues) {
  const StoredVector intrinsic = VectorOf({3, 0, 0, 1, 0, 0});
  const StoredVector prompted = VectorOf({3, 4, 0, 0, 1, 0});
  const StoredVector other = VectorOf({0, 3, 4, 2, 1, 0});
  DecompositionPlan plan;
  plan.layers = {0, 1};
  const auto result =
      DecomposePairs({{.value = "a", .intrinsic = &intrinsic, .prompted = &prompted},
                      {.value = "b", .intrinsic = &intrinsic, .prompted = &other}},
                     plan, Cancellation());
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->pairs.size(), 2u);
  const PairResult& pair = result->pairs[0];
  EXPECT_DOUBLE_EQ(pair.layers[0].cosine, 0.6);
  EXPECT_NEAR(pair.prompted_orthogonal[0], 0, 1e-6);
  EXPECT_NEAR(pair.prompted_orthogonal[1], 4, 1e-6);
  EXPECT_EQ(pair.shared.size(), 6u);
  EXPECT_DOUBLE_EQ(pair.layers[1].cosine, 0);
  EXPECT_FALSE(pair.warnings.empty());
  EXPECT_EQ(result->mean_deltas.size(), 2u);
  EXPECT_EQ(result->mean_delta.size(), 6u);
  plan.strict = true;
  const auto refused = DecomposePairs(
      {{.value = "a", .intrinsic = &intrinsic, .prompted = &prompted}}, plan, Cancellation());
  EXPECT_EQ(DetailsOf(refused.status()).reason, "NO_SHARED_DIRECTION");
}

// Layer 0: one prompts along x, the other against it. Layer 1: one value's vectors are equal.
TEST(DecomposePairsTest, LayersWithoutAMeanDeltaAreNamed) {
  const StoredVector origin = VectorOf({1, 1, 0, 1, 1, 0});
  const StoredVector up = VectorOf({2, 1, 0, 1, 1, 0});
  const StoredVector down = VectorOf({0, 1, 0, 1, 2, 0});
  const std::vector<DecompositionPair> pairs = {
      {.value = "a", .intrinsic = &origin, .prompted = &up},
      {.value = "b", .intrinsic = &origin, .prompted = &down}};
  DecompositionPlan plan;
  plan.layers = {0};
  const auto result = DecomposePairs(pairs, plan, Cancellation());
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->warnings, ElementsAre(HasSubstr("layer 0: the deltas cancel")));
  plan.layers = {1};
  const auto equal = DecomposePairs(pairs, plan, Cancellation());
  ASSERT_TRUE(equal.ok()) << equal.status();
  EXPECT_THAT(equal->warnings, ElementsAre(HasSubstr("layer 1: the delta of a is 0"),
                                           HasSubstr("layer 1: one delta alone")));
  EXPECT_DOUBLE_EQ(equal->mean_deltas[0].norm, 0.5);
}

// Axes at their angles at layer 0, all alike at layer 1.
TEST(DecomposePairsTest, LayersWithoutACircumplexAreNamed) {
  const std::vector<std::string> values = {"hedonism", "power", "security", "universalism"};
  std::vector<StoredVector> vectors;
  std::vector<DecompositionPair> pairs;
  vectors.reserve(8);
  const float places[4][2] = {{1, 0}, {0, 1}, {-1, 0}, {0, -1}};
  for (size_t i = 0; i < 4; ++i) {
    const float x = places[i][0], y = places[i][1];
    vectors.push_back(VectorOf({x, y, 2, 1, 0, 0}));
    vectors.push_back(VectorOf({2 * x, 2 * y, 4, 2, 0, 0}));
    pairs.push_back(
        {.value = values[i], .intrinsic = &vectors[2 * i], .prompted = &vectors[2 * i + 1]});
  }
  DecompositionPlan plan;
  plan.layers = {0, 1};
  plan.circumplex = {
      .places = *analysis::CircumplexPlaces(values, analysis::CircumplexAngles::kFourDomains),
      .null_samples = 200};
  const auto result = DecomposePairs(pairs, plan, Cancellation());
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_TRUE(result->circumplex.has_value());
  ASSERT_EQ(result->circumplex->layers.size(), 1u);
  const LayerCircumplex& layer = result->circumplex->layers[0];
  EXPECT_EQ(layer.layer, 0);
  EXPECT_NEAR(layer.fit.r_squared, 1, 1e-6);
  EXPECT_DOUBLE_EQ(layer.fit.permutation_p_value, 1.0 / 3);
  EXPECT_EQ(result->circumplex->distinct_permutations, 3);
  EXPECT_GE(layer.null_p_value, 1.0 / 201);
  EXPECT_THAT(result->warnings, Contains(HasSubstr("layer 1: the points of the circumplex")));
}

TEST(DecomposePairsTest, EndsBetweenLayersWhenItIsCancelled) {
  const StoredVector intrinsic = VectorOf({3, 0, 0, 1, 0, 0});
  DecompositionPlan plan;
  plan.layers = {0};
  Cancellation cancellation;
  cancellation.Cancel();
  EXPECT_EQ(DecomposePairs({{.value = "", .intrinsic = &intrinsic, .prompted = &intrinsic}}, plan,
                           cancellation)
                .status()
                .code(),
            absl::StatusCode::kCancelled);
}

TEST(DecomposePairsTest, VectorsOfAnotherModelAreRefused) {
  const StoredVector intrinsic = VectorOf({3, 0, 0, 1, 0, 0});
  StoredVector foreign = VectorOf({3, 4, 0, 0, 1, 0});
  foreign.record.set_model_digest(std::string(64, 'b'));
  DecompositionPlan plan;
  plan.layers = {0};
  EXPECT_EQ(DecomposePairs({{.value = "", .intrinsic = &intrinsic, .prompted = &foreign}}, plan,
                           Cancellation())
                .status()
                .code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(TensorFileTest, EqualTensorsGiveEqualBytesAndTypesAreChecked) {
  const std::vector<double> values = {1, 2, 3};
  const std::vector<NamedTensor> tensors = {Column("x", values)};
  const std::string bytes = WriteTensorFile(tensors);
  EXPECT_EQ(bytes, WriteTensorFile(tensors));
  const auto file = TensorFile::Parse(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(*file->Doubles("x", 3), values);
  EXPECT_FALSE(file->Floats("x").ok());
  EXPECT_FALSE(file->Doubles("x", 2).ok());
  EXPECT_FALSE(file->Doubles("y").ok());
}

}  // namespace
}  // namespace valuescope::studies
