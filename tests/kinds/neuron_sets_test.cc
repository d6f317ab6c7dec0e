// Calls of NeuronService about stored sets and texts, over real stores and a small model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "google/protobuf/util/message_differencer.h"
#include "services/stored_neuron_sets.h"
#include "tests/kinds/small_site.h"

namespace valuescope::kinds {
namespace {

using google::protobuf::util::MessageDifferencer;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

constexpr char kByProduct[] = R"({"activation_probability_difference": {}})";
constexpr char kByGate[] =
    R"({"activation_probability_difference": {"definition": "ACTIVATION_DEFINITION_GATE"}})";
constexpr char kRequestId[] = "00000000-0000-4000-8000-000000000001";

class NeuronSetCalls : public testing::Test {
 protected:
  NeuronSetCalls() : site_(folder_) {}

  // Stores a set of the site's model and tenant, changed before it is stored; its name.
  std::string Put(std::vector<studies::NeuronColumns> columns, const std::string& method,
                  const std::function<void(v1::NeuronSet&)>& change = {}) {
    v1::NeuronSet set;
    set.set_model("models/tiny");
    set.set_model_digest(SmallSite::kDigest);
    set.set_method(method);
    set.set_top_k(2);
    *set.mutable_layers() =
        studies::SummariseLayers(columns, studies::TopNeurons(columns, set.top_k()));
    if (change) change(set);
    const auto resource = services::PutNeuronSet(
        set, studies::EncodeColumns(columns), site_.context.tenant, {}, *site_.store, *site_.blobs);
    EXPECT_TRUE(resource.ok()) << resource.status();
    return store::ResourceName(store::ResourceKind::kNeuronSet, resource->id);
  }

  std::string PutScores(std::vector<double> first, std::vector<double> second) {
    return Put(
        {{.layer = 0, .scores = std::move(first)}, {.layer = 1, .scores = std::move(second)}},
        studies::kDirectContributionMethod);
  }

  std::string PutClasses() {
    using analysis::NeuronClass;
    return Put({{.layer = 0,
                 .scores = {4, 3, 2, 1},
                 .classes = {NeuronClass::kShared, NeuronClass::kPrompted, NeuronClass::kNone,
                             NeuronClass::kNone},
                 .angles = {1, 2, 3, 4}}},
               studies::kGeometricMethod, [](v1::NeuronSet& set) {
                 set.mutable_layers(0)->add_classes()->set_class_(v1::NEURON_CLASS_SHARED);
               });
  }

  // Of one layer.
  std::string PutProbabilities(std::vector<double> probabilities,
                               const std::function<void(v1::NeuronSet&)>& change = {}) {
    studies::NeuronColumns column{.layer = 1, .scores = probabilities};
    column.mean_non_expressing.resize(probabilities.size());
    column.mean_expressing = std::move(probabilities);
    return Put({std::move(column)}, studies::kActivationProbabilityMethod,
               [&change](v1::NeuronSet& set) {
                 set.mutable_provenance()->set_options(kByProduct);
                 set.mutable_provenance()->set_num_expressing(20);
                 if (change) change(set);
               });
  }

  absl::StatusOr<v1::CompareNeuronSetsResponse> Compare(
      const std::vector<v1::NeuronSetFilter>& filters) {
    v1::CompareNeuronSetsRequest request;
    request.mutable_sets()->Assign(filters.begin(), filters.end());
    v1::CompareNeuronSetsResponse response;
    VS_RETURN_IF_ERROR(site_.neurons.CompareNeuronSets(site_.context, request, &response));
    return response;
  }

  static v1::NeuronSetFilter Filter(const std::string& name, int top_per_layer = 0,
                                    v1::NeuronClass neuron_class = v1::NEURON_CLASS_UNSPECIFIED) {
    v1::NeuronSetFilter filter;
    filter.set_neuron_set(name);
    filter.set_top_per_layer(top_per_layer);
    filter.set_class_(neuron_class);
    return filter;
  }

  absl::StatusOr<v1::ScoreSelectivityResponse> Select(
      const std::vector<std::string>& names,
      const std::function<void(v1::ScoreSelectivityRequest&)>& change = {}) {
    v1::ScoreSelectivityRequest request;
    request.mutable_neuron_sets()->Assign(names.begin(), names.end());
    if (change) change(request);
    v1::ScoreSelectivityResponse response;
    VS_RETURN_IF_ERROR(site_.neurons.ScoreSelectivity(site_.context, request, &response));
    return response;
  }

  // Searches neuron 3 of block 1 in what `change` leaves of five responses.
  absl::StatusOr<v1::TopContextsResponse> Contexts(
      const std::function<void(v1::TopContextsRequest&)>& change = {}) {
    v1::TopContextsRequest request;
    request.set_model("models/tiny");
    v1::NeuronId& neuron = *request.add_neurons();
    neuron.set_layer(1);
    neuron.set_index(3);
    for (v1::LabelledResponse& response : SmallSite::Responses(5)) {
      response.clear_expresses();
      *request.add_responses() = std::move(response);
    }
    if (change) change(request);
    v1::TopContextsResponse response;
    VS_RETURN_IF_ERROR(site_.neurons.TopContexts(site_.context, request, &response));
    return response;
  }

  template <typename Response>
  static std::string FieldOf(const absl::StatusOr<Response>& response) {
    EXPECT_EQ(response.status().code(), absl::StatusCode::kInvalidArgument) << response.status();
    return DetailsOf(response.status()).field;
  }

  TemporaryFolder folder_;
  SmallSite site_;
};

// --- CompareNeuronSets ---------------------------------------------------------------------------

TEST_F(NeuronSetCalls, MembersOfSetsAreComparedByLayer) {
  const std::string a = PutScores({9, 0, 0, 8}, {0, 0, 0, 0}),
                    b = PutScores({9, 0, 0, 0}, {0, 7, 0, 0});
  const auto compared = Compare({Filter(a), Filter(b)});
  ASSERT_TRUE(compared.ok()) << compared.status();
  ASSERT_THAT(compared->overlaps(), SizeIs(3));
  const v1::NeuronSetOverlap& all = compared->overlaps(0);
  EXPECT_FALSE(all.has_layer());
  EXPECT_EQ(all.intersection(), 1);
  EXPECT_EQ(all.union_size(), 3);
  EXPECT_DOUBLE_EQ(all.jaccard(), 1.0 / 3);
  EXPECT_DOUBLE_EQ(all.expected_intersection(), 2.0 * 1 / 4);
  EXPECT_EQ(compared->overlaps(2).layer(), 1);
  EXPECT_EQ(compared->overlaps(2).jaccard(), 0);
  ASSERT_THAT(compared->digests(), SizeIs(2));
  EXPECT_THAT(compared->digests(0).digest(), SizeIs(64));
}

TEST_F(NeuronSetCalls, AFilterTakesAClassOrTheTopOfEachLayer) {
  const std::string classes = PutClasses();
  const auto compared = Compare({Filter(classes), Filter(classes, 0, v1::NEURON_CLASS_SHARED),
                                 Filter(classes, 3), Filter(classes, 3, v1::NEURON_CLASS_NONE)});
  ASSERT_TRUE(compared.ok()) << compared.status();
  const auto unions = [&compared](int first, int second) {
    for (const v1::NeuronSetOverlap& one : compared->overlaps()) {
      if (one.first() == first && one.second() == second && !one.has_layer()) {
        return std::make_pair(one.intersection(), one.union_size());
      }
    }
    return std::make_pair(int64_t{-1}, int64_t{-1});
  };
  EXPECT_EQ(unions(0, 1), std::make_pair(int64_t{1}, int64_t{2}));  // {0, 1} and {0}
  EXPECT_EQ(unions(0, 2), std::make_pair(int64_t{2}, int64_t{3}));  // and {0, 1, 2}
  EXPECT_EQ(unions(2, 3), std::make_pair(int64_t{1}, int64_t{4}));  // and {2, 3}
}

TEST_F(NeuronSetCalls, WhatCannotBeComparedIsNamed) {
  const std::string scores = PutScores({1, 2, 3, 4}, {1, 2, 3, 4});
  EXPECT_EQ(FieldOf(Compare({Filter(scores)})), "sets");
  EXPECT_EQ(FieldOf(Compare(std::vector(65, Filter(scores)))), "sets");
  EXPECT_EQ(FieldOf(Compare({Filter(scores), Filter("vectors/x")})), "sets[1].neuron_set");
  EXPECT_EQ(FieldOf(Compare({Filter(scores), Filter(scores, -1)})), "sets[1].top_per_layer");
  EXPECT_EQ(FieldOf(Compare({Filter(scores), Filter(scores, 0, v1::NEURON_CLASS_SHARED)})),
            "sets[1].class");
  EXPECT_EQ(FieldOf(Compare({Filter(scores, 0, static_cast<v1::NeuronClass>(99)), Filter(scores)})),
            "sets[0].class");
  EXPECT_EQ(Compare({Filter(scores), Filter("neuronSets/none")}).status().code(),
            absl::StatusCode::kNotFound);
  const std::string foreign =
      Put({{.layer = 0, .scores = {1, 2}}}, studies::kDirectContributionMethod,
          [](v1::NeuronSet& set) { set.set_model_digest(std::string(64, 'b')); });
  const absl::Status status = Compare({Filter(scores), Filter(foreign)}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(DetailsOf(status).reason, "WRONG_MODEL");
  EXPECT_THAT(std::string(status.message()), HasSubstr("sets[1]"));
}

TEST_F(NeuronSetCalls, AComparisonThatFitsNoMessageIsRefusedBeforeItIsMade) {
  std::vector<studies::NeuronColumns> columns;
  for (int layer = 0; layer < 400; ++layer) columns.push_back({.layer = layer, .scores = {1, 2}});
  const std::string wide = Put(std::move(columns), studies::kDirectContributionMethod);
  const absl::Status status = Compare(std::vector(64, Filter(wide))).status();
  EXPECT_EQ(DetailsOf(status).reason, "RESPONSE_TOO_LARGE");
  EXPECT_THAT(std::string(status.message()), HasSubstr("fewer `sets`"));
}

TEST_F(NeuronSetCalls, ColumnsAreHeldWhileTheyAreReadAndGivenBack) {
  const std::string scores = PutScores({1, 2, 3, 4}, {1, 2, 3, 4});
  MemoryLedger memory(int64_t{1} << 20);
  site_.context.memory = &memory;
  ASSERT_TRUE(Compare({Filter(scores), Filter(scores)}).ok());
  // Two members each, and three overlaps.
  EXPECT_EQ(site_.context.held(), 2 * 2 * 8 + 3 * 256);
  MemoryLedger small(64);
  rpc::CallContext context;
  context.tenant = "lab";
  context.memory = &small;
  v1::CompareNeuronSetsRequest request;
  for (int i = 0; i < 2; ++i) *request.add_sets() = Filter(scores);
  v1::CompareNeuronSetsResponse response;
  EXPECT_EQ(site_.neurons.CompareNeuronSets(context, request, &response).code(),
            absl::StatusCode::kResourceExhausted);
}

// --- ScoreSelectivity ----------------------------------------------------------------------------

TEST_F(NeuronSetCalls, SelectivityIsStoredAsASetAndComesBack) {
  const std::string one = PutProbabilities({.5, .25, 0, .75}),
                    two = PutProbabilities({0, .25, 0, .25});
  const auto all = [](v1::ScoreSelectivityRequest& request) {
    request.set_activity_percentile(0);
    request.set_top_percent(100);
    request.set_top_k(2);
    request.set_display_name("selective");
  };
  const auto answer = Select({one, two}, all);
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_THAT(answer->top(), SizeIs(2));
  EXPECT_EQ(answer->top(0).layer(), 1);
  EXPECT_EQ(answer->top(0).index(), 0);
  EXPECT_EQ(answer->top(0).entropy(), 0);
  EXPECT_THAT(answer->top(0).values(), ElementsAre(0));
  EXPECT_THAT(answer->top(1).values(), ElementsAre(0, 1));
  EXPECT_THAT(answer->members_of_value(), ElementsAre(3, 2));
  const v1::NeuronSet& set = answer->neuron_set();
  EXPECT_EQ(set.method(), "selectivity");
  EXPECT_EQ(set.display_name(), "selective");
  EXPECT_EQ(set.layers(0).num_members(), 3);
  EXPECT_DOUBLE_EQ(set.layers(0).score_max(), std::log(2));
  EXPECT_THAT(set.top(), SizeIs(2));
  EXPECT_THAT(set.provenance().inputs(), SizeIs(2));
  EXPECT_THAT(set.provenance().options(), HasSubstr(one + "\",\"" + two));
  EXPECT_THAT(answer->digests(), SizeIs(3));
  EXPECT_THAT(set.warnings(), SizeIs(1));  // three of four
  EXPECT_THAT(set.warnings(0), HasSubstr("only 3 neurons"));
  v1::GetNeuronSetRequest get;
  get.set_name(set.name());
  v1::GetNeuronSetResponse got;
  ASSERT_EQ(site_.neurons.GetNeuronSet(site_.context, get, &got), absl::OkStatus());
  EXPECT_TRUE(MessageDifferencer::Equals(got.neuron_set(), set));
  // The same request makes the same set; the order of the values is part of it.
  EXPECT_EQ(Select({one, two}, all)->neuron_set().name(), set.name());
  EXPECT_NE(Select({two, one}, all)->neuron_set().name(), set.name());
}

TEST_F(NeuronSetCalls, ARepeatedRequestForSelectivityIsAnsweredFromWhatItStored) {
  const std::string one = PutProbabilities({.5, .25}), two = PutProbabilities({0, .25});
  const auto with_id = [](v1::ScoreSelectivityRequest& request) {
    request.set_activity_percentile(60);
    request.set_request_id(kRequestId);
  };
  const auto first = Select({one, two}, with_id);
  ASSERT_TRUE(first.ok()) << first.status();
  for (const std::string& name : {one, two}) {
    ASSERT_EQ(site_.store->DeleteResource("lab", store::ResourceKind::kNeuronSet,
                                          name.substr(name.find('/') + 1)),
              absl::OkStatus());
  }
  const auto again = Select({one, two}, with_id);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(MessageDifferencer::Equals(*again, *first));
  EXPECT_EQ(Select({two, one}, with_id).status().code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(NeuronSetCalls, SelectivityOfValuesThatAreNeverActiveHasNoMembers) {
  const std::string one = PutProbabilities({0, 0}),
                    two = PutProbabilities(
                        {0, 0}, [](auto&set) { set.mutable_provenance()->set_num_expressing(3); });
  const auto answer = Select({one, two});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(answer->top(), SizeIs(0));
  EXPECT_THAT(answer->members_of_value(), ElementsAre(0, 0));
  EXPECT_EQ(answer->neuron_set().layers(0).score_max(), 0);
  EXPECT_EQ(answer->neuron_set().layers(0).num_members(), 0);
  ASSERT_THAT(answer->warnings(), SizeIs(2));
  EXPECT_THAT(answer->warnings(0), HasSubstr(two + " rest on only 3"));
}

TEST_F(NeuronSetCalls, SetsThatAreNoProbabilitiesOfOneKindAreRefusedByName) {
  const std::string one = PutProbabilities({.5, .25});
  const std::string scores = PutScores({1, 2}, {3, 4});
  const std::string by_gate = PutProbabilities(
      {.5, .25}, [](auto& set) { set.mutable_provenance()->set_options(kByGate); });
  const std::string wider = PutProbabilities({.5, .25, .1});
  const auto refused = [&](const std::string& other) {
    const auto answer = Select({one, other});
    return absl::StrCat(FieldOf(answer), " ", DetailsOf(answer.status()).reason);
  };
  EXPECT_EQ(refused(scores), "neuron_sets[1] WRONG_METHOD");
  EXPECT_EQ(refused(by_gate), "neuron_sets[1] WRONG_DEFINITION");
  EXPECT_EQ(refused(wider), "neuron_sets[1] WRONG_LAYERS");
  EXPECT_EQ(refused(one), "neuron_sets[1] INVALID_FIELD");
  EXPECT_EQ(refused("vectors/x"), "neuron_sets[1] INVALID_FIELD");
  const std::string foreign =
      PutProbabilities({.5, .1}, [](auto& set) { set.set_model_digest(std::string(64, 'b')); });
  EXPECT_EQ(DetailsOf(Select({one, foreign}).status()).reason, "WRONG_MODEL");
  EXPECT_EQ(FieldOf(Select({one})), "neuron_sets");
  EXPECT_EQ(FieldOf(Select(std::vector(65, one))), "neuron_sets");
}

TEST_F(NeuronSetCalls, OptionsOfSelectivityAreRefusedByName) {
  const std::string one = PutProbabilities({.5, .25}), two = PutProbabilities({0, .25});
  const auto refused = [&](const std::function<void(v1::ScoreSelectivityRequest&)>& change) {
    return FieldOf(Select({one, two}, change));
  };
  for (const double bad : {-.1, 100.1, std::nan("")}) {
    EXPECT_EQ(refused([bad](auto& r) { r.set_activity_percentile(bad); }), "activity_percentile");
  }
  for (const double bad : {0.0, 100.1, std::nan("")}) {
    EXPECT_EQ(refused([bad](auto& r) { r.set_top_percent(bad); }), "top_percent");
  }
  EXPECT_EQ(refused([](auto& r) { r.set_top_k(10001); }), "top_k");
  EXPECT_EQ(refused([](auto& r) { r.set_request_id("x"); }), "request_id");
  EXPECT_EQ(refused([](auto& r) { r.set_display_name(std::string(257, 'x')); }), "display_name");
}

// --- TopContexts ---------------------------------------------------------------------------------

// Response i has the tokens i % 97, i % 13 and i % 7 behind a prompt of token 1.
TEST_F(NeuronSetCalls, ContextsAreTheTextsOfTheLargestActivation) {
  const auto answer = Contexts([](auto& request) {
    request.set_top_k(2);
    request.set_window(1);
  });
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_THAT(answer->neurons(), SizeIs(1));
  EXPECT_EQ(answer->neurons(0).neuron().index(), 3);
  ASSERT_THAT(answer->neurons(0).contexts(), SizeIs(2));
  const v1::NeuronContext& first = answer->neurons(0).contexts(0);
  EXPECT_EQ(first.input_index(), 4);
  EXPECT_EQ(first.position(), 1);  // the first of three equal tokens
  EXPECT_EQ(first.activation(), 4 * 4 + 1);
  EXPECT_THAT(first.token_ids(), ElementsAre(1, 4, 4));
  EXPECT_EQ(first.center(), 1);
  EXPECT_THAT(first.activations(), ElementsAre(5, 17, 17));
  EXPECT_FALSE(first.text().empty());
  EXPECT_EQ(answer->usage().prompt_tokens(), 5 * 4);
}

TEST_F(NeuronSetCalls, ContextsOfAFileAreThoseOfItsLines) {
  std::string lines;
  for (const v1::LabelledResponse& response : SmallSite::Responses(20)) {
    const auto ids = [](const v1::TokenIds& tokens) {
      return absl::StrCat("{\"token_ids\": {\"ids\": [", absl::StrJoin(tokens.ids(), ", "), "]}}");
    };
    absl::StrAppend(&lines, "{\"prompt\": ", ids(response.prompt().token_ids()),
                    ", \"response\": ", ids(response.response().token_ids()), "}\n\n");
  }
  site_.PutTexts(lines);
  const auto inlined = Contexts([](auto& request) {
    request.clear_responses();
    for (const auto& response : SmallSite::Responses(20)) *request.add_responses() = response;
  });
  const auto answer = Contexts([](auto& request) {
    request.clear_responses();
    request.set_artifact("artifacts/texts");
  });
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_TRUE(inlined.ok()) << inlined.status();
  EXPECT_TRUE(MessageDifferencer::Equals(*answer, *inlined));
  EXPECT_EQ(answer->neurons(0).contexts(0).input_index(), 19);
}

TEST_F(NeuronSetCalls, ContextsThatCannotBeAreRefusedByName) {
  const auto refused = [this](const std::function<void(v1::TopContextsRequest&)>& change) {
    return FieldOf(Contexts(change));
  };
  EXPECT_EQ(refused([](auto& r) { r.clear_neurons(); }), "neurons");
  EXPECT_EQ(refused([](auto& r) {
              for (int i = 0; i < 256; ++i) *r.add_neurons() = r.neurons(0);
            }),
            "neurons");
  EXPECT_EQ(refused([](auto& r) { *r.add_neurons() = r.neurons(0); }), "neurons[1]");
  EXPECT_EQ(refused([](auto& r) { r.mutable_neurons(0)->set_layer(2); }), "neurons[0].layer");
  EXPECT_EQ(refused([](auto& r) { r.mutable_neurons(0)->set_index(4); }), "neurons[0].index");
  EXPECT_EQ(refused([](auto& r) { r.mutable_neurons(0)->set_index(-1); }), "neurons[0].index");
  EXPECT_EQ(refused([](auto& r) { r.set_top_k(0); }), "top_k");
  EXPECT_EQ(refused([](auto& r) { r.set_top_k(101); }), "top_k");
  EXPECT_EQ(refused([](auto& r) { r.set_window(-1); }), "window");
  EXPECT_EQ(refused([](auto& r) { r.set_window(65); }), "window");
  EXPECT_EQ(refused([](auto& r) { r.clear_responses(); }), "responses");
  EXPECT_EQ(refused([](auto& r) { r.set_artifact("artifacts/x"); }), "responses");
  EXPECT_EQ(refused([](auto& r) { r.mutable_responses(2)->clear_prompt(); }),
            "responses[2].prompt");
  EXPECT_EQ(refused([](auto& r) {
              r.mutable_responses(1)->mutable_response()->mutable_token_ids()->set_ids(0, 100);
            }),
            "responses[1].response.token_ids.ids[0]");
  EXPECT_EQ(refused([](auto& r) { r.mutable_tokens()->add_positions(9); }), "tokens.positions[0]");
  EXPECT_EQ(refused([](auto& r) { r.mutable_tokens()->set_kind(static_cast<v1::TokenKind>(99)); }),
            "tokens.kind");
}

TEST_F(NeuronSetCalls, MoreTextsThanOneCallTakesAreRefusedBeforeAnythingRuns) {
  const absl::Status status = Contexts([](auto& request) {
                                const v1::LabelledResponse one = request.responses(0);
                                for (int i = 0; i < 20'000; ++i) *request.add_responses() = one;
                              }).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailsOf(status).reason, "TOO_MANY_RESPONSES");
  EXPECT_EQ(site_.engine->submitted, 0);
}

TEST_F(NeuronSetCalls, WhatACallHoldsDoesNotGrowWithItsTexts) {
  MemoryLedger memory(int64_t{1} << 30);
  const auto held = [&](int num_texts) {
    rpc::CallContext context;
    context.tenant = "lab";
    context.memory = &memory;
    v1::TopContextsRequest request;
    request.set_model("models/tiny");
    request.add_neurons()->set_index(1);
    for (v1::LabelledResponse& response : SmallSite::Responses(num_texts)) {
      *request.add_responses() = std::move(response);
    }
    v1::TopContextsResponse response;
    EXPECT_EQ(site_.neurons.TopContexts(context, request, &response), absl::OkStatus());
    return context.held();
  };
  const int64_t few = held(50);
  // Sixteen texts of four tokens run together: ids here and in the engine, and a float a neuron.
  EXPECT_GE(few, 16 * 4 * (8 + 4));
  EXPECT_EQ(held(1000), few);
  EXPECT_EQ(memory.used(), 0);
}

TEST_F(NeuronSetCalls, ACallThatIsStoppedSaysWhyAndRunsLittleMore) {
  site_.engine->before_submit = [this](const engine::Request&) {
    if (site_.engine->submitted == 20) {
      site_.context.Stop(absl::DeadlineExceededError("too late"));
    }
    return absl::OkStatus();
  };
  const auto answer = Contexts([](auto& request) {
    const v1::LabelledResponse one = request.responses(1);
    for (int i = 0; i < 500; ++i) *request.add_responses() = one;
  });
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_LE(site_.engine->submitted, 64);
}

// --- Tenants -------------------------------------------------------------------------------------

TEST_F(NeuronSetCalls, TenantsDoNotSeeOneAnothersSets) {
  const std::string scores = PutScores({1, 2}, {3, 4}), probabilities = PutProbabilities({.5, .25});
  site_.context.tenant = "others";
  const std::string own = PutScores({5, 6}, {7, 8}), own_probabilities = PutProbabilities({.1, .2});
  EXPECT_EQ(Compare({Filter(own), Filter(scores)}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(Compare({Filter(own), Filter(own)}).ok());
  EXPECT_EQ(Select({own_probabilities, probabilities}).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace valuescope::kinds
