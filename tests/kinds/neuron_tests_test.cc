// Tests of neurons as a job: a first shard on which the others build, cut and resumed anywhere.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "kinds/saved_work.pb.h"
#include "services/idempotency.h"
#include "tests/kinds/cut_job.h"
#include "tests/kinds/early_shard.h"
#include "tests/kinds/small_site.h"

namespace valuescope::kinds {
namespace {

constexpr int kResponses = 90;  // a third of them express
// Full, empty, and two sizes with their random sets.
constexpr int kRandomSets = 60;
constexpr int64_t kPasses = (2 + 2 * (1 + kRandomSets)) * kResponses / 3;
constexpr int64_t kUnits = kResponses + kPasses;

v1::TestNeuronsRequest RequestOf(SmallSite& site) {
  const v1::AttributeNeuronsRequest attribution = site.Attribution(kResponses);
  v1::TestNeuronsRequest request;
  request.set_model("models/tiny");
  *request.mutable_responses() = attribution.responses();
  for (const auto& [layer, index] : std::vector<std::pair<int, int>>{{1, 3}, {0, 2}, {0, 0}}) {
    v1::NeuronId& neuron = *request.add_neurons();
    neuron.set_layer(layer);
    neuron.set_index(index);
  }
  request.add_sizes(1);
  request.add_sizes(3);
  request.set_random_sets(kRandomSets);
  v1::VectorProjectionTarget& target = *request.mutable_target()->mutable_vector_projection();
  target.set_vector(attribution.vector());
  target.set_layer(1);
  return request;
}

v1::JobSpec SpecOf(const v1::TestNeuronsRequest& request) {
  v1::JobSpec spec;
  *spec.mutable_test_neurons() = request;
  return spec;
}

TEST(TestNeuronsKind, AJobSaysWhatACallSays) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const v1::TestNeuronsRequest request = RequestOf(site);
  v1::TestNeuronsResponse call;
  ASSERT_EQ(site.neurons.TestNeurons(site.context, request, &call), absl::OkStatus());
  EXPECT_EQ(site.engine->submitted, kUnits);
  EXPECT_EQ(call.num_responses(), kResponses / 3);
  // Of a prompt's token and three others: the engine says the same whatever is changed.
  EXPECT_EQ(call.usage().prompt_tokens(), 4 * kUnits);
  EXPECT_NE(call.full(), 0);
  EXPECT_EQ(call.points(1).target(), call.full());
  EXPECT_EQ(call.points(1).p_value(), 1);
  site.StartWorker();
  const v1::Job job = site.Await(*site.Create(SpecOf(request)));
  ASSERT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED) << job.error().message();
  EXPECT_EQ(job.progress().total(), kUnits);
  EXPECT_EQ(job.progress().done(), kUnits);
  EXPECT_EQ(job.progress().unit(), "passes");
  EXPECT_EQ(job.progress().shards_total(), 1 + (kPasses + 2047) / 2048);
  EXPECT_EQ(job.result().summary().fields().at("full").number_value(), call.full());
  EXPECT_EQ(job.result().digests_size(), call.digests_size());
  EXPECT_EQ(SmallSite::Artifacts(job).size(), 1u);
}

v1::TestNeuronsRequest SeveralOf(v1::TestNeuronsRequest request) {
  for (const char* const label : {"one", "other"}) {
    v1::NeuronRanking& ranking = *request.add_rankings();
    ranking.set_label(label);
    *ranking.mutable_neurons() = request.neurons();
  }
  request.clear_neurons();
  return request;
}

TEST(TestNeuronsKind, SeveralRankingsWantAServerThatKnowsOfThem) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const auto stored_job = [&](const v1::TestNeuronsRequest& request) {
    return *site.store->GetJob("lab", IdOf(*site.Create(SpecOf(request))));
  };
  const store::Job one = stored_job(RequestOf(site));
  const store::Job several = stored_job(SeveralOf(RequestOf(site)));
  EXPECT_EQ(several.needs, absl::StrCat(one.needs, " work/8"));
  EXPECT_EQ(one.transitions, several.transitions);
  SavedWork of_one, of_several;
  ASSERT_TRUE(of_one.ParseFromString(one.spec));
  ASSERT_TRUE(of_several.ParseFromString(several.spec));
  EXPECT_EQ(of_one.format_version(), 7);
  EXPECT_EQ(of_several.format_version(), 8);
  site.StartWorker();
  const v1::Job job = site.Await(absl::StrCat("jobs/", several.id));
  ASSERT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED) << job.error().message();
  EXPECT_EQ(job.progress().total(), kUnits + (kPasses - 2 * kResponses / 3));
}

class CutAt : public testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Submissions, CutAt, testing::Values(40, kResponses + 10, kUnits - 5));

TEST_P(CutAt, AResumeGivesTheSameBytesAndRepeatsNoChunkThatWasCommitted) {
  TemporaryFolder undisturbed_folder;
  SmallSite undisturbed(undisturbed_folder);
  undisturbed.StartWorker();
  const v1::Job whole = undisturbed.Await(*undisturbed.Create(SpecOf(RequestOf(undisturbed))));
  ASSERT_EQ(whole.state(), v1::JOB_STATE_SUCCEEDED) << whole.error().message();

  const CutJob cut =
      CutAndResume([](SmallSite& site) { return SpecOf(RequestOf(site)); }, GetParam());
  ASSERT_EQ(cut.job.state(), v1::JOB_STATE_SUCCEEDED) << cut.job.error().message();
  EXPECT_EQ(SmallSite::Artifacts(cut.job), SmallSite::Artifacts(whole));
  EXPECT_EQ(services::DeterministicBytes(cut.job.result().summary()),
            services::DeterministicBytes(whole.result().summary()));
  constexpr int64_t kChunk = 256;
  EXPECT_LE(cut.before + cut.after, kUnits + kChunk);
  EXPECT_LT(cut.after, kUnits + 1);
}

TEST(Extent, ShardsThatPrepareAreApart) {
  const jobs::Extent extent = {
      .units = 25,
      .units_per_shard = 8,
      .units_per_chunk = 2,
      .preparing = {.units = 5, .units_per_shard = 5, .units_per_chunk = 1}};
  EXPECT_EQ(extent.num_shards(), 4);
  const auto bounds = [&](int64_t shard) {
    const jobs::UnitRange units = extent.UnitsOf(shard);
    return std::vector<int64_t>{units.first, units.end};
  };
  EXPECT_THAT(bounds(0), testing::ElementsAre(0, 5));
  EXPECT_THAT(bounds(1), testing::ElementsAre(5, 13));
  EXPECT_THAT(bounds(3), testing::ElementsAre(21, 25));
  EXPECT_EQ(extent.UnitsPerChunkOf(0), 1);
  EXPECT_EQ(extent.UnitsPerChunkOf(1), 2);
  const jobs::Extent alike = {.units = 24, .units_per_shard = 8};
  EXPECT_EQ(alike.num_shards(), 3);
  EXPECT_EQ(alike.UnitsOf(2).first, 16);
  const jobs::Extent several = {
      .units = 14, .units_per_shard = 4, .preparing = {.units = 7, .units_per_shard = 3}};
  EXPECT_EQ(several.preparing.num_shards(), 3);
  EXPECT_EQ(several.num_shards(), 5);
  EXPECT_EQ(several.UnitsOf(2).first, 6);
  EXPECT_EQ(several.UnitsOf(2).end, 7);
  EXPECT_EQ(several.UnitsOf(3).first, 7);
  EXPECT_EQ(several.UnitsOf(4).size(), 3);
}

TEST(TestNeuronsKind, AShardWaitsForTheFirstAndRefusesADamagedOne) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const std::string name = *site.Create(SpecOf(RequestOf(site)));
  const auto job = site.store->GetJob("lab", name.substr(name.find('/') + 1));
  EarlyShard shard(job->spec, /*shard=*/1);
  store::ShardProgress& first = shard.progress.emplace_back();
  services::Kind& kind = site.registry.Get("test_neurons");
  first.work_done = kResponses - 1;
  const absl::Status early = kind.RunShard(shard).status();
  EXPECT_EQ(DetailsOf(early).reason, "FIRST_SHARD_RUNS");
  EXPECT_TRUE(DetailsOf(early).retry_after.has_value());
  EXPECT_EQ(site.engine->submitted, 0);
  first.work_done = kResponses;
  first.partial = "damaged";
  EXPECT_EQ(kind.RunShard(shard).status().code(), absl::StatusCode::kDataLoss);
}

TEST(TestNeuronsKind, WhatIsStoredWithAJobIsReadBackOrIsDataLoss) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const std::string name = *site.Create(SpecOf(RequestOf(site)));
  const auto job = site.store->GetJob("lab", name.substr(name.find('/') + 1));
  services::Kind& kind = site.registry.Get("test_neurons");
  const auto work = kind.Open("lab", job->spec);
  ASSERT_TRUE(work.ok()) << work.status();
  EXPECT_EQ((*work)->extent().units, kUnits);
  EXPECT_EQ((*work)->Save(*site.blobs)->spec, job->spec);
  SavedWork record;
  ASSERT_TRUE(record.ParseFromString(job->spec));
  record.mutable_test_neurons()->clear_sizes();
  for (const std::string& damaged :
       {record.SerializeAsString(), std::string(), job->spec.substr(0, job->spec.size() / 2)}) {
    EXPECT_EQ(kind.Open("lab", damaged).status().code(), absl::StatusCode::kDataLoss);
  }
}

TEST(TestNeuronsKind, WhatNeverFitsIsRefusedBeforeAnythingRuns) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const v1::TestNeuronsRequest request = RequestOf(site);
  site.engine->most_kept = kPasses * 8;
  v1::TestNeuronsResponse response;
  EXPECT_EQ(DetailsOf(site.neurons.TestNeurons(site.context, request, &response)).reason,
            "CAPTURES_TOO_LARGE");
  EXPECT_EQ(DetailsOf(site.Create(SpecOf(request)).status()).reason, "CAPTURES_TOO_LARGE");
  EXPECT_EQ(site.engine->submitted, 0);
  site.engine->most_kept = INT64_MAX;
  v1::TestNeuronsRequest more = request;
  more.set_random_sets(1000);
  EXPECT_EQ(DetailsOf(site.neurons.TestNeurons(site.context, more, &response)).reason, "USE_A_JOB");
  EXPECT_TRUE(site.Create(SpecOf(more)).ok());
}

TEST(TestNeuronsKind, ACancelledCallRunsNoMore) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const v1::TestNeuronsRequest request = RequestOf(site);
  site.engine->before_submit = [&](const engine::Request&) {
    if (site.engine->submitted == 200) site.context.cancellation.Cancel();
    return absl::OkStatus();
  };
  v1::TestNeuronsResponse response;
  EXPECT_EQ(site.neurons.TestNeurons(site.context, request, &response).code(),
            absl::StatusCode::kCancelled);
  EXPECT_LT(site.engine->submitted, kUnits);
}

}  // namespace
}  // namespace valuescope::kinds
