// Vectors of generated responses whose means the disk has no room for, through the services, real
// stores and a real worker: they are made of sums, and equal what the same responses give when they
// come as a data set.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/notification.h"
#include "base/error.h"
#include "kinds/generated_responses.h"
#include "kinds/saved_work.pb.h"
#include "services/idempotency.h"
#include "tests/kinds/early_shard.h"
#include "tests/kinds/small_site.h"

namespace valuescope::kinds {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;

// 160 responses, some of them empty; queries whose responses have one label alone and others, so
// that no shard could tell which half a query is in.
v1::ExtractVectorsRequest Generated(v1::Pooling pooling = v1::POOLING_RESPONSE_MEAN) {
  v1::ExtractVectorsRequest request;
  request.set_model("models/tiny");
  request.set_pooling(pooling);
  v1::GeneratedResponses& generated = *request.mutable_generated();
  for (int i = 0; i < 40; ++i) generated.add_queries(absl::StrCat("Q", i));
  generated.add_conditions();
  generated.add_conditions()->add_system_messages("S");
  generated.set_samples_per_query(2);
  generated.mutable_judge()->mutable_word_list()->add_words("t1*");
  generated.mutable_sampling()->set_max_tokens(4);
  generated.mutable_sampling()->set_seed(5);
  return request;
}
constexpr int kResponses = 160;

v1::JobSpec SpecOf(const v1::ExtractVectorsRequest& request) {
  v1::JobSpec spec;
  *spec.mutable_extract_vectors() = request;
  return spec;
}

std::string IdOf(const std::string& name) { return name.substr(name.find('/') + 1); }

std::string BytesOf(SmallSite& site, const std::string& artifact) {
  const auto resource =
      site.store->GetResource("lab", store::ResourceKind::kArtifact, IdOf(artifact));
  EXPECT_TRUE(resource.ok()) << resource.status();
  return *store::ReadBlob(*site.blobs, resource->blob_digest, 1 << 20);
}

std::vector<std::string> AbsentOf(const v1::VectorStatistics& row) {
  std::vector<std::string> absent;
  for (const v1::MissingStatistic& one : row.missing()) absent.push_back(one.field());
  return absent;
}

class SumsOfGenerated : public testing::TestWithParam<v1::Pooling> {
 protected:
  TemporaryFolder folder_;
  SmallSite site_{folder_, /*extraction_scratch_bytes=*/0};
};

TEST_P(SumsOfGenerated, EqualThoseOfTheSameResponsesAsADataSet) {
  const v1::ExtractVectorsRequest request = Generated(GetParam());
  v1::ExtractVectorsResponse made, again;
  ASSERT_EQ(site_.vectors.ExtractVectors(site_.context, request, &made), absl::OkStatus());
  ASSERT_GT(made.num_dropped(), 0);
  v1::ExtractVectorsRequest given;
  given.set_model("models/tiny");
  given.set_pooling(GetParam());
  given.set_artifact(made.responses_artifact());
  ASSERT_EQ(site_.vectors.ExtractVectors(site_.context, given, &again), absl::OkStatus());
  EXPECT_EQ(made.vector().data().data(), again.vector().data().data());
  EXPECT_THAT(made.warnings(), Contains(HasSubstr("sums alone")));
  ASSERT_GT(made.statistics_size(), 0);
  for (int i = 0; i < made.statistics_size(); ++i) {
    EXPECT_EQ(services::DeterministicBytes(made.statistics(i)),
              services::DeterministicBytes(again.statistics(i)));
    EXPECT_TRUE(made.statistics(i).has_split_half_cosine());
    EXPECT_THAT(AbsentOf(made.statistics(i)), Contains("auroc"));
  }
}

TEST_P(SumsOfGenerated, EqualWhatTheirMeansGive) {
  const v1::ExtractVectorsRequest request = Generated(GetParam());
  v1::ExtractVectorsResponse of_sums, of_means;
  ASSERT_EQ(site_.vectors.ExtractVectors(site_.context, request, &of_sums), absl::OkStatus());
  TemporaryFolder folder;
  SmallSite roomy(folder);
  ASSERT_EQ(roomy.vectors.ExtractVectors(roomy.context, request, &of_means), absl::OkStatus());
  EXPECT_EQ(BytesOf(site_, of_sums.responses_artifact()),
            BytesOf(roomy, of_means.responses_artifact()));
  EXPECT_EQ(of_sums.usage().prompt_tokens(), of_means.usage().prompt_tokens());
  EXPECT_EQ(of_sums.usage().generated_tokens(), of_means.usage().generated_tokens());
  EXPECT_EQ(site_.engine->submitted, roomy.engine->submitted);
  ASSERT_EQ(of_sums.statistics_size(), of_means.statistics_size());
  for (int i = 0; i < of_sums.statistics_size(); ++i) {
    const v1::VectorStatistics& sums = of_sums.statistics(i);
    const v1::VectorStatistics& means = of_means.statistics(i);
    EXPECT_NEAR(sums.norm() / means.norm(), 1, 1e-12);
    EXPECT_NEAR(sums.relative_norm() / means.relative_norm(), 1, 1e-12);
    EXPECT_NEAR(sums.split_half_cosine(), means.split_half_cosine(), 1e-12);
  }
}

TEST_P(SumsOfGenerated, AJobMakesTheVectorOfTheCallToTheBit) {
  v1::ExtractVectorsResponse call;
  ASSERT_EQ(site_.vectors.ExtractVectors(site_.context, Generated(GetParam()), &call),
            absl::OkStatus());
  site_.StartWorker();
  const std::string name = *site_.Create(SpecOf(Generated(GetParam())));
  const v1::Job job = site_.Await(name);
  ASSERT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED) << job.error().message();
  EXPECT_THAT(job.result().vectors(), ElementsAre(call.vector().name()));
  EXPECT_EQ(BytesOf(site_, absl::StrCat("artifacts/", IdOf(name), ".responses")),
            BytesOf(site_, call.responses_artifact()));
  // Each response is generated by one unit and runs as another.
  EXPECT_EQ(job.progress().total(), 2 * kResponses);
  EXPECT_EQ(job.progress().shards_total(), 5 + 10);
}

INSTANTIATE_TEST_SUITE_P(Poolings, SumsOfGenerated,
                         testing::Values(v1::POOLING_RESPONSE_MEAN, v1::POOLING_TOKEN_MEAN,
                                         v1::POOLING_LAST_TOKEN),
                         [](const auto& info) { return v1::Pooling_Name(info.param); });

// Cut where it generates, and where it sums up.
TEST(GeneratedSums, ACutAndAResumeGiveTheSameBytesAndRepeatNoShardThatWasCommitted) {
  TemporaryFolder undisturbed_folder;
  SmallSite undisturbed(undisturbed_folder, /*extraction_scratch_bytes=*/0);
  undisturbed.StartWorker();
  const v1::Job whole = undisturbed.Await(*undisturbed.Create(SpecOf(Generated())));
  ASSERT_EQ(whole.state(), v1::JOB_STATE_SUCCEEDED) << whole.error().message();
  const int64_t all = undisturbed.engine->submitted;
  for (const int64_t most : {100, 250}) {
    TemporaryFolder folder;
    std::string name;
    int64_t before = 0;
    {
      SmallSite site(folder, /*extraction_scratch_bytes=*/0);
      name = *site.Create(SpecOf(Generated()));
      absl::Notification cut;
      site.engine->before_submit = [&](const engine::Request&) {
        if (site.engine->submitted == most && !cut.HasBeenNotified()) cut.Notify();
        return site.engine->submitted >= most ? absl::UnavailableError("cut") : absl::OkStatus();
      };
      site.StartWorker();
      cut.WaitForNotification();
      site.worker->Drain();
      before = site.engine->submitted;
    }
    SmallSite again(folder, /*extraction_scratch_bytes=*/0);
    again.StartWorker();
    const v1::Job job = again.Await(name);
    ASSERT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED) << job.error().message();
    EXPECT_EQ(SmallSite::Artifacts(job), SmallSite::Artifacts(whole));
    EXPECT_EQ(services::DeterministicBytes(job.result().summary()),
              services::DeterministicBytes(whole.result().summary()));
    EXPECT_LE(before + again.engine->submitted, all + kGeneratedPerShard);
  }
}

TEST(GeneratedSums, ALabelWithoutResponsesIsToldBeforeAnythingIsSummedUp) {
  TemporaryFolder folder;
  SmallSite site(folder, /*extraction_scratch_bytes=*/0);
  v1::ExtractVectorsRequest request = Generated();
  request.mutable_generated()->mutable_judge()->mutable_word_list()->set_words(0, "nobody");
  v1::ExtractVectorsResponse response;
  const absl::Status status = site.vectors.ExtractVectors(site.context, request, &response);
  EXPECT_EQ(DetailsOf(status).reason, "EMPTY_LABEL");
  EXPECT_EQ(DetailsOf(status).field, "generated");
  EXPECT_EQ(site.engine->submitted, kResponses);
  site.StartWorker();
  const v1::Job job = site.Await(*site.Create(SpecOf(request)));
  EXPECT_EQ(job.error().reason(), "EMPTY_LABEL");
  EXPECT_EQ(site.engine->submitted, 2 * kResponses);
}

TEST(GeneratedSums, MethodsThatLookAtEveryResponseAgainAreRefused) {
  TemporaryFolder folder;
  SmallSite site(folder, /*extraction_scratch_bytes=*/0);
  v1::ExtractVectorsRequest request = Generated();
  request.set_method(v1::EXTRACTION_METHOD_PCA);
  v1::ExtractVectorsResponse response;
  const absl::Status status = site.vectors.ExtractVectors(site.context, request, &response);
  EXPECT_EQ(DetailsOf(status).reason, "MEANS_TOO_LARGE");
  EXPECT_EQ(site.engine->submitted, 0);
}

// The sums of a shard and of all, and the responses twice.
TEST(GeneratedSums, WhatNeverFitsIsRefusedBeforeAnythingRuns) {
  TemporaryFolder folder;
  SmallSite site(folder, /*extraction_scratch_bytes=*/0);
  site.engine->most_kept = 4096;
  v1::ExtractVectorsResponse response;
  const absl::Status status = site.vectors.ExtractVectors(site.context, Generated(), &response);
  EXPECT_EQ(DetailsOf(status).reason, "CAPTURES_TOO_LARGE");
  EXPECT_EQ(site.engine->submitted, 0);
}

// A server that knew no such sums would look for responses that were given.
TEST(GeneratedSums, AreOfAVersionOfTheirOwn) {
  TemporaryFolder folder;
  SmallSite site(folder, /*extraction_scratch_bytes=*/0);
  const auto job = site.store->GetJob("lab", IdOf(*site.Create(SpecOf(Generated()))));
  SavedWork record;
  ASSERT_TRUE(record.ParseFromString(job->spec));
  EXPECT_EQ(record.format_version(), 5);
  EXPECT_EQ(record.num_responses(), kResponses);
  const auto work = site.registry.Get("extract_vectors").Open("lab", job->spec);
  ASSERT_TRUE(work.ok()) << work.status();
  EXPECT_EQ((*work)->extent().units, 2 * kResponses);
  EXPECT_EQ((*work)->Save(*site.blobs)->spec, job->spec);
}

TEST(GeneratedSums, AShardThatSumsUpWaitsForAllThatGenerate) {
  TemporaryFolder folder;
  SmallSite site(folder, /*extraction_scratch_bytes=*/0);
  const auto job = site.store->GetJob("lab", IdOf(*site.Create(SpecOf(Generated()))));
  services::Kind& kind = site.registry.Get("extract_vectors");
  const auto work = kind.Open("lab", job->spec);
  ASSERT_TRUE(work.ok()) << work.status();
  const jobs::Extent extent = (*work)->extent();
  EarlyShard shard(job->spec, extent.preparing.num_shards());
  for (int64_t i = 0; i < extent.preparing.num_shards(); ++i) {
    const auto part = (*work)->Begin(extent.UnitsOf(i).size());
    ASSERT_EQ((*work)->RunChunk(extent.UnitsOf(i), Cancellation(), **part), absl::OkStatus());
    store::ShardProgress& progress = shard.progress.emplace_back();
    progress.work_done = extent.UnitsOf(i).size();
    progress.partial = (*part)->Serialize();
  }
  --shard.progress.back().work_done;
  const absl::Status early = kind.RunShard(shard).status();
  EXPECT_EQ(DetailsOf(early).reason, "FIRST_SHARD_RUNS");
  EXPECT_TRUE(DetailsOf(early).retry_after.has_value());
  EXPECT_EQ(site.engine->submitted, kResponses);
  ++shard.progress.back().work_done;
  const auto done = kind.RunShard(shard);
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_EQ(done->work_done, 16);
  EXPECT_EQ(site.engine->submitted, kResponses + 16);
  shard.progress.front().partial += "more";
  EXPECT_EQ(kind.RunShard(shard).status().code(), absl::StatusCode::kDataLoss);
}

TEST(GeneratedSums, OtherBytesAreDataLoss) {
  TemporaryFolder folder;
  SmallSite site(folder, /*extraction_scratch_bytes=*/0);
  const auto job = site.store->GetJob("lab", IdOf(*site.Create(SpecOf(Generated()))));
  const auto work = site.registry.Get("extract_vectors").Open("lab", job->spec);
  ASSERT_TRUE(work.ok()) << work.status();
  const auto expect_exact = [&](const std::string& bytes, int64_t units) {
    const auto parsed = (*work)->Parse(bytes, units, units);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ((*parsed)->Serialize(), bytes);
    for (const std::string& damaged : {std::string(), bytes.substr(0, bytes.size() / 2),
                                       bytes.substr(0, bytes.size() - 4), bytes + "more"}) {
      EXPECT_EQ((*work)->Parse(damaged, units, units).status().code(), absl::StatusCode::kDataLoss);
    }
    EXPECT_EQ((*work)->Parse(bytes, units - 1, units).status().code(), absl::StatusCode::kDataLoss);
  };
  const jobs::Extent extent = (*work)->extent();
  const auto generated = (*work)->Begin(extent.preparing.units);
  for (int64_t shard = 0; shard < extent.preparing.num_shards(); ++shard) {
    const jobs::UnitRange units = extent.UnitsOf(shard);
    const auto part = (*work)->Begin(units.size());
    ASSERT_EQ((*work)->RunChunk(units, Cancellation(), **part), absl::OkStatus());
    expect_exact((*part)->Serialize(), units.size());
    ASSERT_EQ((*work)->Fold(**part, **generated), absl::OkStatus());
  }
  ASSERT_EQ((*work)->Prepare(**generated), absl::OkStatus());
  const jobs::UnitRange units = extent.UnitsOf(extent.preparing.num_shards());
  const auto sums = (*work)->Begin(units.size());
  ASSERT_EQ((*work)->RunChunk(units, Cancellation(), **sums), absl::OkStatus());
  expect_exact((*sums)->Serialize(), units.size());
  // The other shards are missing.
  ASSERT_EQ((*work)->Fold(**sums, **generated), absl::OkStatus());
  EXPECT_EQ((*work)->Finish(**generated, Cancellation()).status().code(),
            absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace valuescope::kinds
