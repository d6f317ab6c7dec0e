// Labels of responses as a job: what a call says, cut and resumed anywhere.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/error.h"
#include "nlohmann/json.hpp"
#include "services/idempotency.h"
#include "tests/kinds/small_site.h"

namespace valuescope::kinds {
namespace {

constexpr int kResponses = 1100;  // two shards

// Words judge; every seventh is empty.
v1::JudgeResponsesRequest RequestOf(int count) {
  v1::JudgeResponsesRequest request;
  request.mutable_judge()->mutable_word_list()->add_words("w1*");
  for (int i = 0; i < count; ++i) {
    v1::LabelledResponse& response = *request.add_responses();
    response.mutable_prompt()->set_text("Q");
    response.mutable_response()->set_text(i % 7 == 0 ? "" : absl::StrCat("w", i));
    response.set_query_id(absl::StrCat(i / 2));
    response.set_condition(i % 2 == 0 ? "even" : "odd");
  }
  return request;
}

v1::JobSpec SpecOf(const v1::JudgeResponsesRequest& request) {
  v1::JobSpec spec;
  *spec.mutable_judge_responses() = request;
  return spec;
}

bool IsExpressing(int i) { return i % 7 != 0 && absl::StrCat(i)[0] == '1'; }

std::vector<nlohmann::json> LinesOf(SmallSite& site, const v1::Job& job) {
  const std::string bytes =
      *store::ReadBlob(*site.blobs, SmallSite::Artifacts(job).at("responses"), 1 << 20);
  std::vector<nlohmann::json> lines;
  for (const absl::string_view line : absl::StrSplit(bytes, '\n', absl::SkipEmpty())) {
    lines.push_back(nlohmann::json::parse(line.begin(), line.end()));
  }
  return lines;
}

TEST(JudgeResponsesKind, ACallLabelsWithoutAnyModel) {
  TemporaryFolder folder;
  SmallSite site(folder);
  v1::JudgeResponsesResponse call;
  ASSERT_EQ(site.evaluation.JudgeResponses(site.context, RequestOf(200), &call), absl::OkStatus());
  ASSERT_EQ(call.judgements_size(), 200);
  int expressing = 0;
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(call.judgements(i).expresses(), IsExpressing(i)) << i;
    EXPECT_FALSE(call.judgements(i).has_probability());
    expressing += IsExpressing(i);
  }
  EXPECT_DOUBLE_EQ(call.expressing_share(), expressing / 200.);
  EXPECT_FALSE(call.has_label_mass());
  EXPECT_EQ(call.digests_size(), 1);
  EXPECT_EQ(site.engine->submitted, 0);
}

TEST(JudgeResponsesKind, AJobGivesTheDataSetBackWithItsLabels) {
  TemporaryFolder folder;
  SmallSite site(folder);
  site.StartWorker();
  const v1::JudgeResponsesRequest request = RequestOf(kResponses);
  const v1::Job job = site.Await(*site.Create(SpecOf(request)));
  ASSERT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED) << job.error().message();
  EXPECT_EQ(job.progress().total(), kResponses);
  EXPECT_EQ(job.progress().shards_total(), 2);
  EXPECT_TRUE(job.waiting_for().empty());
  const std::vector<nlohmann::json> lines = LinesOf(site, job);
  ASSERT_EQ(lines.size(), kResponses);
  for (int i = 0; i < kResponses; ++i) {
    const nlohmann::json& line = lines[static_cast<size_t>(i)];
    EXPECT_EQ(line["expresses"], IsExpressing(i));
    EXPECT_EQ(line["prompt"]["text"], "Q");
    EXPECT_EQ(line["query_id"], request.responses(i).query_id());
    EXPECT_EQ(line["condition"], request.responses(i).condition());
  }
  // The head of the result is small, whatever the data set is.
  EXPECT_FALSE(job.result().summary().fields().contains("judgements"));
  EXPECT_EQ(job.result().summary().fields().at("num_responses").number_value(), kResponses);
}

TEST(JudgeResponsesKind, AShardGoesOnWhereItWasCut) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const std::string name = *site.Create(SpecOf(RequestOf(kResponses)));
  const auto job = site.store->GetJob("lab", name.substr(name.find('/') + 1));
  services::Kind& kind = site.registry.Get("judge_responses");
  const auto whole = *kind.Open("lab", job->spec), cut = *kind.Open("lab", job->spec);
  const Cancellation cancellation;
  const auto one = *whole->Begin(64);
  ASSERT_EQ(whole->RunChunk({0, 32}, cancellation, *one), absl::OkStatus());
  const std::string half = one->Serialize();
  ASSERT_EQ(whole->RunChunk({32, 64}, cancellation, *one), absl::OkStatus());
  const auto other = *cut->Parse(half, 32, 64);
  ASSERT_EQ(cut->RunChunk({32, 64}, cancellation, *other), absl::OkStatus());
  EXPECT_EQ(other->Serialize(), one->Serialize());
  EXPECT_EQ(cut->Parse(half, 31, 64).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(cut->Parse("damaged", 32, 64).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(cut->Save(*site.blobs)->spec, job->spec);
  EXPECT_EQ(kind.Open("lab", "").status().code(), absl::StatusCode::kDataLoss);
}

TEST(JudgeResponsesKind, IdsAreReadByTheModelThatIsNamed) {
  TemporaryFolder folder;
  SmallSite site(folder);
  v1::JudgeResponsesRequest request;
  request.mutable_judge()->mutable_word_list()->add_words("jkl");
  v1::LabelledResponse& response = *request.add_responses();
  response.mutable_prompt()->set_text("Q");
  for (const char letter : std::string("JKL")) {
    response.mutable_response()->mutable_token_ids()->add_ids(letter);
  }
  v1::JudgeResponsesResponse judged;
  const absl::Status unread = site.evaluation.JudgeResponses(site.context, request, &judged);
  EXPECT_EQ(DetailsOf(unread).field, "model") << unread;
  request.set_model("models/tiny");
  ASSERT_EQ(site.evaluation.JudgeResponses(site.context, request, &judged), absl::OkStatus());
  EXPECT_TRUE(judged.judgements(0).expresses());
}

TEST(JudgeResponsesKind, WhatIsWrongNamesItsField) {
  TemporaryFolder folder;
  SmallSite site(folder);
  v1::JudgeResponsesResponse judged;
  const auto field = [&](const v1::JudgeResponsesRequest& request) {
    return DetailsOf(site.evaluation.JudgeResponses(site.context, request, &judged)).field;
  };
  v1::JudgeResponsesRequest request = RequestOf(2);
  request.clear_how();
  EXPECT_EQ(field(request), "judge");
  request = RequestOf(2);
  request.mutable_judge()->mutable_word_list()->add_words("*");
  EXPECT_EQ(field(request), "judge.word_list.words[1]");
  request = RequestOf(2);
  request.mutable_responses(1)->clear_response();
  EXPECT_EQ(field(request), "responses[1].response");
  request = RequestOf(2);
  v1::Message& message =
      *request.mutable_responses(0)->mutable_prompt()->mutable_chat()->add_messages();
  message.set_role("system");
  EXPECT_EQ(field(request), "responses[0].prompt.chat.messages");
  EXPECT_EQ(
      DetailsOf(site.evaluation.JudgeResponses(site.context, RequestOf(2001), &judged)).reason,
      "USE_A_JOB");
}

}  // namespace
}  // namespace valuescope::kinds
