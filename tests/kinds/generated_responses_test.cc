// Extraction from responses that are generated first, through the services, real stores and a real
// worker, over an engine whose tokens follow from seeds.
#include "kinds/generated_responses.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/error.h"
#include "nlohmann/json.hpp"
#include "services/idempotency.h"
#include "tests/kinds/cut_job.h"
#include "tests/kinds/extraction_jobs.h"
#include "tests/kinds/small_site.h"

namespace valuescope::kinds {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

// 160 units: more shards than one, and some of them empty. Texts are of bytes below 100, which the
// engine has tokens for.
v1::ExtractVectorsRequest Generated() {
  v1::ExtractVectorsRequest request;
  request.set_model("models/tiny");
  v1::GeneratedResponses& generated = *request.mutable_generated();
  for (int i = 0; i < 20; ++i) generated.add_queries(absl::StrCat("Q", i));
  generated.add_conditions();
  generated.add_conditions()->add_system_messages("S");
  generated.set_samples_per_query(4);
  generated.mutable_judge()->mutable_word_list()->add_words("t1*");
  generated.mutable_sampling()->set_max_tokens(4);
  generated.mutable_sampling()->set_seed(5);
  return request;
}
constexpr int kUnits = 160;

// Of an artifact.
std::vector<nlohmann::json> LinesOf(SmallSite& site, const std::string& artifact) {
  const std::string bytes = BytesOf(site, artifact);
  std::vector<nlohmann::json> lines;
  for (const absl::string_view line : absl::StrSplit(bytes, '\n', absl::SkipEmpty())) {
    lines.push_back(nlohmann::json::parse(line.begin(), line.end()));
  }
  return lines;
}

TEST(GeneratedResponses, AJobMakesTheVectorOfTheCallToTheBit) {
  TemporaryFolder folder;
  SmallSite site(folder);
  v1::ExtractVectorsResponse call;
  ASSERT_EQ(site.vectors.ExtractVectors(site.context, Generated(), &call), absl::OkStatus());
  site.StartWorker();
  const std::string name = *site.Create(SpecOf(Generated()));
  const v1::Job job = site.Await(name);
  ASSERT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED) << job.error().message();
  EXPECT_THAT(job.result().vectors(), ElementsAre(call.vector().name()));
  EXPECT_EQ(job.progress().total(), kUnits);
  EXPECT_EQ(job.progress().shards_total(), 5);
  EXPECT_EQ(LinesOf(site, absl::StrCat("artifacts/", IdOf(name), ".responses")),
            LinesOf(site, call.responses_artifact()));
}

// Unlike an extraction's other inputs, they are not there yet.
TEST(GeneratedResponses, NothingRunsBeforeTheJobDoes) {
  TemporaryFolder folder;
  SmallSite site(folder);
  ASSERT_TRUE(site.Create(SpecOf(Generated())).ok());
  EXPECT_EQ(site.engine->submitted, 0);
}

TEST(GeneratedResponses, TheEmptyOnesAreDroppedAndCountedAndHaveNoMeans) {
  TemporaryFolder folder;
  SmallSite site(folder);
  v1::ExtractVectorsResponse call;
  ASSERT_EQ(site.vectors.ExtractVectors(site.context, Generated(), &call), absl::OkStatus());
  int64_t empty = 0;
  for (int q = 0; q < 20; ++q) {
    for (int c = 0; c < 2; ++c) {
      for (int k = 0; k < 4; ++k) empty += SeedOf(SeedOf(SeedOf(5, c), q), k) % 7 == 0;
    }
  }
  ASSERT_GT(empty, 0);
  EXPECT_EQ(call.num_dropped(), empty);
  EXPECT_EQ(LinesOf(site, call.responses_artifact()).size(), kUnits - empty);
  EXPECT_EQ(site.engine->submitted, kUnits + kUnits - empty);
  EXPECT_EQ(call.usage().generated_tokens(), 4 * (kUnits - empty));
}

TEST(GeneratedResponses, TheArtifactGivesTheSameRowsAndStatistics) {
  TemporaryFolder folder;
  SmallSite site(folder);
  v1::ExtractVectorsResponse made, again;
  ASSERT_EQ(site.vectors.ExtractVectors(site.context, Generated(), &made), absl::OkStatus());
  v1::ExtractVectorsRequest request;
  request.set_model("models/tiny");
  request.set_artifact(made.responses_artifact());
  ASSERT_EQ(site.vectors.ExtractVectors(site.context, request, &again), absl::OkStatus());
  EXPECT_EQ(again.vector().data().data(), made.vector().data().data());
  ASSERT_GT(made.statistics_size(), 0);
  for (int i = 0; i < made.statistics_size(); ++i) {
    EXPECT_EQ(services::DeterministicBytes(again.statistics(i)),
              services::DeterministicBytes(made.statistics(i)));
  }
  const auto input = [](const v1::ExtractVectorsResponse& of, absl::string_view name) {
    for (const v1::ResourceDigest& one : of.vector().provenance().inputs()) {
      if (one.name() == name) return one.digest();
    }
    return std::string();
  };
  for (const char* name : {"responses", "data set"}) {
    EXPECT_EQ(input(again, name), input(made, name)) << name;
  }
}

TEST(GeneratedResponses, WordsOfTheGeneratedTextLabel) {
  TemporaryFolder folder;
  SmallSite site(folder);
  v1::ExtractVectorsResponse call;
  ASSERT_EQ(site.vectors.ExtractVectors(site.context, Generated(), &call), absl::OkStatus());
  for (const nlohmann::json& line : LinesOf(site, call.responses_artifact())) {
    bool expresses = false;
    for (const int id : line["response"]["token_ids"]["ids"]) {
      expresses = expresses || std::to_string(id)[0] == '1';
    }
    EXPECT_EQ(line["expresses"], expresses) << line;
  }
}

TEST(GeneratedResponses, ACutAndAResumeGiveTheSameBytesAndRepeatNoShardThatWasCommitted) {
  TemporaryFolder undisturbed_folder;
  SmallSite undisturbed(undisturbed_folder);
  undisturbed.StartWorker();
  const v1::Job whole = undisturbed.Await(*undisturbed.Create(SpecOf(Generated())));
  ASSERT_EQ(whole.state(), v1::JOB_STATE_SUCCEEDED) << whole.error().message();
  const int64_t all = undisturbed.engine->submitted;

  const CutJob cut =
      CutAndResume([](SmallSite&) { return SpecOf(Generated()); }, /*submissions=*/100);
  ASSERT_EQ(cut.job.state(), v1::JOB_STATE_SUCCEEDED) << cut.job.error().message();
  EXPECT_EQ(SmallSite::Artifacts(cut.job), SmallSite::Artifacts(whole));
  EXPECT_EQ(services::DeterministicBytes(cut.job.result().summary()),
            services::DeterministicBytes(whole.result().summary()));
  EXPECT_LE(cut.before + cut.after, all + 2 * kGeneratedPerShard);
  EXPECT_LT(cut.after, all);
}

TEST(GeneratedResponses, WhatIsStoredWithAJobIsReadBackOrIsDataLoss) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const std::string name = *site.Create(SpecOf(Generated()));
  const auto job = site.store->GetJob("lab", IdOf(name));
  services::Kind& kind = site.registry.Get("extract_vectors");
  const auto work = kind.Open("lab", job->spec);
  ASSERT_TRUE(work.ok()) << work.status();
  EXPECT_EQ((*work)->extent().units, kUnits);
  EXPECT_EQ((*work)->Save(*site.blobs)->spec, job->spec);
  SavedWork record;
  ASSERT_TRUE(record.ParseFromString(job->spec));
  for (const auto& damage : std::vector<std::function<void(SavedWork&)>>{
           [](SavedWork& saved) { saved.mutable_generation()->set_samples(0); },
           [](SavedWork& saved) { saved.mutable_generation()->set_samples(3); },
           [](SavedWork& saved) { saved.mutable_generation()->clear_conditions(); },
           [](SavedWork& saved) { saved.mutable_generation()->add_conditions(); },
           [](SavedWork& saved) { saved.set_format_version(99); }}) {
    SavedWork damaged = record;
    damage(damaged);
    EXPECT_EQ(kind.Open("lab", damaged.SerializeAsString()).status().code(),
              absl::StatusCode::kDataLoss);
  }
}

TEST(GeneratedResponses, PartialsOfAnotherSizeAreDataLoss) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const auto job = site.store->GetJob("lab", IdOf(*site.Create(SpecOf(Generated()))));
  const auto work = site.registry.Get("extract_vectors").Open("lab", job->spec);
  ASSERT_TRUE(work.ok()) << work.status();
  const auto partial = (*work)->Begin(kGeneratedPerShard);
  ASSERT_EQ((*work)->RunChunk({0, kGeneratedPerShard}, Cancellation(), **partial),
            absl::OkStatus());
  const std::string bytes = (*partial)->Serialize();
  const auto parsed = (*work)->Parse(bytes, kGeneratedPerShard, kGeneratedPerShard);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ((*parsed)->Serialize(), bytes);
  for (const std::string& damaged :
       {std::string(), bytes.substr(0, 7), bytes.substr(0, 40), bytes.substr(0, bytes.size() - 4),
        bytes + "more", std::string(8, '\xff') + bytes.substr(8)}) {
    EXPECT_EQ((*work)->Parse(damaged, kGeneratedPerShard, kGeneratedPerShard).status().code(),
              absl::StatusCode::kDataLoss);
  }
  EXPECT_EQ((*work)->Parse(bytes, kGeneratedPerShard - 1, kGeneratedPerShard).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST(GeneratedResponses, SeedsOfUnitsAreAllDifferent) {
  std::set<uint64_t> seeds;
  for (int c = 0; c < 8; ++c) {
    for (int q = 0; q < 64; ++q) {
      for (int k = 0; k < 8; ++k) seeds.insert(SeedOf(SeedOf(SeedOf(0, c), q), k));
    }
  }
  EXPECT_EQ(seeds.size(), 8u * 64 * 8);
}

// A judge with tokens of its own, that answers by the last token of what it is asked.
class WithJudge : public SmallSite {
 public:
  explicit WithJudge(const TemporaryFolder& folder) : SmallSite(folder), text_(Text(folder)) {
    AddJudge();
  }

  std::shared_ptr<FakeEngine> AddJudge(const std::string& digest = std::string(64, 'c')) {
    return models.Add("judge", digest, text_);
  }

 private:
  static std::shared_ptr<const text::TextModel> Text(const TemporaryFolder& folder) {
    const std::string at = folder / "judge";
    std::filesystem::create_directories(at);
    nlohmann::json file = nlohmann::json::parse(text::ByteFallbackTokenizer());
    file["added_tokens"] = nlohmann::json::array();
    file["normalizer"] = nullptr;
    file["decoder"] = nullptr;
    file["post_processor"] = nullptr;
    file["pre_tokenizer"] = {{"type", "WhitespaceSplit"}};
    nlohmann::json words = {{"<unk>", 0}, {"yes", 1}, {"no", 2}, {"uAsk", 3}};
    file["model"] = {{"type", "WordLevel"}, {"unk_token", "<unk>"}, {"vocab", words}};
    std::ofstream(at + "/tokenizer.json") << file.dump();
    std::ofstream(at + "/chat_template.jinja")
        << "{% for m in messages %}{{ m.role[0] + m.content }}{% endfor %}";
    auto text = text::TextModel::Load(at);
    EXPECT_TRUE(text.ok()) << text.status();
    return *std::move(text);
  }

  const std::shared_ptr<const text::TextModel> text_;
};

v1::ExtractVectorsRequest Asked() {
  v1::ExtractVectorsRequest request = Generated();
  // Whatever the judge says, both labels are there.
  request.mutable_generated()->mutable_conditions(0)->set_expresses(false);
  v1::RubricJudge& rubric = *request.mutable_generated()->mutable_judge()->mutable_rubric();
  rubric.set_model("models/judge");
  rubric.set_rubric("Ask {query} {response}");
  rubric.set_threshold(0);
  return request;
}

TEST(GeneratedResponses, AJobWaitsForItsJudgeAndGoesOnOnceItIsBack) {
  TemporaryFolder folder;
  WithJudge site(folder);
  v1::ExtractVectorsResponse call;
  ASSERT_EQ(site.vectors.ExtractVectors(site.context, Asked(), &call), absl::OkStatus());
  const std::string name = *site.Create(SpecOf(Asked()));
  EXPECT_THAT(
      site.store->GetJob("lab", IdOf(name))->needs,
      testing::MatchesRegex("models/tiny;[0-9a-f]{64};[^ ]* models/judge;[0-9a-f]{64};[^ ]*"));
  site.models.Remove("judge");
  site.StartWorker();
  const auto snapshot = valuescope::jobs::AwaitJob(
      site.queue, "lab", IdOf(name), absl::Now() + absl::Seconds(60),
      [](const valuescope::jobs::JobSnapshot& now) { return !now.waiting_for.empty(); });
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_THAT(snapshot->waiting_for, HasSubstr("models/judge"));
  site.AddJudge();
  site.queue.NeedsChanged();
  const v1::Job job = site.Await(name);
  ASSERT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED) << job.error().message();
  EXPECT_THAT(job.result().vectors(), ElementsAre(call.vector().name()));
  std::vector<std::string> names;
  for (const v1::ResourceDigest& one : job.result().digests()) names.push_back(one.name());
  EXPECT_THAT(names, UnorderedElementsAre("models/tiny", "models/judge", "responses", "data set"));
}

TEST(GeneratedResponses, AJobWaitsForItsJudgeAsItWas) {
  TemporaryFolder folder;
  WithJudge site(folder);
  const std::string name = *site.Create(SpecOf(Asked()));
  site.AddJudge(std::string(64, 'd'));
  site.StartWorker();
  const auto waiting = site.AwaitWaiting(name);
  ASSERT_TRUE(waiting.ok()) << waiting.status();
  EXPECT_THAT(waiting->waiting_for, HasSubstr("`models/judge` has other weights"));
}

TEST(GeneratedResponses, MoreThanAProbeTakesIsRefusedBeforeAnythingRuns) {
  TemporaryFolder folder;
  SmallSite site(folder);
  v1::ExtractVectorsRequest request = Generated();
  request.set_method(v1::EXTRACTION_METHOD_LINEAR_PROBE);
  request.mutable_generated()->set_samples_per_query(64);
  const absl::Status status = site.Create(SpecOf(request)).status();
  EXPECT_EQ(DetailsOf(status).reason, "TOO_MANY_RESPONSES");
  EXPECT_EQ(DetailsOf(status).field, "spec.extract_vectors.generated");
}

TEST(GeneratedResponses, WhatTheEngineSaysOfOneNamesItsQueryOrTheSampling) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const auto field_of = [&](const std::string& field) {
    site.engine->before_check = [=](const engine::Request& request) {
      return request.sampling && request.prompt.size() == 4 ? InvalidField(field, "is wrong")
                                                            : absl::OkStatus();
    };
    return DetailsOf(site.Create(SpecOf(Generated())).status()).field;
  };
  // "SUQ0": the first query without a system message.
  EXPECT_EQ(field_of("sampling.top_k"), "spec.extract_vectors.generated.sampling.top_k");
  EXPECT_EQ(field_of("prompt"), "spec.extract_vectors.generated.queries[0]");
}

}  // namespace
}  // namespace valuescope::kinds
