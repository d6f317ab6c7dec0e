#include "studies/compare_vectors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "tests/studies/fake_engine.h"

namespace valuescope::studies {
namespace {

using testing::ElementsAre;

constexpr char kDigest[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

// Of layers 3 and 5.
StoredVector OneVector(std::vector<float> rows) {
  StoredVector vector;
  vector.record.set_model("models/tiny");
  vector.record.set_model_digest(kDigest);
  vector.record.set_site(v1::SITE_RESIDUAL_POST);
  vector.record.set_width(3);
  vector.record.add_layers(3);
  vector.record.add_layers(5);
  vector.rows = std::move(rows);
  return vector;
}

void SetHalves(StoredVector& vector, int layer, double r) {
  v1::VectorStatistics& row = *vector.record.add_statistics();
  row.set_layer(layer);
  row.set_split_half_cosine(r);
  row.set_reliability(2 * r / (1 + r));
}

std::string PieceOf(int32_t id) { return absl::StrCat("piece ", id); }

TEST(CompareVectorsTest, EveryPairComesLayerByLayerWithWhatItsStatisticsAllow) {
  StoredVector a = OneVector({1, 0, 0, 0, 0, 0}), b = OneVector({3, 4, 0, 1, 0, 0});
  const StoredVector c = OneVector({0, -2, 0, 2, 0, 0});
  SetHalves(a, 3, 0.6);
  SetHalves(b, 3, 1.0 / 3);
  const auto cosines = CompareVectors({{"vectors/a", &a}, {"vectors/b", &b}, {"vectors/c", &c}},
                                      {3, 5}, Cancellation());
  ASSERT_TRUE(cosines.ok()) << cosines.status();
  std::vector<std::string> order;
  for (const v1::VectorCosine& one : *cosines) {
    order.push_back(absl::StrCat(one.first(), " ", one.second(), " ", one.layer()));
  }
  EXPECT_THAT(order, ElementsAre("vectors/a vectors/b 3", "vectors/a vectors/b 5",
                                 "vectors/a vectors/c 3", "vectors/a vectors/c 5",
                                 "vectors/b vectors/c 3", "vectors/b vectors/c 5"));
  const v1::VectorCosine& known = (*cosines)[0];
  EXPECT_DOUBLE_EQ(known.cosine(), 0.6);
  EXPECT_NEAR(known.disattenuated_cosine(), 0.6 / std::sqrt(0.75 * 0.5), 1e-12);
  EXPECT_NEAR(known.noise_floor(), 0.8, 1e-12);
  const v1::VectorCosine& of_zero_row = (*cosines)[1];
  EXPECT_FALSE(of_zero_row.has_cosine());
  EXPECT_FALSE(of_zero_row.has_disattenuated_cosine());
  EXPECT_FALSE(of_zero_row.has_noise_floor());
  EXPECT_FALSE((*cosines)[2].has_disattenuated_cosine());  // nothing is known of c
  EXPECT_NEAR((*cosines)[4].cosine(), -0.8, 1e-12);
}

TEST(CompareVectorsTest, OneVectorHasNoPairAndOneWithoutLayersOneRow) {
  StoredVector embedding;
  embedding.record.set_model_digest(kDigest);
  embedding.record.set_site(v1::SITE_EMBEDDING);
  embedding.record.set_width(3);
  embedding.rows = {0, 0, 2};
  const auto none = CompareVectors({{"vectors/a", &embedding}}, {0}, Cancellation());
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_TRUE(none->empty());
  const auto itself =
      CompareVectors({{"vectors/a", &embedding}, {"vectors/a", &embedding}}, {0}, Cancellation());
  ASSERT_TRUE(itself.ok()) << itself.status();
  EXPECT_DOUBLE_EQ(itself->front().cosine(), 1);
}

TEST(CompareVectorsTest, VectorsThatLiveElsewhereAreRefusedByName) {
  const StoredVector a = OneVector({1, 0, 0, 0, 0, 0});
  StoredVector foreign = a, elsewhere = a;
  foreign.record.set_model_digest(std::string(64, 'b'));
  elsewhere.record.set_site(v1::SITE_MLP_OUTPUT);
  const auto with = [&](const StoredVector& other) {
    return CompareVectors({{"vectors/a", &a}, {"vectors/b", &other}}, {3}, Cancellation()).status();
  };
  EXPECT_EQ(DetailsOf(with(foreign)).reason, "WRONG_MODEL");
  EXPECT_EQ(DetailsOf(with(elsewhere)).field, "vectors[1]");
  EXPECT_EQ(DetailsOf(with(elsewhere)).reason, "WRONG_SITE");
}

// Token t's row of the unembedding is (t, -t, 1), t = 0 .. 99.
TEST(TokensOfVectorsTest, AreThoseAtEitherEndOfTheUnembedding) {
  const FakeEngine engine;
  const StoredVector a = OneVector({2, 0, 0, 0, 0, 5}), b = OneVector({0, 1, 0, 1, 1, 1});
  const auto tokens = TokensOfVectors({{"vectors/a", &a}, {"vectors/b", &b}}, {3, 5}, 2, engine,
                                      PieceOf, Cancellation());
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  ASSERT_EQ(tokens->size(), 4u);
  const v1::VectorTokens& rising = (*tokens)[0];
  EXPECT_EQ(rising.vector(), "vectors/a");
  EXPECT_EQ(rising.layer(), 3);
  ASSERT_EQ(rising.top_size(), 2);
  EXPECT_EQ(rising.top(0).token_id(), 99);
  EXPECT_EQ(rising.top(0).piece(), "piece 99");
  EXPECT_DOUBLE_EQ(rising.top(0).score(), 198);
  EXPECT_EQ(rising.bottom(0).token_id(), 0);
  EXPECT_EQ((*tokens)[1].layer(), 5);
  EXPECT_EQ((*tokens)[1].top(1).token_id(), 1);  // all have 5: by their ids
  EXPECT_EQ((*tokens)[2].vector(), "vectors/b");
  EXPECT_EQ((*tokens)[2].bottom(0).token_id(), 99);
}

TEST(TokensOfVectorsTest, ARowOfZerosSpeaksForNone) {
  const FakeEngine engine;
  const StoredVector a = OneVector({0, -0.0f, 0, 0, 0, 5});
  const auto tokens =
      TokensOfVectors({{"vectors/a", &a}}, {3, 5}, 2, engine, PieceOf, Cancellation());
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  ASSERT_EQ(tokens->size(), 2u);
  EXPECT_EQ((*tokens)[0].layer(), 3);
  EXPECT_EQ((*tokens)[0].top_size(), 0);
  EXPECT_EQ((*tokens)[0].bottom_size(), 0);
  EXPECT_EQ((*tokens)[1].top_size(), 2);
  EXPECT_EQ((*tokens)[1].bottom_size(), 2);
}

TEST(TokensOfVectorsTest, EndWhenTheyAreCancelled) {
  FakeEngine engine;
  int parts = 0;
  engine.before_unembedding = [&](int64_t) { ++parts; };
  const StoredVector a = OneVector({2, 0, 0, 0, 0, 5});
  Cancellation cancellation;
  cancellation.Cancel();
  const auto tokens = TokensOfVectors({{"vectors/a", &a}}, {3}, 2, engine, PieceOf, cancellation);
  EXPECT_EQ(tokens.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(parts, 0);
}

}  // namespace
}  // namespace valuescope::studies
