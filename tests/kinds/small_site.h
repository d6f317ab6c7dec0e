// What a server has around its kinds of work: stores in a folder that may be opened again, a model
// whose activations a test can work out, a worker, and the services that answer.
#ifndef VALUESCOPE_TESTS_KINDS_SMALL_SITE_H_
#define VALUESCOPE_TESTS_KINDS_SMALL_SITE_H_

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "jobs/job_queue.h"
#include "jobs/worker.h"
#include "kinds/kinds.h"
#include "services/evaluation_service.h"
#include "services/job_service.h"
#include "services/neuron_service.h"
#include "services/stored_vector_resolver.h"
#include "services/vector_service.h"
#include "store/directory_blob_store.h"
#include "store/sqlite_store.h"
#include "tests/jobs/await_job.h"
#include "tests/store/temporary_folder.h"
#include "tests/studies/fake_engine.h"
#include "tests/text/small_tokenizers.h"

namespace valuescope::kinds {

inline std::string IdOf(const std::string& name) { return name.substr(name.find('/') + 1); }

class SmallSite {
 public:
  static constexpr char kDigest[] =
      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

  explicit SmallSite(const TemporaryFolder& folder,
                     int64_t extraction_scratch_bytes = int64_t{1} << 30)
      : store(*store::OpenSqliteStore(folder / "store.db")),
        blobs(*store::OpenDirectoryBlobStore(folder / "blobs")),
        resolver(store.get(), blobs.get()),
        text_(LoadText(folder)),
        queue(store.get()),
        jobs(&registry, &queue, store.get(), blobs.get(), &replicas, absl::InfiniteDuration()),
        vectors(&models, store.get(), blobs.get(), &registry),
        neurons(&models, store.get(), blobs.get(), &registry),
        evaluation(store.get(), blobs.get(), &registry) {
    engine = AddModel();
    context.tenant = "lab";
    AddKinds({&models, store.get(), blobs.get(), &resolver, extraction_scratch_bytes}, registry);
  }

  std::shared_ptr<FakeEngine> AddModel(const std::string& digest = kDigest,
                                       DType dtype = DType::kFloat32,
                                       std::shared_ptr<FakeEngine> of = nullptr) {
    return models.Add("tiny", digest, text_, dtype, std::move(of));
  }

  // Call it once, when no kind is to be added any more.
  // By default it commits every chunk.
  void StartWorker(absl::Duration commit_interval = absl::ZeroDuration()) {
    const std::vector<valuescope::jobs::JobKind*> kinds = registry.ForWorkers();
    queue.SetKinds({kinds.begin(), kinds.end()});
    valuescope::jobs::WorkerOptions options;
    options.turns.commit_interval = commit_interval;
    worker = std::make_unique<valuescope::jobs::Worker>(&queue, blobs.get(), kinds, options);
    worker->Start();
  }

  // A third of them express.
  static std::vector<v1::LabelledResponse> Responses(int count) {
    std::vector<v1::LabelledResponse> responses;
    for (int i = 0; i < count; ++i) {
      v1::LabelledResponse& response = responses.emplace_back();
      response.mutable_prompt()->mutable_token_ids()->add_ids(1);
      for (const int id : {i % 97, i % 13, i % 7}) {
        response.mutable_response()->mutable_token_ids()->add_ids(id);
      }
      response.set_expresses(i % 3 == 0);
      // Some alone, others in an order that is not that of their names.
      if (i % 5 != 0) response.set_query_id("q" + std::to_string(1000 - i / 4));
    }
    return responses;
  }

  static v1::ExtractVectorsRequest Extraction(int num_responses) {
    v1::ExtractVectorsRequest request;
    request.set_model("models/tiny");
    request.set_bootstrap_samples(20);
    request.set_seed(5);
    for (v1::LabelledResponse& response : Responses(num_responses)) {
      *request.add_responses() = std::move(response);
    }
    return request;
  }

  // Uploads these JSON Lines as artifacts/texts.
  void PutTexts(const std::string& lines) {
    const auto blob = store::WriteBlob(*blobs, lines);
    ASSERT_TRUE(blob.ok()) << blob.status();
    store::Resource resource;
    resource.kind = store::ResourceKind::kArtifact;
    resource.id = "texts";
    resource.digest = blob->digest;
    resource.media_type = "application/x-ndjson";
    resource.blob_digest = blob->digest;
    resource.blob_size = blob->size;
    ASSERT_TRUE(store->PutResources("lab", {resource}, {}).ok());
  }

  // By the vector of these rows, three numbers each, one a layer.
  v1::AttributeNeuronsRequest Attribution(int num_responses,
                                          const std::vector<float>& rows = {1, 0, 1, 0, 2, 1}) {
    const int num_layers = static_cast<int>(rows.size()) / 3;
    v1::CreateVectorRequest create;
    v1::Vector& vector = *create.mutable_vector();
    vector.set_model("models/tiny");
    vector.set_site(v1::SITE_RESIDUAL_POST);
    for (int layer = 0; layer < num_layers; ++layer) vector.add_layers(layer);
    v1::Tensor& data = *vector.mutable_data();
    data.set_dtype(v1::DATA_TYPE_FLOAT32);
    for (const int size : {num_layers, 3}) data.add_shape(size);
    data.set_data(rows.data(), rows.size() * sizeof(float));
    v1::CreateVectorResponse created;
    EXPECT_EQ(vectors.CreateVector(context, create, &created), absl::OkStatus());
    v1::AttributeNeuronsRequest request;
    request.set_model("models/tiny");
    request.set_vector(created.vector().name());
    request.mutable_direct_contribution();
    request.set_top_k(3);
    for (v1::LabelledResponse& response : Responses(num_responses)) {
      *request.add_responses() = std::move(response);
    }
    return request;
  }

  absl::StatusOr<std::string> Create(const v1::JobSpec& spec) {
    v1::CreateJobRequest request;
    *request.mutable_spec() = spec;
    v1::CreateJobResponse response;
    VS_RETURN_IF_ERROR(jobs.CreateJob(context, request, &response));
    return response.job().name();
  }

  // The job once it is finished.
  v1::Job Await(const std::string& name) {
    const auto snapshot = valuescope::jobs::AwaitJob(
        queue, "lab", name.substr(name.find('/') + 1), absl::Now() + absl::Seconds(60),
        [](const auto& now) { return store::IsFinished(now.job.state); });
    EXPECT_TRUE(snapshot.ok()) << snapshot.status();
    v1::GetJobRequest request;
    request.set_name(name);
    v1::GetJobResponse response;
    EXPECT_EQ(jobs.GetJob(context, request, &response), absl::OkStatus());
    return response.job();
  }

  // The job once it waits for something.
  absl::StatusOr<valuescope::jobs::JobSnapshot> AwaitWaiting(const std::string& name) {
    return valuescope::jobs::AwaitJob(
        queue, "lab", IdOf(name), absl::Now() + absl::Seconds(60),
        [](const valuescope::jobs::JobSnapshot& now) { return !now.waiting_for.empty(); });
  }

  // Digest of each artifact by role.
  static std::map<std::string, std::string> Artifacts(const v1::Job& job) {
    std::map<std::string, std::string> digests;
    for (const v1::JobArtifact& artifact : job.result().artifacts()) {
      digests[artifact.role()] = artifact.sha256();
    }
    return digests;
  }

  FakeModels models;
  std::shared_ptr<FakeEngine> engine;
  const std::unique_ptr<store::Store> store;
  const std::unique_ptr<store::BlobStore> blobs;
  services::StoredVectorResolver resolver;
  services::KindRegistry registry;
  rpc::CallContext context;

 private:
  static std::shared_ptr<const text::TextModel> LoadText(const TemporaryFolder& folder) {
    std::filesystem::create_directories(folder / "text");
    std::ofstream(folder / "text/tokenizer.json") << text::ByteLevelTokenizer();
    std::ofstream(folder / "text/chat_template.jinja")
        << "{% for m in messages %}{{ m.role[0] | upper }}{{ m.content }}{% endfor %}";
    auto text = text::TextModel::Load(folder / "text");
    EXPECT_TRUE(text.ok()) << text.status();
    return *std::move(text);
  }

  const std::shared_ptr<const text::TextModel> text_;

 public:
  valuescope::jobs::JobQueue queue;
  const services::Replicas replicas{[this] { return queue.Replicas(); }, ""};
  services::JobService jobs;
  services::VectorService vectors;
  services::NeuronService neurons;
  services::EvaluationService evaluation;
  std::unique_ptr<valuescope::jobs::Worker> worker;
};

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_TESTS_KINDS_SMALL_SITE_H_
