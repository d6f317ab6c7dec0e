// What is computed from stored neuron sets: their members, overlaps of several, and selectivity.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "store/directory_blob_store.h"
#include "studies/compare_neuron_sets.h"
#include "studies/score_selectivity.h"
#include "studies/stored_neuron_set.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::studies {
namespace {

using analysis::NeuronClass;
using testing::DoubleEq;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

// Two layers of scores alone.
std::vector<NeuronColumns> Scored() {
  return {{.layer = 2, .scores = {.5, -3, 1, -.5}}, {.layer = 5, .scores = {0, 2, 2, -1}}};
}

std::vector<NeuronColumns> Classified() {
  return {{.layer = 1,
           .scores = {4, 3, 2, 1},
           .classes = {NeuronClass::kShared, NeuronClass::kNone, NeuronClass::kPrompted,
                       NeuronClass::kShared},
           .angles = {1, 2, 3, 4}}};
}

TEST(TopOfEachLayerTest, TakesTheLargestWhetherMembersOrNotTiesByIndex) {
  EXPECT_THAT(TopOfEachLayer(Scored(), 2, v1::NEURON_CLASS_UNSPECIFIED),
              ElementsAre(Pair(2, ElementsAre(1, 2)), Pair(5, ElementsAre(1, 2))));
  EXPECT_THAT(TopOfEachLayer(Scored(), 3, v1::NEURON_CLASS_UNSPECIFIED),
              ElementsAre(Pair(2, ElementsAre(0, 1, 2)), Pair(5, ElementsAre(1, 2, 3))));
  EXPECT_THAT(TopOfEachLayer(Scored(), 99, v1::NEURON_CLASS_UNSPECIFIED),
              ElementsAre(Pair(2, ElementsAre(0, 1, 2, 3)), Pair(5, ElementsAre(0, 1, 2, 3))));
  EXPECT_THAT(TopOfEachLayer(Classified(), 2, v1::NEURON_CLASS_UNSPECIFIED),
              ElementsAre(Pair(1, ElementsAre(0, 1))));
}

TEST(TopOfEachLayerTest, OfAClassLooksAmongItsNeurons) {
  EXPECT_THAT(TopOfEachLayer(Classified(), 2, v1::NEURON_CLASS_SHARED),
              ElementsAre(Pair(1, ElementsAre(0, 3))));
  EXPECT_THAT(TopOfEachLayer(Classified(), 2, v1::NEURON_CLASS_INTRINSIC),
              ElementsAre(Pair(1, IsEmpty())));
}

TEST(CompareNeuronSetsTest, EveryPairComesWithAllLayersTogetherThenEach) {
  const std::vector<NeuronsByLayer> sets = {
      {{0, {0, 1}}, {3, {2}}}, {{0, {1, 2}}, {3, {2, 3}}}, {{3, {}}}};
  const auto overlaps = CompareNeuronSets(sets, {{0, 4}, {3, 8}}, Cancellation());
  ASSERT_TRUE(overlaps.ok()) << overlaps.status();
  std::vector<std::string> order;
  for (const v1::NeuronSetOverlap& one : *overlaps) {
    order.push_back(absl::StrCat(one.first(), one.second(), one.has_layer() ? " " : "",
                                 one.has_layer() ? absl::StrCat(one.layer()) : ""));
  }
  EXPECT_THAT(order, ElementsAre("01", "01 0", "01 3", "02", "02 0", "02 3", "12", "12 0", "12 3"));
  const v1::NeuronSetOverlap& whole = (*overlaps)[0];
  EXPECT_EQ(whole.intersection(), 2);
  EXPECT_EQ(whole.union_size(), 5);
  EXPECT_DOUBLE_EQ(whole.jaccard(), 0.4);
  EXPECT_DOUBLE_EQ(whole.expected_intersection(), 2.0 * 2 / 4 + 1.0 * 2 / 8);
  EXPECT_DOUBLE_EQ((*overlaps)[2].jaccard(), 0.5);
  EXPECT_DOUBLE_EQ((*overlaps)[2].expected_intersection(), 0.25);
  // The third has no neurons, and layer 0 not at all.
  EXPECT_EQ((*overlaps)[4].union_size(), 2);
  EXPECT_EQ((*overlaps)[4].jaccard(), 0);
  const auto empty =
      CompareNeuronSets(std::vector<NeuronsByLayer>{{}, {{3, {}}}}, {{3, 8}}, Cancellation());
  for (const v1::NeuronSetOverlap& one : *empty) EXPECT_FALSE(one.has_jaccard());
}

TEST(CompareNeuronSetsTest, EndsWhenItIsCancelled) {
  Cancellation cancellation;
  cancellation.Cancel();
  const std::vector<NeuronsByLayer> sets(2);
  EXPECT_EQ(CompareNeuronSets(sets, {{0, 4}}, cancellation).status().code(),
            absl::StatusCode::kCancelled);
}

v1::NeuronSet ProbabilitySet(const std::string& options) {
  v1::NeuronSet set;
  set.set_model("models/tiny");
  set.set_model_digest(std::string(64, 'a'));
  set.set_method(kActivationProbabilityMethod);
  for (const int layer : {2, 5}) {
    v1::NeuronSetLayer& one = *set.add_layers();
    one.set_layer(layer);
    one.set_num_neurons(2);
  }
  set.mutable_provenance()->set_options(options);
  return set;
}

constexpr char kByDefault[] = R"({"activation_probability_difference": {}, "top_k": 3})";
constexpr char kProduct[] =
    R"({"activation_probability_difference": {"definition": "ACTIVATION_DEFINITION_PRODUCT"}})";
constexpr char kGate[] =
    R"({"activation_probability_difference": {"definition": "ACTIVATION_DEFINITION_GATE"}})";

TEST(CheckProbabilitiesTest, SetsThatCannotStandBesideOneAnotherAreRefusedByName) {
  const v1::NeuronSet first = ProbabilitySet(kByDefault);
  const auto reason = [&first](const v1::NeuronSet& set) {
    const absl::Status status = CheckProbabilities("neuron_sets[1]", set, first);
    const ErrorDetails details = DetailsOf(status);
    return status.ok() ? "OK" : absl::StrCat(details.field, " ", details.reason);
  };
  EXPECT_EQ(reason(first), "OK");
  EXPECT_EQ(reason(ProbabilitySet(kProduct)), "OK");  // which is the default
  EXPECT_EQ(reason(ProbabilitySet(kGate)), "neuron_sets[1] WRONG_DEFINITION");
  v1::NeuronSet other = first;
  other.set_method(kDirectContributionMethod);
  EXPECT_EQ(reason(other), "neuron_sets[1] WRONG_METHOD");
  other = first;
  other.mutable_layers(1)->set_layer(6);
  EXPECT_EQ(reason(other), "neuron_sets[1] WRONG_LAYERS");
  other = first;
  other.mutable_layers()->RemoveLast();
  EXPECT_EQ(reason(other), "neuron_sets[1] WRONG_LAYERS");
  other = first;
  other.set_model_digest(std::string(64, 'b'));
  EXPECT_EQ(reason(other), " WRONG_MODEL");
  EXPECT_EQ(CheckProbabilities("neuron_sets[1]", other, first).code(),
            absl::StatusCode::kFailedPrecondition);
  for (const char* damaged :
       {"", "{", "{}", R"({"activation_probability_difference": {"definition": 2}})",
        R"({"activation_probability_difference": {"definition": "ACTIVATION_DEFINITION_X"}})"}) {
    EXPECT_EQ(CheckProbabilities("neuron_sets[1]", ProbabilitySet(damaged), first).code(),
              absl::StatusCode::kDataLoss)
        << damaged;
  }
}

class SelectivityTest : public testing::Test {
 protected:
  // Of two layers with two neurons: of one value, of all alike, never active, of two of three.
  SelectivityTest() {
    const std::vector<std::vector<double>> probabilities = {
        {.5, .25, 0, 0}, {0, .25, 0, .5}, {0, .25, 0, .5}};
    auto scored = ScoreSelectivity(probabilities, ProbabilitySet(kByDefault).layers(),
                                   {.activity_percentile = 50, .top_percent = 75});
    EXPECT_TRUE(scored.ok()) << scored.status();
    selectivity_ = *std::move(scored);
  }

  v1::NeuronSet Described() const {
    v1::NeuronSet set = ProbabilitySet("{}");
    set.set_method(kSelectivityMethod);
    set.set_top_k(1);
    *set.mutable_layers() = SummariseLayers(selectivity_.columns, /*top=*/{});
    return set;
  }

  Selectivity selectivity_;
};

TEST_F(SelectivityTest, ColumnsHaveTheNeuronsOfTheirLayers) {
  const auto& columns = selectivity_.columns;
  ASSERT_EQ(columns.size(), 2u);
  EXPECT_EQ(columns[1].layer, 5);
  EXPECT_THAT(columns[0].scores, ElementsAre(DoubleEq(std::log(3)), testing::DoubleNear(0, 1e-15)));
  EXPECT_THAT(columns[1].scores, ElementsAre(0, DoubleEq(std::log(3) - std::log(2))));
  // Six of twelve are 0, so the median lies between 0 and .25.
  EXPECT_DOUBLE_EQ(selectivity_.activity_threshold, .125);
  EXPECT_THAT(columns[0].members, ElementsAre(1, 1));
  EXPECT_THAT(columns[1].members, ElementsAre(0, 1));
  EXPECT_THAT(columns[0].values, ElementsAre(1, 7));
  EXPECT_THAT(columns[1].values, ElementsAre(0, 6));
}

TEST_F(SelectivityTest, AllMembersActAlthoughFewAreListed) {
  EXPECT_THAT(MembersByLayer(selectivity_.columns, /*top_k=*/1, v1::NEURON_CLASS_UNSPECIFIED),
              ElementsAre(Pair(2, ElementsAre(0, 1)), Pair(5, ElementsAre(1))));
  EXPECT_EQ(Described().layers(0).num_members(), 2);
  EXPECT_EQ(Described().layers(1).num_members(), 1);
  const auto top = TopNeurons(selectivity_.columns, 2);
  ASSERT_EQ(top.size(), 2);
  EXPECT_EQ(top[0].layer(), 2);
  EXPECT_EQ(top[0].index(), 0);
  EXPECT_EQ(top[1].layer(), 5);
}

TEST_F(SelectivityTest, TheAnswerNamesTheValuesOfEachAndCountsThem) {
  v1::ScoreSelectivityResponse response;
  DescribeSelectivity(selectivity_, /*num_values=*/3, /*top_k=*/2, response);
  EXPECT_THAT(response.members_of_value(), ElementsAre(2, 2, 2));
  EXPECT_DOUBLE_EQ(response.activity_threshold(), .125);
  ASSERT_EQ(response.top_size(), 2);
  EXPECT_NEAR(response.top(0).entropy(), 0, 1e-15);
  EXPECT_THAT(response.top(0).values(), ElementsAre(0));
  EXPECT_NEAR(response.top(1).entropy(), std::log(2), 1e-15);
  EXPECT_THAT(response.top(1).values(), ElementsAre(1, 2));
}

TEST_F(SelectivityTest, ComesBackFromItsFile) {
  TemporaryFolder folder;
  const auto blobs = *store::OpenDirectoryBlobStore(folder / "blobs");
  const auto blob = store::WriteBlob(
      *blobs, EncodeColumns(selectivity_.columns, selectivity_.activity_threshold));
  ASSERT_TRUE(blob.ok()) << blob.status();
  const auto resource = MakeNeuronSetResource(Described(), *blob);
  ASSERT_TRUE(resource.ok()) << resource.status();
  const auto columns = ReadColumns(*blobs, *resource);
  ASSERT_TRUE(columns.ok()) << columns.status();
  ASSERT_EQ(columns->size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ((*columns)[i].scores, selectivity_.columns[i].scores);
    EXPECT_EQ((*columns)[i].members, selectivity_.columns[i].members);
    EXPECT_EQ((*columns)[i].values, selectivity_.columns[i].values);
  }
  EXPECT_EQ(*ReadActivityThreshold(*blobs, *resource), selectivity_.activity_threshold);
  EXPECT_EQ(ReadMeanExpressing(*blobs, *resource).status().code(), absl::StatusCode::kDataLoss);
}

TEST(ReadMeanExpressingTest, GivesLayerAfterLayer) {
  TemporaryFolder folder;
  const auto blobs = *store::OpenDirectoryBlobStore(folder / "blobs");
  std::vector<NeuronColumns> columns = {{.layer = 2, .scores = {1, 2}},
                                        {.layer = 5, .scores = {3, 4}}};
  columns[0].mean_expressing = {.1, .2}, columns[0].mean_non_expressing = {.3, .4};
  columns[1].mean_expressing = {.5, .6}, columns[1].mean_non_expressing = {.7, .8};
  const auto blob = store::WriteBlob(*blobs, EncodeColumns(columns));
  const auto resource = MakeNeuronSetResource(ProbabilitySet(kByDefault), *blob);
  const auto means = ReadMeanExpressing(*blobs, *resource);
  ASSERT_TRUE(means.ok()) << means.status();
  EXPECT_THAT(*means, ElementsAre(.1, .2, .5, .6));
}

}  // namespace
}  // namespace valuescope::studies
