#include "studies/attribute_neurons_job.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <memory>

#include "absl/synchronization/notification.h"
#include "base/error.h"
#include "jobs/job_queue.h"
#include "jobs/worker.h"
#include "store/directory_blob_store.h"
#include "store/sqlite_store.h"
#include "tests/jobs/await_job.h"
#include "tests/store/temporary_folder.h"
#include "tests/studies/fake_engine.h"

namespace valuescope::studies {
namespace {

constexpr char kDigest[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
constexpr int64_t kManyResponses = 600;  // more chunks than kMaxAttributionShards

// A server's stores, one engine and one worker, in a folder that may be opened again.
class Site {
 public:
  explicit Site(const TemporaryFolder& folder) {
    store_ = *store::OpenSqliteStore(folder / "store.db");
    blobs_ = *store::OpenDirectoryBlobStore(folder / "blobs");
    engine = models_.Add("tiny", kDigest);
    queue = std::make_unique<jobs::JobQueue>(store_.get());
    kind = std::make_unique<AttributeNeuronsJob>(&models_, store_.get(), blobs_.get());
    queue->SetKinds({kind.get()});
    worker = std::make_unique<jobs::Worker>(queue.get(), blobs_.get(),
                                            std::vector<jobs::JobKind*>{kind.get()});
  }

  std::string CreateJob(const std::string& digest = kDigest) {
    StoredVector vector;
    vector.model = "models/tiny";
    vector.model_digest = kDigest;
    vector.width = 3;
    vector.layers = {0, 1};
    vector.rows = {1, 0, 1, 0, 2, 1};
    const auto resource = MakeVectorResource(*blobs_, vector);
    EXPECT_TRUE(store_->PutResources("lab", {*resource}, {}).ok());
    std::vector<LabelledResponse> responses;
    for (int32_t i = 0; i < kManyResponses; ++i) {
      responses.push_back(
          {.prompt = {1}, .response = {i % 97, i % 13, i % 7}, .expresses = i % 3 == 0});
    }
    set = Trim(std::move(responses), {.end_of_turn = {}, .include_end_of_turn = true});
    AttributeNeuronsSpec spec;
    spec.model = "tiny";
    spec.model_digest = digest;
    spec.vector_id = resource->id;
    spec.vector_digest = resource->digest;
    spec.data_set_blob = store::WriteBlob(*blobs_, EncodeResponseSet(set))->digest;
    spec.num_responses = kManyResponses;
    spec.responses_per_shard = ResponsesPerShard(kManyResponses);
    spec.layers = {0, 1};
    spec.top_k = 3;
    store::NewJob job;
    job.tenant = "lab";
    job.kind = kAttributeNeuronsKind;
    job.spec = SpecToJson(spec);
    job.num_shards = *kind->NumShards(job.spec);
    job.total_work = kManyResponses;
    job.needs = NeedsOfModel(spec.model);
    job.blobs = {spec.data_set_blob};
    const auto created = queue->Create(job, {});
    EXPECT_TRUE(created.ok()) << created.status();
    return created->job.id;
  }

  store::Job Await(const std::string& id) {
    const auto snapshot = jobs::AwaitJob(
        *queue, "lab", id, absl::Now() + absl::Seconds(60),
        [](const jobs::JobSnapshot& now) { return store::IsFinished(now.job.state); });
    EXPECT_TRUE(snapshot.ok()) << snapshot.status();
    return snapshot.ok() ? snapshot->job : store::Job();
  }

  // Digest of each artifact by role.
  std::map<std::string, std::string> Artifacts(const std::string& id) {
    std::map<std::string, std::string> digests;
    const auto page =
        store_->ListResources("lab", store::ResourceKind::kArtifact, {.job_id = id}, {});
    for (const store::Resource& resource : page->resources) {
      digests[resource.role] = resource.blob_digest;
    }
    return digests;
  }

  std::vector<NeuronColumns> NeuronSetColumns() {
    const auto page = store_->ListResources("lab", store::ResourceKind::kNeuronSet, {}, {});
    EXPECT_EQ(page->resources.size(), 1u);
    return *ReadColumns(*blobs_, page->resources.at(0));
  }

  FakeModels models_;
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<store::BlobStore> blobs_;
  std::shared_ptr<FakeEngine> engine;
  std::unique_ptr<jobs::JobQueue> queue;
  std::unique_ptr<AttributeNeuronsJob> kind;
  std::unique_ptr<jobs::Worker> worker;
  ResponseSet set;
};

TEST(ResponsesPerShardTest, ShardsAreOfChunksAndNeverTooMany) {
  EXPECT_EQ(ResponsesPerShard(1), 16);
  EXPECT_EQ(ResponsesPerShard(512), 16);
  EXPECT_EQ(ResponsesPerShard(513), 32);
  EXPECT_LE((1'000'000 - 1) / ResponsesPerShard(1'000'000) + 1, kMaxAttributionShards);
}

TEST(AttributeNeuronsJobTest, ShardsGiveTheScoresOfTheWhole) {
  TemporaryFolder folder;
  Site site(folder);
  const std::string id = site.CreateJob();
  site.worker->Start();
  ASSERT_EQ(site.Await(id).state, store::JobState::kSucceeded);
  ActivationSums whole(8);
  const AttributionPlan plan = {.tenant = "lab", .layers = {0, 1}};
  ASSERT_TRUE(AddChunk(*site.engine, site.set.responses, plan, Cancellation(), whole).ok());
  StoredVector vector;
  vector.width = 3;
  vector.layers = {0, 1};
  vector.rows = {1, 0, 1, 0, 2, 1};
  const auto expected = ScoreNeurons(*site.engine, whole, vector, vector.layers, std::nullopt, {});
  const auto columns = site.NeuronSetColumns();
  ASSERT_EQ(columns.size(), 2u);
  for (size_t layer = 0; layer < 2; ++layer) {
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_NEAR(columns[layer].scores[i], (*expected)[layer].scores[i], 1e-9);
    }
  }
  EXPECT_GT(std::abs(columns[0].scores[1]), 1e-3);  // <w_1, v> is not zero
}

TEST(AttributeNeuronsJobTest, ACutAndAResumeGiveTheSameBytesAndRepeatNoChunkThatWasCommitted) {
  TemporaryFolder undisturbed_folder;
  Site undisturbed(undisturbed_folder);
  const std::string undisturbed_id = undisturbed.CreateJob();
  undisturbed.worker->Start();
  ASSERT_EQ(undisturbed.Await(undisturbed_id).state, store::JobState::kSucceeded);
  const auto expected = undisturbed.Artifacts(undisturbed_id);
  ASSERT_EQ(expected.size(), 2u);

  TemporaryFolder folder;
  std::string id;
  int64_t before = 0;
  {
    Site site(folder);
    id = site.CreateJob();
    absl::Notification cut;
    // The server stops in the middle of a chunk, which is in the middle of a shard.
    site.engine->before_submit = [&](const engine::Request&) {
      if (site.engine->submitted == 200 && !cut.HasBeenNotified()) cut.Notify();
      return site.engine->submitted >= 200 ? absl::UnavailableError("cut") : absl::OkStatus();
    };
    site.worker->Start();
    cut.WaitForNotification();
    site.worker->Drain();
    before = site.engine->submitted;
  }
  Site again(folder);
  again.worker->Start();
  ASSERT_EQ(again.Await(id).state, store::JobState::kSucceeded);
  EXPECT_EQ(again.Artifacts(id), expected);
  EXPECT_LE(before + again.engine->submitted, kManyResponses + kResponsesPerChunk);
  EXPECT_LT(again.engine->submitted, kManyResponses);
}

TEST(AttributeNeuronsJobTest, WithoutItsModelAJobWaitsAndGoesOnWhereItWasOnceTheModelIsBack) {
  TemporaryFolder undisturbed_folder;
  Site undisturbed(undisturbed_folder);
  const std::string undisturbed_id = undisturbed.CreateJob();
  undisturbed.worker->Start();
  ASSERT_EQ(undisturbed.Await(undisturbed_id).state, store::JobState::kSucceeded);

  TemporaryFolder folder;
  Site site(folder);
  const std::string id = site.CreateJob();
  // The model goes in the middle of a chunk, which is in the middle of a shard.
  site.engine->before_submit = [&](const engine::Request&) {
    if (site.engine->submitted == 200) site.models_.Remove("tiny");
    return absl::OkStatus();
  };
  site.worker->Start();
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  const auto snapshot =
      jobs::AwaitJob(*site.queue, "lab", id, deadline,
                     [](const jobs::JobSnapshot& now) { return !now.waiting_for.empty(); });
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ(snapshot->job.state, store::JobState::kRunning);
  EXPECT_THAT(snapshot->waiting_for, testing::HasSubstr("models/tiny"));

  const auto again = site.models_.Add("tiny", kDigest);
  site.queue->NeedsChanged();
  const store::Job job = site.Await(id);
  ASSERT_EQ(job.state, store::JobState::kSucceeded);
  EXPECT_EQ(job.rescues, 0);
  EXPECT_EQ(site.engine->submitted + again->submitted, kManyResponses) << "no chunk twice";
  EXPECT_EQ(site.Artifacts(id), undisturbed.Artifacts(undisturbed_id));
}

TEST(AttributeNeuronsJobTest, OtherWeightsUnderTheSameNameFailTheJob) {
  TemporaryFolder folder;
  Site site(folder);
  const std::string id = site.CreateJob(std::string(64, 'b'));
  site.worker->Start();
  const store::Job job = site.Await(id);
  ASSERT_EQ(job.state, store::JobState::kFailed);
  EXPECT_EQ(job.error->reason, "WRONG_MODEL");
  EXPECT_EQ(site.engine->submitted, 0);
}

TEST(AttributeNeuronsSpecTest, ComesBackAndDamageIsDataLoss) {
  AttributeNeuronsSpec spec;
  spec.model = "tiny";
  spec.num_responses = 5;
  spec.layers = {0, 3};
  spec.source_layer = 0;
  const std::string json = SpecToJson(spec);
  const auto back = SpecFromJson(json);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(SpecToJson(*back), json);
  EXPECT_EQ(back->source_layer, 0);
  EXPECT_EQ(SpecFromJson("{}").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(SpecFromJson("{\"format_version\": 2}").status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace valuescope::studies
