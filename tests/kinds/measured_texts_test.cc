// Measures of texts as a job: what a call says, cut and resumed anywhere.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "base/error.h"
#include "services/idempotency.h"
#include "tests/kinds/cut_job.h"
#include "tests/kinds/small_site.h"

namespace valuescope::kinds {
namespace {

constexpr int kTexts = 2200;  // two shards
constexpr int kEmpty = kTexts / 20;

// Of two conditions; every twentieth text is empty.
v1::MeasureTextsRequest RequestOf(int count) {
  v1::MeasureTextsRequest request;
  request.set_model("models/tiny");
  request.set_perplexity(true);
  request.set_self_bleu_texts(50);
  request.add_refusal_phrases("h*");
  request.add_instructions()->set_max_words(1);
  for (int i = 0; i < count; ++i) {
    v1::LabelledResponse& response = *request.add_responses();
    response.mutable_prompt()->mutable_token_ids()->add_ids(1);
    response.set_condition(i % 3 == 0 ? "steered" : "");
    auto& ids = *response.mutable_response()->mutable_token_ids();
    for (int k = 0; k < i % 20; ++k) ids.add_ids(40 + (i * k + k * k) % (5 + i % 40));
  }
  return request;
}

v1::JobSpec SpecOf(const v1::MeasureTextsRequest& request) {
  v1::JobSpec spec;
  *spec.mutable_measure_texts() = request;
  return spec;
}

TEST(MeasureTextsKind, AJobSaysWhatACallSays) {
  constexpr int kFew = 200;
  TemporaryFolder folder;
  SmallSite site(folder);
  const v1::MeasureTextsRequest request = RequestOf(kFew);
  v1::MeasureTextsResponse call;
  ASSERT_EQ(site.evaluation.MeasureTexts(site.context, request, &call), absl::OkStatus());
  // One that is empty is not run.
  EXPECT_EQ(site.engine->submitted, kFew - kFew / 20);
  ASSERT_EQ(call.measures_size(), 2);
  const v1::TextMeasures& others = call.measures(1);
  EXPECT_EQ(call.measures(0).condition(), "steered");
  EXPECT_EQ(others.condition(), "");
  EXPECT_EQ(others.num_texts(), 133);
  EXPECT_EQ(others.vocabulary(), 100);
  EXPECT_EQ(others.self_bleu_texts(), 50);
  double sum = 0;
  int64_t tokens = 0, run = 0;
  for (const v1::LabelledResponse& response : request.responses()) {
    const auto& ids = response.response().token_ids().ids();
    if (!ids.empty()) run += 1 + ids.size();
    if (response.condition() != "") continue;
    tokens += ids.size();
    for (const int32_t id : ids) sum += id / 64.;
  }
  EXPECT_NEAR(others.perplexity(), std::exp(sum / static_cast<double>(tokens)), 1e-12);
  EXPECT_EQ(call.usage().prompt_tokens(), run);
  EXPECT_EQ(call.digests_size(), 2);  // the model, the responses
  site.StartWorker();
  const v1::Job job = site.Await(*site.Create(SpecOf(request)));
  ASSERT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED) << job.error().message();
  EXPECT_EQ(job.progress().unit(), "texts");
  EXPECT_EQ(job.progress().total(), kFew);
  const auto& told = job.result().summary().fields().at("measures").list_value();
  ASSERT_EQ(told.values_size(), 2);
  const auto& fields = told.values(1).struct_value().fields();
  EXPECT_EQ(fields.at("perplexity").number_value(), others.perplexity());
  EXPECT_EQ(fields.at("self_bleu").number_value(), others.self_bleu());
  EXPECT_EQ(fields.at("refusal_rate").number_value(), others.refusal_rate());
  EXPECT_EQ(job.result().digests_size(), call.digests_size());
}

class MeasuredTextsCutAt : public testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Submissions, MeasuredTextsCutAt,
                         testing::Values(100, 2000, kTexts - kEmpty - 5));

TEST_P(MeasuredTextsCutAt, AResumeGivesTheSameBytesAndRepeatsNoChunkThatWasCommitted) {
  TemporaryFolder undisturbed_folder;
  SmallSite undisturbed(undisturbed_folder);
  undisturbed.StartWorker();
  const v1::Job whole = undisturbed.Await(*undisturbed.Create(SpecOf(RequestOf(kTexts))));
  ASSERT_EQ(whole.state(), v1::JOB_STATE_SUCCEEDED) << whole.error().message();
  EXPECT_EQ(whole.progress().shards_total(), 2);

  const CutJob cut = CutAndResume([](SmallSite&) { return SpecOf(RequestOf(kTexts)); }, GetParam());
  ASSERT_EQ(cut.job.state(), v1::JOB_STATE_SUCCEEDED) << cut.job.error().message();
  EXPECT_EQ(SmallSite::Artifacts(cut.job), SmallSite::Artifacts(whole));
  EXPECT_EQ(services::DeterministicBytes(cut.job.result().summary()),
            services::DeterministicBytes(whole.result().summary()));
  constexpr int64_t kChunk = 64;
  EXPECT_LE(cut.before + cut.after, kTexts - kEmpty + kChunk);
  EXPECT_LT(cut.after, kTexts - kEmpty);
}

TEST(MeasureTextsKind, WithoutPerplexityNothingRunsAndPromptsAreNotLookedAt) {
  TemporaryFolder folder;
  SmallSite site(folder);
  v1::MeasureTextsRequest request = RequestOf(100);
  request.clear_perplexity();
  for (v1::LabelledResponse& response : *request.mutable_responses()) response.clear_prompt();
  v1::MeasureTextsResponse response;
  ASSERT_EQ(site.evaluation.MeasureTexts(site.context, request, &response), absl::OkStatus());
  EXPECT_EQ(site.engine->submitted, 0);
  EXPECT_FALSE(response.measures(0).has_perplexity());
  request.set_perplexity(true);
  EXPECT_EQ(DetailsOf(site.evaluation.MeasureTexts(site.context, request, &response)).field,
            "responses[0].prompt");
}

TEST(MeasureTextsKind, IdsAreReadAsTheTextThatTheySpell) {
  TemporaryFolder folder;
  SmallSite site(folder);
  v1::MeasureTextsRequest request;
  request.set_model("models/tiny");
  request.add_refusal_phrases("JKL");
  // Of the byte-level vocabulary.
  auto& ids = *request.add_responses()->mutable_response()->mutable_token_ids();
  for (const char letter : std::string("JKL")) ids.add_ids(letter);
  request.add_responses()->mutable_response()->set_text("JKL");
  v1::MeasureTextsResponse response;
  ASSERT_EQ(site.evaluation.MeasureTexts(site.context, request, &response), absl::OkStatus());
  EXPECT_EQ(response.measures(0).refusal_rate(), 1);
  EXPECT_EQ(response.measures(0).diversity(0).num_distinct(), 3);
  EXPECT_EQ(response.measures(0).self_bleu(), 1);
}

TEST(MeasureTextsKind, WhatIsStoredWithAJobIsReadBackOrIsDataLoss) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const std::string name = *site.Create(SpecOf(RequestOf(30)));
  const auto job = site.store->GetJob("lab", name.substr(name.find('/') + 1));
  services::Kind& kind = site.registry.Get("measure_texts");
  const auto work = kind.Open("lab", job->spec);
  ASSERT_TRUE(work.ok()) << work.status();
  EXPECT_EQ((*work)->extent().units, 30);
  EXPECT_EQ((*work)->Save(*site.blobs)->spec, job->spec);
  SavedWork more, tokens;
  ASSERT_TRUE(more.ParseFromString(job->spec) && tokens.ParseFromString(job->spec));
  more.set_num_responses(31);
  tokens.clear_as_texts();
  for (const std::string& damaged : {more.SerializeAsString(), tokens.SerializeAsString(),
                                     std::string(), job->spec.substr(0, job->spec.size() / 2)}) {
    EXPECT_EQ(kind.Open("lab", damaged).status().code(), absl::StatusCode::kDataLoss);
  }
}

TEST(MeasureTextsKind, WhatNeverFitsIsRefusedBeforeAnythingRuns) {
  TemporaryFolder folder;
  SmallSite site(folder);
  v1::MeasureTextsResponse response;
  EXPECT_EQ(
      DetailsOf(site.evaluation.MeasureTexts(site.context, RequestOf(2001), &response)).reason,
      "USE_A_JOB");
  site.engine->most_kept = 1000;
  EXPECT_EQ(DetailsOf(site.evaluation.MeasureTexts(site.context, RequestOf(99), &response)).reason,
            "CAPTURES_TOO_LARGE");
  EXPECT_EQ(DetailsOf(site.Create(SpecOf(RequestOf(99))).status()).reason, "CAPTURES_TOO_LARGE");
  EXPECT_EQ(site.engine->submitted, 0);
}

}  // namespace
}  // namespace valuescope::kinds
