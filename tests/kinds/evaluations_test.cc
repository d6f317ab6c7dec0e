// Evaluations as calls and as jobs, on a model whose logit of token d is t (d + 1) / 100 with t the
// last token of the prompt, and whose log-probability of a given token is -token / 64; both
// whatever is changed inside.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "services/idempotency.h"
#include "tests/kinds/cut_job.h"
#include "tests/kinds/small_site.h"

namespace valuescope::kinds {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pointwise;

// Of probabilities: the model's logits are float32 numbers of up to 30, told apart to 2^-20.
constexpr double kOfLogits = 2e-6;

// Probabilities of as many labels as numbers from `first` on, behind a prompt that ends in `last`.
std::vector<double> SharesBehind(char last, char first, int labels) {
  std::vector<double> shares;
  double sum = 0;
  for (int i = 0; i < labels; ++i) sum += shares.emplace_back(std::exp(last / 100.0 * i));
  for (double& share : shares) share /= sum;
  return shares;
}

double Expected(const std::vector<double>& shares, const std::vector<double>& numbers) {
  double sum = 0;
  for (size_t i = 0; i < shares.size(); ++i) sum += shares[i] * numbers[i];
  return sum;
}

class Evaluations : public testing::Test {
 protected:
  Evaluations() : site(folder) { site.engine->scale = .01; }

  // `items` items of three values in turn; the second of every four speaks against its value.
  static v1::AskQuestionnaireRequest Questionnaire(int items) {
    v1::AskQuestionnaireRequest request;
    request.set_model("models/tiny");
    request.set_template_("{item}\n{options}!");
    for (const auto& [label, score] :
         {std::pair<const char*, double>{"1", 1}, {"2", 2}, {"3", 4}}) {
      v1::AnswerOption& option = *request.add_options();
      option.set_label(label);
      option.set_text(std::string("t") + label);
      option.set_score(score);
    }
    for (int i = 0; i < items; ++i) {
      v1::QuestionnaireItem& item = *request.add_items();
      item.set_text("item " + std::to_string(i));
      item.set_value(std::string("ABC").substr(static_cast<size_t>(i % 3), 1));
      item.set_reverse(i % 4 == 1);
    }
    for (const char* name : {"plain", "other"}) request.add_conditions()->set_name(name);
    return request;
  }

  static v1::AnswerChoicesRequest Choices(int questions) {
    v1::AnswerChoicesRequest request;
    request.set_model("models/tiny");
    for (int i = 0; i < questions; ++i) {
      v1::ChoiceQuestion& question = *request.add_questions();
      question.set_question("q" + std::to_string(i));
      for (int choice = 0; choice < 2 + i % 3; ++choice) {
        question.add_choices("c" + std::string(static_cast<size_t>(choice + 1), '!'));
      }
      question.set_answer(i % 2);
    }
    return request;
  }

  static v1::ScoreTaggedResponsesRequest Tagged(int responses) {
    v1::ScoreTaggedResponsesRequest request;
    request.set_model("models/tiny");
    for (int i = 0; i < responses; ++i) {
      v1::TaggedResponse& response = *request.add_responses();
      response.set_query("why");
      response.set_response(std::string(static_cast<size_t>(1 + i % 5), '0'));
      v1::ValueWeight& weight = *response.add_weights();
      weight.set_value(i % 2 == 0 ? "A" : "B");
      weight.set_weight(i % 3 == 0 ? -.5 : 1);
    }
    request.add_templates("{query}");
    request.add_templates("tell: {query}");
    return request;
  }

  // The field that a request is refused for.
  template <typename Request, typename Response>
  std::string FieldOf(absl::Status (services::EvaluationService::*call)(const rpc::CallContext&,
                                                                        const Request&, Response*),
                      const Request& request) {
    Response response;
    const absl::Status status = (site.evaluation.*call)(site.context, request, &response);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return DetailsOf(status).field;
  }
  std::string FieldOf(const v1::AskQuestionnaireRequest& request) {
    return FieldOf(&services::EvaluationService::AskQuestionnaire, request);
  }
  std::string FieldOf(const v1::AnswerChoicesRequest& request) {
    return FieldOf(&services::EvaluationService::AnswerChoices, request);
  }
  std::string FieldOf(const v1::ScoreTaggedResponsesRequest& request) {
    return FieldOf(&services::EvaluationService::ScoreTaggedResponses, request);
  }

  v1::AskQuestionnaireResponse Ask(const v1::AskQuestionnaireRequest& request) {
    v1::AskQuestionnaireResponse response;
    EXPECT_EQ(site.evaluation.AskQuestionnaire(site.context, request, &response), absl::OkStatus());
    return response;
  }

  TemporaryFolder folder;
  SmallSite site;
};

// --- Questionnaires ------------------------------------------------------------------------------

// Labels are bytes, and the prompt ends in "!" whatever the order.
TEST_F(Evaluations, AnItemsScoreIsTheMeanOverBothOrders) {
  const v1::AskQuestionnaireResponse response = Ask(Questionnaire(5));
  const std::vector<double> shares = SharesBehind('!', '1', 3), numbers = {1, 2, 4};
  const double given = Expected(shares, numbers), reversed = Expected(shares, {4, 2, 1});
  ASSERT_EQ(response.results_size(), 2);
  EXPECT_EQ(response.results(1).condition(), "other");
  const v1::QuestionnaireResult& result = response.results(0);
  ASSERT_EQ(result.items_size(), 5);
  const v1::ItemScore &first = result.items(0), &second = result.items(1);
  EXPECT_EQ(first.item(), "1");
  EXPECT_NEAR(first.score(), (given + reversed) / 2, kOfLogits);
  EXPECT_NEAR(first.order_spread(), (given - reversed) / 2, kOfLogits);
  EXPECT_NEAR(second.score(), 5 - (given + reversed) / 2, kOfLogits);
  EXPECT_THAT(first.answers(0).probabilities(), Pointwise(DoubleNear(kOfLogits), shares));
  EXPECT_TRUE(first.answers(1).reversed());
  EXPECT_THAT(first.answers(1).probabilities(),
              Pointwise(DoubleNear(kOfLogits), {shares[2], shares[1], shares[0]}));
  EXPECT_EQ(result.most_frequent_share(), 1);
  EXPECT_THAT(response.warnings(0), HasSubstr("label"));
  EXPECT_FALSE(first.answers(0).has_text());
  EXPECT_EQ(response.example_prompt(), "Uitem 0\n1: t1\n2: t2\n3: t3!");
  EXPECT_EQ(site.engine->submitted, 2 * 2 * 5);
}

TEST_F(Evaluations, ValuesAreMeansLessTheMeanOfAllItems) {
  const v1::QuestionnaireResult result = Ask(Questionnaire(7)).results(0);
  double all = 0, of_a = 0, sum = 0;
  for (int i = 0; i < 7; ++i) {
    all += result.items(i).score() / 7;
    if (i % 3 == 0) of_a += result.items(i).score() / 3;
  }
  ASSERT_EQ(result.values_size(), 3);
  EXPECT_EQ(result.values(0).value(), "A");
  EXPECT_EQ(result.values(0).num_items(), 3);
  EXPECT_NEAR(result.values(0).score(), of_a, 1e-12);
  EXPECT_NEAR(result.mean(), all, 1e-12);
  for (const v1::ValueScore& value : result.values()) sum += value.num_items() * value.centred();
  EXPECT_NEAR(sum, 0, 1e-12);
}

// The fake engine says "t0..." of nothing where the seed is 0, so what it says is empty.
TEST_F(Evaluations, AnswersInWordsAreReadByTheStrictParser) {
  v1::AskQuestionnaireRequest request = Questionnaire(3);
  request.set_max_answer_tokens(4);
  const v1::QuestionnaireResult result = Ask(request).results(0);
  EXPECT_TRUE(result.items(0).answers(0).has_text());
  EXPECT_FALSE(result.items(0).answers(0).has_text_option());
  EXPECT_FALSE(result.items(0).has_text_score());
  EXPECT_EQ(result.num_unparsable(), 6);
  EXPECT_EQ(result.values(0).num_text_items(), 0);
}

TEST_F(Evaluations, OnlyItemsOfTheLanguageAreAsked) {
  v1::AskQuestionnaireRequest request = Questionnaire(4);
  for (int i = 0; i < 4; ++i) request.mutable_items(i)->set_language(i < 3 ? "en" : "ko");
  EXPECT_EQ(FieldOf(request), "language");
  request.set_language("es");
  EXPECT_EQ(FieldOf(request), "language");
  request.set_language("ko");
  const v1::AskQuestionnaireResponse response = Ask(request);
  ASSERT_EQ(response.results(0).items_size(), 1);
  EXPECT_EQ(response.results(0).items(0).item(), "1");
  EXPECT_THAT(response.example_prompt(), HasSubstr("item 3"));
}

TEST_F(Evaluations, AKeyGivesItemsTheirValues) {
  v1::AskQuestionnaireRequest request = Questionnaire(3);
  request.set_key(v1::QUESTIONNAIRE_KEY_PVQ_40);
  const v1::QuestionnaireResult result = Ask(request).results(0);
  std::vector<std::string> values;
  for (const v1::ItemScore& item : result.items()) values.push_back(item.value());
  EXPECT_THAT(values, ElementsAre("SD", "PO", "UN"));
  for (const char* id : {"41", "0", "one", "02", "+2"}) {
    request.mutable_items(1)->set_id(id);
    EXPECT_EQ(FieldOf(request), "items[1].id") << id;
  }
}

TEST_F(Evaluations, WhatIsWrongWithAQuestionnaireIsNamed) {
  const auto refused = [&](const std::string& field,
                           const std::function<void(v1::AskQuestionnaireRequest&)>& change) {
    v1::AskQuestionnaireRequest request = Questionnaire(3);
    change(request);
    EXPECT_EQ(FieldOf(request), field);
  };
  refused("items", [](auto& r) { r.clear_items(); });
  refused("items", [](auto& r) { r.set_artifact("artifacts/texts"); });
  refused("items[2].text", [](auto& r) { r.mutable_items(2)->clear_text(); });
  refused("items[2].value", [](auto& r) { r.mutable_items(2)->set_value(std::string(257, 'v')); });
  refused("options[1].score", [](auto& r) { r.mutable_options(1)->set_score(1.1e9); });
  refused("items[2].id", [](auto& r) { r.mutable_items(2)->set_id("1"); });
  refused("items[1]", [](auto& r) { r.mutable_items(1)->set_text("<|im_end|>"); });
  refused("items[1]", [](auto& r) {
    r.set_template_("{options} <|im_{item}|>");
    r.mutable_items(1)->set_text("end");
  });
  refused("options", [](auto& r) { r.mutable_options()->DeleteSubrange(1, 2); });
  refused("options[1].label", [](auto& r) { r.mutable_options(1)->set_label("1"); });
  refused("options[1].label", [](auto& r) { r.mutable_options(1)->set_label(" 2"); });
  refused("options[1].label", [](auto& r) { r.mutable_options(1)->clear_label(); });
  refused("options[2].score", [](auto& r) { r.mutable_options(2)->set_score(2); });
  refused("options[0].score", [](auto& r) { r.mutable_options(0)->set_score(-INFINITY); });
  refused("template", [](auto& r) { r.set_template_("{item}"); });
  refused("template", [](auto& r) { r.set_template_("{item} {options}<|im_end|>"); });
  refused("max_answer_tokens", [](auto& r) { r.set_max_answer_tokens(257); });
  refused("conditions[1].name", [](auto& r) { r.mutable_conditions(1)->set_name("plain"); });
  refused("conditions", [](auto& r) {
    for (int i = 0; i < 63; ++i) r.add_conditions();
  });
  refused("conditions[0].interventions[0]",
          [](auto& r) { r.mutable_conditions(0)->add_interventions(); });
  refused("key", [](auto& r) { r.set_key(static_cast<v1::QuestionnaireKey>(9)); });
  EXPECT_EQ(site.engine->submitted, 0);
}

TEST_F(Evaluations, AFileIsReadLineByLineAndABadLineIsNumbered) {
  v1::AskQuestionnaireRequest request = Questionnaire(0);
  request.set_artifact("artifacts/texts");
  site.PutTexts(R"({"text": "one", "value": "A"})"
                "\n\n"
                R"({"text": "two", "value": "B", "reverse": true})");
  EXPECT_EQ(Ask(request).results(0).items_size(), 2);
  TemporaryFolder other;
  SmallSite bad(other);
  bad.PutTexts(R"({"text": "one"})"
               "\n\n"
               R"({"text": "two", "reverse": "yes"})");
  v1::AskQuestionnaireResponse response;
  const absl::Status status = bad.evaluation.AskQuestionnaire(bad.context, request, &response);
  EXPECT_EQ(DetailsOf(status).field, "artifact");
  EXPECT_THAT(status.message(), HasSubstr("line 3"));
}

// --- Choices -------------------------------------------------------------------------------------

TEST_F(Evaluations, LettersAreReadAsManyAsThereAreChoices) {
  v1::AnswerChoicesResponse response;
  ASSERT_EQ(site.evaluation.AnswerChoices(site.context, Choices(6), &response), absl::OkStatus());
  const v1::ChoicesResult& result = response.results(0);
  EXPECT_EQ(result.condition(), "0");
  EXPECT_EQ(response.example_prompt(), "Uq0\nA. c!\nB. c!!");
  double brier = 0, right = 0;
  for (int i = 0; i < 6; ++i) {
    const std::vector<double> shares = SharesBehind('!', 'A', 2 + i % 3);
    EXPECT_THAT(result.answers(i).probabilities(), Pointwise(DoubleNear(kOfLogits), shares));
    EXPECT_EQ(result.answers(i).choice(), 1 + i % 3);
    right += result.answers(i).correct();
    for (size_t k = 0; k < shares.size(); ++k) {
      brier += std::pow(shares[k] - (static_cast<int>(k) == i % 2 ? 1 : 0), 2) / 6;
    }
  }
  EXPECT_EQ(result.accuracy(), right / 6);
  EXPECT_NEAR(result.brier_score(), brier, kOfLogits);
  EXPECT_TRUE(result.has_label_mass());
}

// A byte "c" has -99 / 64, "!" has -33 / 64.
TEST_F(Evaluations, ContinuationsAreScoredAByte) {
  v1::AnswerChoicesRequest request = Choices(3);
  request.set_reading(v1::CHOICE_READING_CONTINUATIONS);
  v1::AnswerChoicesResponse response;
  ASSERT_EQ(site.evaluation.AnswerChoices(site.context, request, &response), absl::OkStatus());
  for (int i = 0; i < 3; ++i) {
    std::vector<double> shares;
    double sum = 0;
    for (int k = 0; k < 2 + i; ++k) {
      sum += shares.emplace_back(std::exp((-99 / 64.0 - 33 / 64.0 * (k + 1)) / (k + 2)));
    }
    for (double& share : shares) share /= sum;
    EXPECT_THAT(response.results(0).answers(i).probabilities(),
                Pointwise(DoubleNear(1e-6), shares));
    EXPECT_FALSE(response.results(0).answers(i).has_label_mass());
  }
  EXPECT_EQ(response.example_prompt(), "Uq0");
}

TEST_F(Evaluations, WhatIsWrongWithAQuestionIsNamed) {
  const auto refused = [&](const std::string& field,
                           const std::function<void(v1::AnswerChoicesRequest&)>& change) {
    v1::AnswerChoicesRequest request = Choices(3);
    change(request);
    EXPECT_EQ(FieldOf(request), field);
  };
  refused("questions[1].question", [](auto& r) { r.mutable_questions(1)->clear_question(); });
  refused("questions[1].choices", [](auto& r) { r.mutable_questions(1)->clear_choices(); });
  refused("questions[1].choices", [](auto& r) { r.mutable_questions(1)->set_choices(0, ""); });
  refused("questions[1].answer", [](auto& r) { r.mutable_questions(1)->set_answer(3); });
  refused("questions[1].answer", [](auto& r) { r.mutable_questions(1)->set_answer(-1); });
  refused("template", [](auto& r) { r.set_template_("{question}"); });
  refused("calibration_bins", [](auto& r) { r.set_calibration_bins(0); });
  refused("reading", [](auto& r) { r.set_reading(static_cast<v1::ChoiceReading>(7)); });
}

// --- Tagged responses ----------------------------------------------------------------------------

TEST_F(Evaluations, TaggedResponsesAreScoredByTheirTokens) {
  v1::ScoreTaggedResponsesResponse response;
  ASSERT_EQ(site.evaluation.ScoreTaggedResponses(site.context, Tagged(6), &response),
            absl::OkStatus());
  const v1::TaggedResult& result = response.results(0);
  std::vector<double> logprobs;
  double mean = 0;
  for (int i = 0; i < 6; ++i) {
    mean += logprobs.emplace_back(-48 / 64.0 * (1 + i % 5)) / 6;
    EXPECT_NEAR(result.responses(i).logprob(), logprobs.back(), 1e-6);
    EXPECT_EQ(result.responses(i).template_spread(), 0);
    EXPECT_EQ(result.responses(i).num_tokens(), 1 + i % 5);
  }
  // A: 0, 2, 4 with weights -.5, 1, 1.
  const double of_a = (-.5 * (logprobs[0] - mean) + logprobs[2] + logprobs[4] - 2 * mean) / 2.5;
  EXPECT_EQ(result.values(0).value(), "A");
  EXPECT_NEAR(result.values(0).score(), of_a, 1e-6);
  EXPECT_NEAR(result.values(0).centred() + result.values(1).centred(), 0, 1e-12);
  EXPECT_EQ(result.values(0).num_items(), 3);
}

TEST_F(Evaluations, WhatIsWrongWithATaggedResponseIsNamed) {
  const auto refused = [&](const std::string& field,
                           const std::function<void(v1::ScoreTaggedResponsesRequest&)>& change) {
    v1::ScoreTaggedResponsesRequest request = Tagged(4);
    change(request);
    EXPECT_EQ(FieldOf(request), field);
  };
  refused("responses[2].query", [](auto& r) { r.mutable_responses(2)->clear_query(); });
  refused("responses[2].response", [](auto& r) { r.mutable_responses(2)->clear_response(); });
  refused("responses[2].weights",
          [](auto& r) { *r.mutable_responses(2)->add_weights() = r.responses(2).weights(0); });
  refused("responses[2].weights",
          [](auto& r) { r.mutable_responses(2)->mutable_weights(0)->set_weight(NAN); });
  refused("templates[1]", [](auto& r) { r.set_templates(1, "query"); });
  refused("templates[1]", [](auto& r) { r.set_templates(1, r.templates(0)); });
  refused("min_weight", [](auto& r) { r.set_min_weight(-1); });
  refused("min_weight", [](auto& r) { r.set_min_weight(1.5); });
  refused("responses", [](auto& r) {
    for (v1::TaggedResponse& one : *r.mutable_responses()) one.clear_weights();
  });
}

// --- Jobs ----------------------------------------------------------------------------------------

v1::JobSpec SpecOf(const v1::AskQuestionnaireRequest& request) {
  v1::JobSpec spec;
  *spec.mutable_ask_questionnaire() = request;
  return spec;
}

TEST_F(Evaluations, AJobSaysWhatACallSays) {
  const v1::AskQuestionnaireRequest request = Questionnaire(50);
  const v1::AskQuestionnaireResponse call = Ask(request);
  v1::JobSpec choices, tagged;
  *choices.mutable_answer_choices() = Choices(50);
  *tagged.mutable_score_tagged_responses() = Tagged(50);
  v1::AnswerChoicesResponse answered;
  ASSERT_EQ(site.evaluation.AnswerChoices(site.context, Choices(50), &answered), absl::OkStatus());
  v1::ScoreTaggedResponsesResponse scored;
  ASSERT_EQ(site.evaluation.ScoreTaggedResponses(site.context, Tagged(50), &scored),
            absl::OkStatus());
  site.StartWorker();
  const v1::Job job = site.Await(*site.Create(SpecOf(request)));
  ASSERT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED) << job.error().message();
  EXPECT_EQ(job.progress().total(), 50);
  EXPECT_EQ(job.progress().unit(), "items");
  const auto& results = job.result().summary().fields().at("results").list_value();
  EXPECT_EQ(results.values(1).struct_value().fields().at("mean").number_value(),
            call.results(1).mean());
  EXPECT_FALSE(results.values(1).struct_value().fields().contains("items"));
  EXPECT_EQ(SmallSite::Artifacts(job).size(), 1u);
  const v1::Job of_choices = site.Await(*site.Create(choices));
  ASSERT_EQ(of_choices.state(), v1::JOB_STATE_SUCCEEDED) << of_choices.error().message();
  const auto first = [](const v1::Job& of) {
    return of.result().summary().fields().at("results").list_value().values(0).struct_value();
  };
  EXPECT_EQ(first(of_choices).fields().at("brier_score").number_value(),
            answered.results(0).brier_score());
  const v1::Job of_tagged = site.Await(*site.Create(tagged));
  ASSERT_EQ(of_tagged.state(), v1::JOB_STATE_SUCCEEDED) << of_tagged.error().message();
  EXPECT_EQ(first(of_tagged).fields().at("values").list_value().values_size(),
            scored.results(0).values_size());
}

// Of 700 items, 32 in a chunk and 256 in a shard, each with two conditions and two orders.
class EvaluationsCutAt : public Evaluations, public testing::WithParamInterface<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Submissions, EvaluationsCutAt, testing::Values(150, 1100, 2700));

TEST_P(EvaluationsCutAt, AResumeGivesTheSameBytesAndRepeatsNoChunkThatWasCommitted) {
  constexpr int kItems = 700;
  constexpr int64_t kPasses = 4 * kItems, kChunk = 128;
  v1::AskQuestionnaireRequest request = Questionnaire(kItems);
  request.set_max_answer_tokens(2);
  site.StartWorker();
  const v1::Job whole = site.Await(*site.Create(SpecOf(request)));
  ASSERT_EQ(whole.state(), v1::JOB_STATE_SUCCEEDED) << whole.error().message();
  EXPECT_EQ(whole.progress().shards_total(), 3);

  const CutJob cut =
      CutAndResume([&](SmallSite&) { return SpecOf(request); }, GetParam(), {.scale = .01});
  ASSERT_EQ(cut.job.state(), v1::JOB_STATE_SUCCEEDED) << cut.job.error().message();
  EXPECT_EQ(SmallSite::Artifacts(cut.job), SmallSite::Artifacts(whole));
  EXPECT_EQ(services::DeterministicBytes(cut.job.result().summary()),
            services::DeterministicBytes(whole.result().summary()));
  EXPECT_LE(cut.before + cut.after, kPasses + kChunk);
  EXPECT_LT(cut.after, kPasses);
}

TEST_F(Evaluations, ReceiptsAreSummedOverItemsAndOrdersOfACondition) {
  site.engine->receipts = {{.intervention_index = 0, .layers = {1}, .positions = 2}};
  const v1::AskQuestionnaireResponse response = Ask(Questionnaire(50));
  for (const v1::QuestionnaireResult& result : response.results()) {
    ASSERT_EQ(result.receipts_size(), 1);
    EXPECT_EQ(result.receipts(0).positions(), 2 * 2 * 50);
    EXPECT_THAT(result.receipts(0).layers(), ElementsAre(1));
  }
}

TEST_F(Evaluations, WhatIsTooMuchForACallIsAJob) {
  v1::AskQuestionnaireRequest request = Questionnaire(30);
  request.clear_conditions();
  for (int i = 0; i < 64; ++i) request.add_conditions();
  request.set_max_answer_tokens(256);
  v1::AskQuestionnaireResponse response;
  const absl::Status status = site.evaluation.AskQuestionnaire(site.context, request, &response);
  EXPECT_EQ(DetailsOf(status).reason, "USE_A_JOB") << status;
  EXPECT_EQ(site.engine->submitted, 0);
}

TEST_F(Evaluations, WhatWouldNotBeKeptIsRefusedBeforeAnythingRuns) {
  site.engine->most_kept = 100;
  v1::AskQuestionnaireResponse response;
  EXPECT_EQ(site.evaluation.AskQuestionnaire(site.context, Questionnaire(9), &response).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(site.engine->submitted, 0);
}

TEST_F(Evaluations, WhatIsStoredWithAJobIsReadBackOrIsDataLoss) {
  const std::string name = *site.Create(SpecOf(Questionnaire(3)));
  const auto job = site.store->GetJob("lab", name.substr(name.find('/') + 1));
  services::Kind& kind = site.registry.Get("ask_questionnaire");
  const auto work = kind.Open("lab", job->spec);
  ASSERT_TRUE(work.ok()) << work.status();
  EXPECT_EQ((*work)->extent().units, 3);
  EXPECT_EQ((*work)->Save(*site.blobs)->spec, job->spec);
  const auto code = [&](const std::function<void(SavedWork&)>& change) {
    SavedWork record;
    EXPECT_TRUE(record.ParseFromString(job->spec));
    change(record);
    return kind.Open("lab", services::DeterministicBytes(record)).status().code();
  };
  EXPECT_EQ(code([](SavedWork& r) { r.set_num_responses(4); }), absl::StatusCode::kDataLoss);
  EXPECT_EQ(code([](SavedWork& r) { r.set_format_version(9); }), absl::StatusCode::kDataLoss);
  EXPECT_EQ(code([](SavedWork& r) { r.mutable_evaluation()->set_num_forms(1); }),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(code([](SavedWork& r) { r.mutable_evaluation()->clear_conditions(); }),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(code([](SavedWork& r) {
              r.mutable_evaluation()->mutable_conditions(1)->set_system_message(1);
            }),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(code([](SavedWork& r) { r.mutable_ask_questionnaire()->clear_options(); }),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(code([](SavedWork& r) { r.mutable_answer_choices(); }), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace valuescope::kinds
