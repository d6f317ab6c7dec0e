// The kinds of work through the services, real stores and a real worker, over a small model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <optional>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "analysis/linear_probe.h"
#include "base/error.h"
#include "base/memory_ledger.h"
#include "nlohmann/json.hpp"
#include "services/idempotency.h"
#include "studies/named_content.h"
#include "tests/kinds/cut_job.h"
#include "tests/kinds/small_site.h"

namespace valuescope::kinds {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr int kMany = 600;  // more chunks than an attribution has shards

v1::JobSpec SpecOf(const v1::ExtractVectorsRequest& request) {
  v1::JobSpec spec;
  *spec.mutable_extract_vectors() = request;
  return spec;
}

v1::JobSpec SpecOf(const v1::AttributeNeuronsRequest& request) {
  v1::JobSpec spec;
  *spec.mutable_attribute_neurons() = request;
  return spec;
}

// Each kind's spec over many responses.
v1::JobSpec ManyOf(absl::string_view kind, SmallSite& site) {
  return kind == "extract_vectors" ? SpecOf(SmallSite::Extraction(kMany))
                                   : SpecOf(site.Attribution(kMany));
}

class EachKind : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Kinds, EachKind, testing::Values("attribute_neurons", "extract_vectors"),
                         [](const auto& kind) { return std::string(kind.param); });

// A name is the digest of all content: rows, statistics, provenance.
TEST(ExtractVectorsKind, AJobMakesTheVectorOfTheCallToTheBit) {
  TemporaryFolder folder;
  SmallSite site(folder);
  v1::ExtractVectorsRequest request = SmallSite::Extraction(100);
  v1::Intervention& intervention = *request.add_interventions();
  intervention.mutable_layers()->mutable_list()->add_layers(1);
  intervention.mutable_add()->set_vector(site.Attribution(4).vector());
  v1::ExtractVectorsResponse call;
  ASSERT_EQ(site.vectors.ExtractVectors(site.context, request, &call), absl::OkStatus());
  site.StartWorker();
  const auto name = site.Create(SpecOf(request));
  ASSERT_TRUE(name.ok()) << name.status();
  const v1::Job job = site.Await(*name);
  ASSERT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED) << job.error().message();
  EXPECT_THAT(job.result().vectors(), ElementsAre(call.vector().name()));
  EXPECT_EQ(job.progress().total(), 100);
  EXPECT_EQ(job.progress().shards_total(), 7);
  EXPECT_EQ(job.progress().unit(), "responses");
  EXPECT_EQ(job.result().summary().fields().at("num_expressing").number_value(), 34);
  // The model, the responses and the vector of the intervention.
  EXPECT_EQ(job.result().digests_size(), call.digests_size());
}

TEST(ExtractVectorsKind, WhatChoosesTheVectorIsRecordedAndAJobKeepsToIt) {
  TemporaryFolder folder;
  SmallSite site(folder);
  site.StartWorker();
  std::set<std::string> names;
  struct Choice {
    v1::ExtractionMethod method;
    v1::Pooling pooling;
    std::string summary;
    std::optional<double> inverse_regularization = std::nullopt;
  };
  for (const Choice& choice : std::vector<Choice>{
           {v1::EXTRACTION_METHOD_UNSPECIFIED, v1::POOLING_UNSPECIFIED, "difference_in_means"},
           {v1::EXTRACTION_METHOD_UNSPECIFIED, v1::POOLING_TOKEN_MEAN, "difference_in_means"},
           {v1::EXTRACTION_METHOD_UNSPECIFIED, v1::POOLING_LAST_TOKEN, "difference_in_means"},
           {v1::EXTRACTION_METHOD_UNSPECIFIED, v1::POOLING_LAST_PROMPT_TOKEN,
            "difference_in_means"},
           {v1::EXTRACTION_METHOD_PCA, v1::POOLING_UNSPECIFIED, "pca"},
           {v1::EXTRACTION_METHOD_PCA, v1::POOLING_TOKEN_MEAN, "pca"},
           {v1::EXTRACTION_METHOD_PCA_CENTERED, v1::POOLING_UNSPECIFIED, "pca_centered"},
           {v1::EXTRACTION_METHOD_LINEAR_PROBE, v1::POOLING_UNSPECIFIED, "linear_probe"},
           {v1::EXTRACTION_METHOD_LINEAR_PROBE, v1::POOLING_UNSPECIFIED, "linear_probe", 0.01},
           {v1::EXTRACTION_METHOD_LINEAR_PROBE, v1::POOLING_LAST_TOKEN, "linear_probe"}}) {
    v1::ExtractVectorsRequest request = SmallSite::Extraction(40);
    request.set_method(choice.method);
    request.set_pooling(choice.pooling);
    if (choice.inverse_regularization) {
      request.set_inverse_regularization(*choice.inverse_regularization);
    }
    v1::ExtractVectorsResponse call;
    ASSERT_EQ(site.vectors.ExtractVectors(site.context, request, &call), absl::OkStatus());
    EXPECT_EQ(call.vector().provenance().pooling(), choice.pooling == v1::POOLING_UNSPECIFIED
                                                        ? v1::POOLING_RESPONSE_MEAN
                                                        : choice.pooling);
    EXPECT_TRUE(names.insert(call.vector().name()).second) << choice.summary;
    const std::string name = *site.Create(SpecOf(request));
    const v1::Job job = site.Await(name);
    ASSERT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED) << job.error().message();
    EXPECT_THAT(job.result().vectors(), ElementsAre(call.vector().name()));
    EXPECT_EQ(job.result().summary().fields().at("method").string_value(), choice.summary);
    const bool as_ever = choice.method == v1::EXTRACTION_METHOD_UNSPECIFIED &&
                         choice.pooling == v1::POOLING_UNSPECIFIED;
    SavedWork record;
    ASSERT_TRUE(
        record.ParseFromString(site.store->GetJob("lab", name.substr(name.find('/') + 1))->spec));
    EXPECT_EQ(record.extract_vectors().has_how(), !as_ever);
  }
}

TEST(ExtractVectorsKind, OptionsThatDoNotExistOrDoNotFitAreRefusedByName) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const auto refused = [&](const std::function<void(v1::ExtractVectorsRequest&)>& change) {
    v1::ExtractVectorsRequest request = SmallSite::Extraction(8);
    change(request);
    const absl::Status status = site.Create(SpecOf(request)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return DetailsOf(status).field + " " + DetailsOf(status).reason;
  };
  const std::string spec = "spec.extract_vectors.";
  EXPECT_EQ(refused([](auto& r) { r.set_pooling(static_cast<v1::Pooling>(99)); }),
            spec + "pooling INVALID_FIELD");
  EXPECT_EQ(refused([](auto& r) { r.set_method(static_cast<v1::ExtractionMethod>(99)); }),
            spec + "method INVALID_FIELD");
  EXPECT_EQ(refused([](auto& r) { r.set_inverse_regularization(1); }),
            spec + "inverse_regularization INVALID_FIELD");
  for (const double c : {0.0, -1.0, 1e7, std::nan(""), HUGE_VAL}) {
    EXPECT_EQ(refused([c](auto& r) {
                r.set_method(v1::EXTRACTION_METHOD_LINEAR_PROBE);
                r.set_inverse_regularization(c);
              }),
              spec + "inverse_regularization OUT_OF_RANGE");
  }
  EXPECT_EQ(refused([](auto& r) {
              r.set_method(v1::EXTRACTION_METHOD_LINEAR_PROBE);
              r.set_pooling(v1::POOLING_TOKEN_MEAN);
            }),
            spec + "pooling INVALID_FIELD");
  EXPECT_EQ(refused([](auto& r) {
              r.set_method(v1::EXTRACTION_METHOD_PCA);
              for (auto& response : *r.mutable_responses()) response.clear_query_id();
            }),
            spec + "responses TOO_FEW_PAIRS");
  EXPECT_EQ(refused([](auto& r) {
              r.set_method(v1::EXTRACTION_METHOD_PCA_CENTERED);
              for (auto& response : *r.mutable_responses()) response.set_query_id("one");
            }),
            spec + "responses TOO_FEW_PAIRS");
  EXPECT_EQ(refused([](auto& r) {
              r.set_method(v1::EXTRACTION_METHOD_LINEAR_PROBE);
              for (auto& response : *r.mutable_responses()) response.set_expresses(true);
            }),
            spec + "responses EMPTY_LABEL");
  EXPECT_EQ(refused([](auto& r) {
              r.set_method(v1::EXTRACTION_METHOD_LINEAR_PROBE);
              const v1::LabelledResponse one = r.responses(0);
              for (int i = 0; i < 2048; ++i) *r.add_responses() = one;
            }),
            spec + "responses TOO_MANY_RESPONSES");
}

TEST(AttributeNeuronsKind, AJobMakesTheSetOfTheCallToTheBit) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const v1::AttributeNeuronsRequest request = site.Attribution(kMany);
  v1::AttributeNeuronsResponse call;
  ASSERT_EQ(site.neurons.AttributeNeurons(site.context, request, &call), absl::OkStatus());
  EXPECT_GT(std::abs(call.neuron_set().top(0).score()), 1e-3);
  site.StartWorker();
  const auto name = site.Create(SpecOf(request));
  ASSERT_TRUE(name.ok()) << name.status();
  const v1::Job job = site.Await(*name);
  ASSERT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED) << job.error().message();
  EXPECT_THAT(job.result().neuron_sets(), ElementsAre(call.neuron_set().name()));
  // Of chunks, and never too many.
  EXPECT_EQ(job.progress().shards_total(), 19);
}

TEST_P(EachKind, ACutAndAResumeGiveTheSameBytesAndRepeatNoChunkThatWasCommitted) {
  TemporaryFolder undisturbed_folder;
  SmallSite undisturbed(undisturbed_folder);
  undisturbed.StartWorker();
  const v1::Job whole = undisturbed.Await(*undisturbed.Create(ManyOf(GetParam(), undisturbed)));
  ASSERT_EQ(whole.state(), v1::JOB_STATE_SUCCEEDED) << whole.error().message();

  const CutJob cut =
      CutAndResume([](SmallSite& site) { return ManyOf(GetParam(), site); }, /*submissions=*/200);
  ASSERT_EQ(cut.job.state(), v1::JOB_STATE_SUCCEEDED) << cut.job.error().message();
  EXPECT_EQ(SmallSite::Artifacts(cut.job), SmallSite::Artifacts(whole));
  EXPECT_EQ(services::DeterministicBytes(cut.job.result().summary()),
            services::DeterministicBytes(whole.result().summary()));
  EXPECT_LE(cut.before + cut.after, kMany + kResponsesPerChunk);
  EXPECT_LT(cut.after, kMany);
}

TEST_P(EachKind, WithoutItsModelAJobWaitsAndGoesOnWhereItWasOnceTheModelIsBack) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const std::string name = *site.Create(ManyOf(GetParam(), site));
  // The model goes in the middle of a chunk, which is in the middle of a shard.
  site.engine->before_submit = [&](const engine::Request&) {
    if (site.engine->submitted == 200) site.models.Remove("tiny");
    return absl::OkStatus();
  };
  site.StartWorker();
  const auto snapshot = site.AwaitWaiting(name);
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ(snapshot->job.state, store::JobState::kRunning);
  EXPECT_THAT(snapshot->waiting_for, HasSubstr("models/tiny"));

  const auto engine = site.AddModel();
  site.queue.NeedsChanged();
  const v1::Job job = site.Await(name);
  ASSERT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED) << job.error().message();
  EXPECT_EQ(job.rescues(), 0);
  EXPECT_EQ(site.engine->submitted + engine->submitted, kMany) << "no chunk twice";
}

TEST_P(EachKind, OtherWeightsUnderTheSameNameKeepTheJobWaiting) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const std::string name = *site.Create(ManyOf(GetParam(), site));
  const auto other = site.AddModel(std::string(64, 'b'));
  site.StartWorker();
  const auto waiting = site.AwaitWaiting(name);
  ASSERT_TRUE(waiting.ok()) << waiting.status();
  EXPECT_EQ(waiting->job.state, store::JobState::kQueued);
  EXPECT_THAT(waiting->waiting_for, HasSubstr("`models/tiny` has other weights (SHA-256 bbbb"));
  EXPECT_EQ(other->submitted, 0);

  site.AddModel();
  site.queue.NeedsChanged();
  EXPECT_EQ(site.Await(name).state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(other->submitted, 0);
}

// As servers made it that knew the model by its name alone.
TEST_P(EachKind, OtherWeightsUnderTheSameNameFailAnEarlierJob) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const auto made = site.store->GetJob("lab", IdOf(*site.Create(ManyOf(GetParam(), site))));
  ASSERT_TRUE(made.ok()) << made.status();
  SavedWork record;
  ASSERT_TRUE(record.ParseFromString(made->spec));
  record.set_format_version(5);
  store::NewJob earlier;
  earlier.tenant = "lab";
  earlier.kind = made->kind;
  earlier.num_shards = made->num_shards;
  earlier.total_work = made->total_work;
  earlier.needs = "models/tiny";
  earlier.spec = record.SerializeAsString();
  ASSERT_TRUE(site.queue.Cancel("lab", made->id).ok());
  const auto created = site.queue.Create(earlier, {});
  ASSERT_TRUE(created.ok()) << created.status();
  site.AddModel(std::string(64, 'b'));
  site.StartWorker();
  const v1::Job job = site.Await(absl::StrCat("jobs/", created->job.id));
  ASSERT_EQ(job.state(), v1::JOB_STATE_FAILED);
  EXPECT_EQ(job.error().reason(), "WRONG_MODEL");
}

// Half of the numbers would be of one type and half of another.
TEST_P(EachKind, TheModelInAnotherTypeKeepsTheJobWaitingUntilItIsBack) {
  TemporaryFolder undisturbed_folder;
  SmallSite undisturbed(undisturbed_folder);
  undisturbed.StartWorker();
  const v1::Job whole = undisturbed.Await(*undisturbed.Create(ManyOf(GetParam(), undisturbed)));

  TemporaryFolder folder;
  SmallSite site(folder);
  const std::string name = *site.Create(ManyOf(GetParam(), site));
  site.engine->before_submit = [&](const engine::Request&) {
    if (site.engine->submitted == 200) site.AddModel(SmallSite::kDigest, DType::kBFloat16);
    return absl::OkStatus();
  };
  site.StartWorker();
  const auto waiting = site.AwaitWaiting(name);
  ASSERT_TRUE(waiting.ok()) << waiting.status();
  EXPECT_EQ(waiting->job.state, store::JobState::kRunning);
  EXPECT_THAT(waiting->waiting_for,
              AllOf(HasSubstr("computes in another way (BFLOAT16, to rounding)"),
                    HasSubstr("(FLOAT32, bitwise on cpu float32)")));

  site.AddModel();
  site.queue.NeedsChanged();
  const v1::Job job = site.Await(name);
  ASSERT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED) << job.error().message();
  EXPECT_EQ(SmallSite::Artifacts(job), SmallSite::Artifacts(whole));
}

TEST(ExtractVectorsKind, WhatNoResponseCanRunWithIsRefusedBeforeAJobIsMade) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const auto field_of = [&](absl::string_view field) {
    site.engine->before_check = [=](const engine::Request& request) {
      return request.given_response.back() == 1 ? InvalidField(field, "is wrong")
                                                : absl::OkStatus();
    };
    v1::ExtractVectorsRequest request = SmallSite::Extraction(3);
    request.mutable_responses(1)->mutable_response()->mutable_token_ids()->add_ids(1);
    return DetailsOf(site.Create(SpecOf(request)).status()).field;
  };
  EXPECT_EQ(field_of("interventions[0].tokens.positions[0]"),
            "spec.extract_vectors.interventions[0].tokens.positions[0]");
  EXPECT_EQ(field_of("prompt"), "spec.extract_vectors.responses[1].prompt");
}

TEST_P(EachKind, WhatIsStoredWithAJobIsReadBackOrIsDataLoss) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const std::string name = *site.Create(ManyOf(GetParam(), site));
  const auto job = site.store->GetJob("lab", name.substr(name.find('/') + 1));
  services::Kind& kind = site.registry.Get(GetParam());
  const auto work = kind.Open("lab", job->spec);
  ASSERT_TRUE(work.ok()) << work.status();
  EXPECT_EQ((*work)->extent().units, kMany);
  EXPECT_EQ((*work)->Save(*site.blobs)->spec, job->spec);
  for (const std::string& damaged :
       {std::string(), std::string("{}"), std::string("{\"format_version\": 3}"),
        job->spec.substr(0, job->spec.size() / 2), std::string(100, 'x')}) {
    EXPECT_EQ(kind.Open("lab", damaged).status().code(), absl::StatusCode::kDataLoss) << damaged;
  }
}

// 600 responses of a prompt's token and three of their own.
TEST_P(EachKind, AnEstimateIsOfTheSpeedThatTheModelHasHad) {
  TemporaryFolder folder;
  SmallSite site(folder);
  v1::CreateJobRequest request;
  *request.mutable_spec() = ManyOf(GetParam(), site);
  request.set_validate_only(true);
  v1::CreateJobResponse fresh, measured;
  ASSERT_EQ(site.jobs.CreateJob(site.context, request, &fresh), absl::OkStatus());
  EXPECT_EQ(fresh.estimate().tokens(), 2400);
  EXPECT_EQ(fresh.estimate().forwards(), kMany);
  site.engine->told.prompt_step_tokens = 1000;
  site.engine->told.prompt_step_time = absl::Seconds(500);
  ASSERT_EQ(site.jobs.CreateJob(site.context, request, &measured), absl::OkStatus());
  EXPECT_EQ(measured.estimate().duration().seconds(), 1201);
  EXPECT_LT(fresh.estimate().duration().seconds(), 100);
}

// Servers before SavedWork wrote the spec of an attribution as JSON.
TEST(AttributeNeuronsKind, AJobThatWaitsInAnOlderStoreIsDone) {
  TemporaryFolder folder;
  SmallSite site(folder);
  site.StartWorker();
  const std::string name = *site.Create(SpecOf(site.Attribution(kMany)));
  const v1::Job now = site.Await(name);
  SavedWork record;
  const auto stored = site.store->GetJob("lab", name.substr(name.find('/') + 1));
  ASSERT_TRUE(record.ParseFromString(stored->spec));
  store::NewJob old;
  old.tenant = "lab";
  old.kind = "attribute_neurons";
  old.num_shards = 19;
  old.total_work = kMany;
  old.needs = "models/tiny";
  old.spec = nlohmann::json({{"data_set_blob", record.data_set()},
                             {"display_name", ""},
                             {"format_version", 1},
                             {"layers", {0, 1}},
                             {"model", "tiny"},
                             {"model_digest", SmallSite::kDigest},
                             {"num_responses", kMany},
                             {"provenance", studies::NamedContent(record.provenance())},
                             {"responses_per_shard", 32},
                             {"source_layer", nullptr},
                             {"top_k", 3},
                             {"vector_digest", record.attribute_neurons().vector_digest()},
                             {"vector_id", record.attribute_neurons().vector()}})
                 .dump();
  const auto created = site.queue.Create(old, {});
  ASSERT_TRUE(created.ok()) << created.status();
  const v1::Job job = site.Await(absl::StrCat("jobs/", created->job.id));
  ASSERT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED) << job.error().message();
  EXPECT_EQ(SmallSite::Artifacts(job), SmallSite::Artifacts(now));
}

// Their partial results hold no norms of tokens, and some may be stored already.
TEST(ExtractVectorsKind, AJobOfAServerThatReadNoTokenNormsIsDoneWithoutThem) {
  TemporaryFolder folder;
  SmallSite site(folder);
  site.StartWorker();
  const std::string name = *site.Create(SpecOf(SmallSite::Extraction(kMany)));
  const v1::Job now = site.Await(name);
  ASSERT_EQ(now.state(), v1::JOB_STATE_SUCCEEDED) << now.error().message();
  SavedWork record;
  const auto stored = site.store->GetJob("lab", name.substr(name.find('/') + 1));
  ASSERT_TRUE(record.ParseFromString(stored->spec));
  ASSERT_TRUE(record.extract_vectors().token_norms());
  record.mutable_extract_vectors()->clear_token_norms();
  store::NewJob old;
  old.tenant = "lab";
  old.kind = "extract_vectors";
  old.num_shards = (kMany + kResponsesPerChunk - 1) / kResponsesPerChunk;
  old.total_work = kMany;
  old.needs = "models/tiny";
  old.spec = record.SerializeAsString();
  const auto created = site.queue.Create(old, {});
  ASSERT_TRUE(created.ok()) << created.status();
  const v1::Job job = site.Await(absl::StrCat("jobs/", created->job.id));
  ASSERT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED) << job.error().message();
  const auto norms_of_means = [&](const v1::Job& of) {
    const auto done = site.store->GetJob("lab", of.name().substr(of.name().find('/') + 1));
    return absl::StrContains(done->result, "norm of response means");
  };
  EXPECT_TRUE(norms_of_means(job));
  EXPECT_FALSE(norms_of_means(now));
}

// Norms of tokens, a float for each layer of each response, and what the probe works with.
int64_t MemoryOfProbe(int64_t responses) {
  return responses * 2 * 4 + analysis::LinearProbesBytes(responses, /*width=*/3);
}

v1::ExtractVectorsRequest ProbeOf(int num_responses) {
  v1::ExtractVectorsRequest request = SmallSite::Extraction(num_responses);
  request.set_method(v1::EXTRACTION_METHOD_LINEAR_PROBE);
  return request;
}

TEST(ExtractVectorsKind, MoreThanAnEngineKeepsIsRefusedBeforeAJobIsMade) {
  TemporaryFolder folder;
  SmallSite site(folder);
  site.engine->most_kept = MemoryOfProbe(100) - 1;
  const auto refused = site.Create(SpecOf(ProbeOf(100)));
  EXPECT_EQ(DetailsOf(refused.status()).reason, "CAPTURES_TOO_LARGE");
  site.engine->most_kept += 1;
  EXPECT_TRUE(site.Create(SpecOf(ProbeOf(100))).ok());
}

TEST(ExtractVectorsKind, MeansOfManyResponsesAreOnDiskWhichTheEstimateTells) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const int64_t rows = kMany * 2 * 3 * 4, norms = kMany * 2 * 4;  // layers, width, floats
  const auto scratch_bytes = [&](int responses) {
    v1::CreateJobRequest request;
    *request.mutable_spec() = SpecOf(SmallSite::Extraction(responses));
    request.set_validate_only(true);
    v1::CreateJobResponse response;
    EXPECT_EQ(site.jobs.CreateJob(site.context, request, &response), absl::OkStatus());
    return response.estimate().scratch_bytes();
  };
  EXPECT_EQ(scratch_bytes(kMany), 2 * rows + norms);
}

TEST(AttributeNeuronsKind, SumsThatNeverFitAreRefusedBeforeAnythingRuns) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const v1::AttributeNeuronsRequest request = site.Attribution(40);
  const int64_t vectors_extracted = site.engine->submitted;
  site.engine->most_kept = 2 * 4 * 9 * 8 - 1;  // layers, intermediate, sums and columns, double
  v1::AttributeNeuronsResponse response;
  const absl::Status refused = site.neurons.AttributeNeurons(site.context, request, &response);
  EXPECT_EQ(DetailsOf(refused).reason, "CAPTURES_TOO_LARGE");
  EXPECT_EQ(DetailsOf(site.Create(SpecOf(request)).status()).reason, "CAPTURES_TOO_LARGE");
  EXPECT_EQ(site.engine->submitted, vectors_extracted);
  site.engine->most_kept += 1;
  EXPECT_EQ(site.neurons.AttributeNeurons(site.context, request, &response), absl::OkStatus());
}

// A worker reads the record for every shard.
TEST(ResponseWork, ALargeRecordIsNotStorable) {
  ResponseInputs inputs;
  rpc::CallContext context;
  EXPECT_EQ(CheckStorable(inputs, context), absl::OkStatus());
  v1::Intervention& intervention = *inputs.record.mutable_extract_vectors()->add_interventions();
  intervention.mutable_add()->mutable_tensor()->set_data(std::string(size_t{9} << 20, 'x'));
  EXPECT_EQ(DetailsOf(CheckStorable(inputs, context)).reason, "SPEC_TOO_LARGE");
}

TEST(ExtractVectorsKind, ACallRefusesWhatItWouldKeepBeforeAnythingRuns) {
  TemporaryFolder folder;
  SmallSite site(folder);
  site.engine->most_kept = MemoryOfProbe(100) - 1;
  v1::ExtractVectorsResponse response;
  const absl::Status refused = site.vectors.ExtractVectors(site.context, ProbeOf(100), &response);
  EXPECT_EQ(DetailsOf(refused).reason, "CAPTURES_TOO_LARGE");
  EXPECT_EQ(site.engine->submitted, 0);
}

TEST(ExtractVectorsKind, ACallThatIsStoppedSaysWhyAndRunsLittleMore) {
  TemporaryFolder folder;
  SmallSite site(folder);
  site.engine->before_submit = [&](const engine::Request&) {
    site.context.Stop(absl::DeadlineExceededError("late"));
    return absl::OkStatus();
  };
  v1::ExtractVectorsResponse response;
  const absl::Status stopped =
      site.vectors.ExtractVectors(site.context, SmallSite::Extraction(kMany), &response);
  EXPECT_EQ(stopped.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_LT(site.engine->submitted, 100);
}

TEST(ExtractVectorsKind, TellsWhatTheCacheSpared) {
  TemporaryFolder folder;
  SmallSite site(folder);
  site.engine->cached_tokens = 5;
  v1::ExtractVectorsResponse response;
  ASSERT_EQ(site.vectors.ExtractVectors(site.context, SmallSite::Extraction(40), &response),
            absl::OkStatus());
  EXPECT_EQ(response.usage().cached_prompt_tokens(), 200);
}

// Whoever asks again later may have it.
TEST(ExtractVectorsKind, ALineThatThereIsNoMemoryForIsNoFaultOfTheFile) {
  TemporaryFolder folder;
  SmallSite site(folder);
  site.PutTexts(R"({"prompt": {"token_ids": {"ids": [1, 2, 3, 4]}},)"
                R"( "response": {"token_ids": {"ids": [5, 6, 7, 8]}}, "expresses": true})");
  MemoryLedger small(16);
  site.context.memory = &small;
  v1::ExtractVectorsRequest request;
  request.set_model("models/tiny");
  request.set_artifact("artifacts/texts");
  v1::ExtractVectorsResponse response;
  EXPECT_EQ(site.vectors.ExtractVectors(site.context, request, &response).code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace valuescope::kinds
