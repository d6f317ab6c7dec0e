// Captures as jobs: which files there will be, and jobs that are cut and resumed anywhere.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/sha256.h"
#include "kinds/capture_plan.h"
#include "kinds/saved_work.pb.h"
#include "services/idempotency.h"
#include "tests/kinds/cut_job.h"
#include "tests/kinds/small_site.h"

namespace valuescope::kinds {
namespace {

// --- What will be left ---

// 2 layers of 3 numbers of every token, and the means of neurons: 2 of one layer, 1 of another.
std::vector<engine::Tap> Taps() {
  engine::Tap all = {.layers = {0, 1},
                     .tokens = {.kind = engine::TokenKind::kAll, .positions = {}}};
  engine::Tap neurons = all;
  neurons.site = model::Site::kMlpNeurons;
  neurons.reduction = engine::Reduction::kMean;
  neurons.dtype = DType::kBFloat16;
  neurons.columns = {{1, 3}, {0}};
  return {all, neurons};
}

TEST(CapturePlan, SaysNamesShapesAndBytesBeforeAnythingRuns) {
  const CapturePlan plan(Taps(), FakeEngine().architecture(), /*max_file_bytes=*/1);
  std::vector<std::string> told;
  int64_t bytes = 0;
  for (const studies::DeclaredTensor& tensor : plan.TensorsOf(7, {.prompt = 4, .most = 5})) {
    told.push_back(absl::StrCat(tensor.name, " ", NameOf(tensor.dtype), " ",
                                testing::PrintToString(tensor.shape)));
    bytes += tensor.bytes();
  }
  EXPECT_THAT(told, testing::ElementsAre("tap.0.input.7 float32 { 2, 5, 3 }",
                                         "tap.0.input.7.positions int32 { 5 }",
                                         "tap.1.input.7.layer.0 bfloat16 { 1, 1, 2 }",
                                         "tap.1.input.7.layer.1 bfloat16 { 1, 1, 1 }",
                                         "tap.1.input.7.positions int32 { 5 }"));
  EXPECT_EQ(plan.TensorsPerInput(), 5);
  EXPECT_EQ(plan.BytesOf({.prompt = 4, .most = 5}), bytes);
  EXPECT_EQ(bytes, 2 * 5 * 3 * 4 + 5 * 4 + 3 * 2 + 5 * 4);
}

TEST(CapturePlan, FilesAreAsFullAsWholeInputsLetThem) {
  std::mt19937 random(3);
  for (int64_t most : {1, 500, 2000, 100'000}) {
    const CapturePlan plan(Taps(), FakeEngine().architecture(), most);
    std::vector<engine::SequenceExtent> extents;
    for (int i = 0; i < 50; ++i)
      extents.push_back({.prompt = 1, .most = 1 + static_cast<int64_t>(random() % 20)});
    const auto bytes = [&](int64_t first, int64_t end) {
      int64_t sum = 0;
      for (int64_t i = first; i < end; ++i) sum += plan.BytesOf(extents[static_cast<size_t>(i)]);
      return sum;
    };
    int64_t first = 10;
    for (const int64_t end :
         plan.FileEnds({10, 47}, [&](int64_t i) { return extents[static_cast<size_t>(i)]; })) {
      ASSERT_GT(end, first);
      EXPECT_TRUE(end == first + 1 || bytes(first, end) <= most);
      if (end < 47) {
        EXPECT_GT(bytes(first, end + 1), most);
      }
      first = end;
    }
    EXPECT_EQ(first, 47);
  }
}

TEST(CapturePlan, AShardFillsAFileAndStaysSmallItself) {
  const model::Architecture architecture = FakeEngine().architecture();
  const CapturePlan plan(Taps(), architecture, /*max_file_bytes=*/1000);
  EXPECT_EQ(plan.InputsPerShard(/*inputs=*/10, /*bytes=*/1000), 8);
  EXPECT_EQ(plan.InputsPerShard(/*inputs=*/10, /*bytes=*/100'000), 1);
  EXPECT_EQ(plan.InputsPerShard(/*inputs=*/10'000, /*bytes=*/10'000), 875);
  const CapturePlan large(Taps(), architecture, int64_t{1} << 40);
  EXPECT_EQ(large.InputsPerShard(1 << 20, 1 << 20), 2048);
  const std::vector<engine::Tap> many(16, Taps()[1]);
  const CapturePlan split(many, architecture, int64_t{1} << 40);
  EXPECT_EQ(split.InputsPerShard(1 << 20, 1 << 20), (1 << 16) / (16 * 3));
}

// --- Jobs ---

constexpr int kInputs = 150;

v1::JobSpec Spec() {
  v1::JobSpec spec;
  v1::CaptureRequest& request = *spec.mutable_capture();
  request.set_model("models/tiny");
  for (const v1::LabelledResponse& response : SmallSite::Responses(kInputs)) {
    v1::CaptureInput& input = *request.add_inputs();
    *input.mutable_prompt() = response.prompt();
    *input.mutable_response() = response.response();
  }
  v1::Tap& tap = *request.add_taps();
  tap.mutable_tokens()->set_kind(v1::TOKEN_KIND_RESPONSE);
  tap.set_reduction(v1::REDUCTION_MEAN);
  request.set_max_file_bytes(1500);
  return spec;
}

// By file name.
std::map<std::string, std::string> Files(const v1::Job& job) {
  std::map<std::string, std::string> files;
  for (const v1::JobArtifact& artifact : job.result().artifacts()) {
    files[artifact.display_name()] = artifact.sha256();
  }
  return files;
}

class CapturesCutAt : public testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Submissions, CapturesCutAt, testing::Values(40, kInputs - 5));

TEST_P(CapturesCutAt, AResumeLeavesTheSameFilesAndRepeatsNoChunkThatWasCommitted) {
  TemporaryFolder undisturbed_folder;
  SmallSite undisturbed(undisturbed_folder);
  undisturbed.StartWorker();
  const v1::Job whole = undisturbed.Await(*undisturbed.Create(Spec()));
  ASSERT_EQ(whole.state(), v1::JOB_STATE_SUCCEEDED) << whole.error().message();
  EXPECT_GT(Files(whole).size(), 4u);

  const CutJob cut = CutAndResume([](SmallSite&) { return Spec(); }, GetParam());
  ASSERT_EQ(cut.job.state(), v1::JOB_STATE_SUCCEEDED) << cut.job.error().message();
  EXPECT_EQ(Files(cut.job), Files(whole));
  constexpr int64_t kChunk = 16;
  EXPECT_LE(cut.before + cut.after, kInputs + kChunk);
}

// Two chunks in one shard and file.
constexpr int kFewInputs = 20;

v1::JobSpec SpecOfOneFile() {
  v1::JobSpec spec = Spec();
  spec.mutable_capture()->mutable_inputs()->DeleteSubrange(kFewInputs, kInputs - kFewInputs);
  spec.mutable_capture()->set_max_file_bytes(1 << 20);
  return spec;
}

std::set<std::string> BlobPaths(const TemporaryFolder& folder) {
  std::set<std::string> paths;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder / "blobs")) {
    if (entry.path().filename().string().size() == 64) paths.insert(entry.path());
  }
  return paths;
}

// Creates the job. What it then puts aside is changed when the second chunk runs, in the first
// `attempts` of it.
std::string CreateDamaged(SmallSite& site, const TemporaryFolder& folder, int64_t attempts) {
  const std::string name = *site.Create(SpecOfOneFile());
  const std::set<std::string> given = BlobPaths(folder);
  site.engine->before_submit = [&site, &folder, given, attempts](const engine::Request&) {
    const int64_t attempt = site.engine->submitted / kFewInputs;
    if (attempt < attempts && site.engine->submitted % kFewInputs == kFewInputs - 1) {
      for (const std::string& path : BlobPaths(folder)) {
        if (!given.contains(path)) std::ofstream(path) << "damaged";
      }
    }
    return absl::OkStatus();
  };
  return name;
}

TEST(CaptureKind, AShardOfWhichAPartIsDamagedIsDoneAgain) {
  TemporaryFolder undisturbed_folder, folder;
  SmallSite undisturbed(undisturbed_folder), site(folder);
  undisturbed.StartWorker();
  const v1::Job whole = undisturbed.Await(*undisturbed.Create(SpecOfOneFile()));
  ASSERT_EQ(whole.state(), v1::JOB_STATE_SUCCEEDED) << whole.error().message();

  const std::string name = CreateDamaged(site, folder, /*attempts=*/1);
  site.StartWorker();
  const v1::Job job = site.Await(name);
  ASSERT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED) << job.error().message();
  EXPECT_EQ(Files(job), Files(whole));
  EXPECT_EQ(site.engine->submitted, 2 * kFewInputs);
  for (const auto& [file, digest] : Files(job)) {
    const auto bytes = store::ReadBlob(*site.blobs, digest, 1 << 20);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_EQ(Sha256Hex(*bytes), digest) << file;
  }
}

TEST(CaptureKind, WhereEveryPartIsDamagedTheJobFailsWithTheCause) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const std::string name = CreateDamaged(site, folder, /*attempts=*/100);
  site.StartWorker();
  const v1::Job job = site.Await(name);
  EXPECT_EQ(job.state(), v1::JOB_STATE_FAILED);
  EXPECT_EQ(job.error().reason(), "PARTIAL_LOST");
  EXPECT_THAT(job.error().message(), testing::HasSubstr("damaged"));
  EXPECT_EQ(site.engine->submitted, store::RetryPolicy().max_shard_failures * kFewInputs);
}

TEST(CaptureKind, WhatIsStoredWithAJobIsReadBackOrIsDataLoss) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const auto job = site.store->GetJob("lab", IdOf(*site.Create(Spec())));
  services::Kind& kind = site.registry.Get("capture");
  const auto work = kind.Open("lab", job->spec);
  ASSERT_TRUE(work.ok()) << work.status();
  EXPECT_EQ((*work)->extent().units, kInputs);
  EXPECT_EQ((*work)->Save(*site.blobs)->spec, job->spec);
  SavedWork record;
  ASSERT_TRUE(record.ParseFromString(job->spec));
  EXPECT_EQ(record.capture().taps(0).site(), v1::SITE_RESIDUAL_POST) << "defaults are filled in";
  record.mutable_capture()->clear_max_file_bytes();
  for (const std::string& damaged :
       {record.SerializeAsString(), std::string(), job->spec.substr(0, job->spec.size() / 2)}) {
    EXPECT_EQ(kind.Open("lab", damaged).status().code(), absl::StatusCode::kDataLoss);
  }
}

TEST(CaptureKind, AnEngineThatGivesAnotherShapeFailsTheJobAndNotTheServer) {
  TemporaryFolder folder;
  SmallSite site(folder);
  v1::JobSpec spec = Spec();
  // The engine of these tests reduces whatever it is told.
  spec.mutable_capture()->mutable_taps(0)->set_reduction(v1::REDUCTION_NONE);
  site.StartWorker();
  const v1::Job job = site.Await(*site.Create(spec));
  EXPECT_EQ(job.state(), v1::JOB_STATE_FAILED);
  EXPECT_EQ(job.error().reason(), "CAPTURE_DIFFERS");
}

TEST(CaptureKind, WhatNeverFitsIsRefusedBeforeAnythingRuns) {
  TemporaryFolder folder;
  SmallSite site(folder);
  site.engine->most_kept = kInputs;
  EXPECT_EQ(DetailsOf(site.Create(Spec()).status()).reason, "CAPTURES_TOO_LARGE");
  EXPECT_EQ(site.engine->submitted, 0);
}

}  // namespace
}  // namespace valuescope::kinds
