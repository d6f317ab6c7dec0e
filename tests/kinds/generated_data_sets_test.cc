// Responses that a job generates for others to read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/error.h"
#include "kinds/generated_responses.h"
#include "nlohmann/json.hpp"
#include "services/idempotency.h"
#include "tests/kinds/cut_job.h"
#include "tests/kinds/small_site.h"

namespace valuescope::kinds {
namespace {

constexpr int kQueries = 20, kConditions = 2, kSamples = 3;
constexpr int kUnits = kQueries * kConditions * kSamples;  // four shards

v1::GenerateResponsesSpec Generating() {
  v1::GenerateResponsesSpec spec;
  spec.set_model("models/tiny");
  for (int i = 0; i < kQueries; ++i) spec.add_queries(absl::StrCat("Q", i));
  spec.add_conditions()->set_name("plain");
  spec.add_conditions()->set_system_message("S");
  spec.set_samples_per_query(kSamples);
  spec.mutable_sampling()->set_max_tokens(4);
  spec.mutable_sampling()->set_seed(5);
  return spec;
}

v1::JobSpec SpecOf(const v1::GenerateResponsesSpec& generating) {
  v1::JobSpec spec;
  *spec.mutable_generate_responses() = generating;
  return spec;
}

v1::Job Finished(SmallSite& site, const v1::GenerateResponsesSpec& generating) {
  const auto name = site.Create(SpecOf(generating));
  EXPECT_TRUE(name.ok()) << name.status();
  const v1::Job job = site.Await(*name);
  EXPECT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED) << job.error().message();
  return job;
}

std::vector<nlohmann::json> LinesOf(SmallSite& site, const v1::Job& job) {
  for (const v1::JobArtifact& artifact : job.result().artifacts()) {
    if (artifact.role() != "responses") continue;
    const std::string bytes = *store::ReadBlob(*site.blobs, artifact.sha256(), 1 << 20);
    std::vector<nlohmann::json> lines;
    for (const absl::string_view line : absl::StrSplit(bytes, '\n', absl::SkipEmpty())) {
      lines.push_back(nlohmann::json::parse(line.begin(), line.end()));
    }
    return lines;
  }
  return {};
}

TEST(GenerateResponsesKind, LinesAreByQueryConditionAndSampleAndDrawnByTheirSeeds) {
  TemporaryFolder folder;
  SmallSite site(folder);
  site.StartWorker();
  const v1::Job job = Finished(site, Generating());
  EXPECT_EQ(job.progress().total(), kUnits);
  EXPECT_EQ(job.progress().shards_total(), 4);
  EXPECT_EQ(job.progress().unit(), "responses");
  EXPECT_EQ(site.engine->submitted, kUnits);
  const std::vector<nlohmann::json> lines = LinesOf(site, job);
  ASSERT_EQ(lines.size(), kUnits);
  int64_t empty = 0, tokens = 0;
  for (int unit = 0; unit < kUnits; ++unit) {
    const nlohmann::json& line = lines[static_cast<size_t>(unit)];
    const int q = unit / (kConditions * kSamples), c = unit / kSamples % kConditions;
    const uint64_t seed = SeedOf(SeedOf(SeedOf(5, c), q), unit % kSamples);
    // As the engine draws.
    std::vector<int> ids;
    if (seed % 7 != 0) {
      for (const uint64_t number : {7, 89, 83, 79}) ids.push_back(static_cast<int>(seed % number));
    }
    const auto& response = line["response"]["token_ids"];
    EXPECT_EQ(response.value("ids", std::vector<int>()), ids) << unit;
    EXPECT_EQ(line["condition"], c == 0 ? "plain" : "1");
    EXPECT_EQ(line["query_id"], absl::StrCat(q));
    EXPECT_FALSE(line.contains("expresses"));
    const auto& messages = line["prompt"]["chat"]["messages"];
    ASSERT_EQ(messages.size(), c == 0 ? 1u : 2u);
    EXPECT_EQ(messages.back()["content"], absl::StrCat("Q", q));
    empty += c == 0 && ids.empty();
    tokens += c == 0 ? static_cast<int64_t>(ids.size()) : 0;
  }
  EXPECT_GT(empty, 0);
  const auto& counts = job.result().summary().fields().at("conditions").list_value().values(0);
  const auto& plain = counts.struct_value().fields();
  EXPECT_EQ(plain.at("num_responses").number_value(), kUnits / 2);
  EXPECT_EQ(plain.at("num_empty").number_value(), empty);
  EXPECT_EQ(plain.at("num_tokens").number_value(), tokens);
}

TEST(GenerateResponsesKind, AJudgeLabelsAndOtherKindsReadTheDataSet) {
  TemporaryFolder folder;
  SmallSite site(folder);
  site.StartWorker();
  v1::GenerateResponsesSpec spec = Generating();
  spec.mutable_judge()->mutable_word_list()->add_words("t1*");
  const v1::Job job = Finished(site, spec);
  int64_t expressing = 0;
  for (const nlohmann::json& line : LinesOf(site, job)) {
    bool expresses = false;
    for (const int id : line["response"]["token_ids"].value("ids", std::vector<int>())) {
      expresses = expresses || std::to_string(id)[0] == '1';
    }
    EXPECT_EQ(line["expresses"], expresses) << line;
    expressing += expresses;
  }
  EXPECT_GT(expressing, 0);
  v1::MeasureTextsRequest measure;
  measure.set_model("models/tiny");
  measure.set_perplexity(true);
  v1::ExtractVectorsRequest extract;
  extract.set_model("models/tiny");
  for (const v1::JobArtifact& artifact : job.result().artifacts()) {
    if (artifact.role() != "responses") continue;
    measure.set_artifact(artifact.artifact());
    extract.set_artifact(artifact.artifact());
  }
  v1::MeasureTextsResponse measured;
  ASSERT_EQ(site.evaluation.MeasureTexts(site.context, measure, &measured), absl::OkStatus());
  EXPECT_EQ(measured.measures_size(), kConditions);
  EXPECT_EQ(measured.measures(0).condition(), "plain");
  EXPECT_GT(measured.measures(0).num_empty(), 0);
  v1::ExtractVectorsResponse extracted;
  ASSERT_EQ(site.vectors.ExtractVectors(site.context, extract, &extracted), absl::OkStatus());
  EXPECT_EQ(extracted.vector().provenance().num_expressing(), expressing);
}

TEST(GenerateResponsesKind, ACutAndAResumeGiveTheSameBytesAndRepeatNoShardThatWasCommitted) {
  TemporaryFolder undisturbed_folder;
  SmallSite undisturbed(undisturbed_folder);
  undisturbed.StartWorker();
  const v1::Job whole = Finished(undisturbed, Generating());

  const CutJob cut =
      CutAndResume([](SmallSite&) { return SpecOf(Generating()); }, /*submissions=*/70);
  ASSERT_EQ(cut.job.state(), v1::JOB_STATE_SUCCEEDED) << cut.job.error().message();
  EXPECT_EQ(SmallSite::Artifacts(cut.job), SmallSite::Artifacts(whole));
  EXPECT_EQ(services::DeterministicBytes(cut.job.result().summary()),
            services::DeterministicBytes(whole.result().summary()));
  EXPECT_LE(cut.before + cut.after, kUnits + 2 * kGeneratedPerShard);
  EXPECT_LT(cut.after, kUnits);
}

TEST(GenerateResponsesKind, WhatIsStoredWithAJobIsReadBackOrIsDataLoss) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const std::string name = *site.Create(SpecOf(Generating()));
  const auto job = site.store->GetJob("lab", name.substr(name.find('/') + 1));
  EXPECT_EQ(site.engine->submitted, 0);
  services::Kind& kind = site.registry.Get("generate_responses");
  const auto work = kind.Open("lab", job->spec);
  ASSERT_TRUE(work.ok()) << work.status();
  EXPECT_EQ((*work)->extent().units, kUnits);
  EXPECT_EQ((*work)->Save(*site.blobs)->spec, job->spec);
  for (const std::string& damaged : {std::string(), job->spec.substr(0, job->spec.size() / 2)}) {
    EXPECT_EQ(kind.Open("lab", damaged).status().code(), absl::StatusCode::kDataLoss);
  }
}

TEST(GenerateResponsesKind, WhatIsWrongNamesItsField) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const auto field = [&site](const std::function<void(v1::GenerateResponsesSpec&)>& change) {
    v1::GenerateResponsesSpec spec = Generating();
    change(spec);
    return DetailsOf(site.Create(SpecOf(spec)).status()).field;
  };
  const std::string prefix = "spec.generate_responses.";
  EXPECT_EQ(field([](auto& spec) { spec.clear_queries(); }), prefix + "queries");
  EXPECT_EQ(field([](auto& spec) { spec.set_queries(3, ""); }), prefix + "queries[3]");
  EXPECT_EQ(field([](auto& spec) { spec.set_samples_per_query(65); }),
            prefix + "samples_per_query");
  EXPECT_EQ(field([](auto& spec) { spec.mutable_conditions(0)->set_name("1"); }),
            prefix + "conditions[1].name");
  EXPECT_EQ(field([](auto& spec) { spec.mutable_conditions(1)->set_system_message("<s>"); }),
            prefix + "conditions[1].system_message");
  EXPECT_THAT(field([](auto& spec) { spec.mutable_conditions(1)->add_interventions(); }),
              testing::StartsWith(prefix + "conditions[1].interventions[0]"));
  EXPECT_EQ(field([](auto& spec) { spec.mutable_judge(); }), prefix + "judge");
  EXPECT_EQ(field([](auto& spec) {
              for (int i = 0; i < 63; ++i) spec.add_conditions()->set_name(absl::StrCat("c", i));
            }),
            prefix + "conditions");
}

}  // namespace
}  // namespace valuescope::kinds
