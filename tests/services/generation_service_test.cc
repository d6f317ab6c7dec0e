// Generation, scoring and capture over real gRPC with an engine that does what the test says.
#include "services/generation_service.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <array>
#include <climits>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "bindings/bindings.h"
#include "services/activation_service.h"
#include "services/model_service.h"
#include "tests/services/scripted_engine.h"
#include "valuescope/v1/activations.grpc.pb.h"
#include "valuescope/v1/generation.grpc.pb.h"
#include "valuescope/v1/models.grpc.pb.h"

namespace valuescope::services {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

class GenerationServiceTest : public testing::Test {
 protected:
  GenerationServiceTest() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    for (const auto& binding : bindings_) builder.RegisterService(binding.get());
    server_ = builder.BuildAndStart();
    auto channel = grpc::CreateChannel("127.0.0.1:" + std::to_string(port),
                                       grpc::InsecureChannelCredentials());
    generation_ = v1::GenerationService::NewStub(channel);
    activations_ = v1::ActivationService::NewStub(channel);
    models_stub_ = v1::ModelService::NewStub(channel);
  }

  ~GenerationServiceTest() override {
    EXPECT_TRUE(runtime_.WaitUntilIdle(absl::Now() + absl::Seconds(20)));
    server_->Shutdown();
  }

  template <typename Request>
  static Request Asking() {
    Request request;
    request.set_model("models/m");
    request.mutable_prompt()->mutable_token_ids()->add_ids(1);
    request.mutable_prompt()->mutable_token_ids()->add_ids(2);
    return request;
  }

  std::shared_ptr<ScriptedEngine> engine_ = std::make_shared<ScriptedEngine>();
  OneModel models_{engine_};
  NoVectors vectors_;
  rpc::OpenAuthenticator authenticator_;
  observability::Metrics metrics_{"test"};
  rpc::CallRuntime runtime_{&authenticator_, &metrics_, {.heartbeat = absl::Milliseconds(10)}};
  GenerationService generation_service_{&metrics_, &models_, &vectors_};
  ActivationService activation_service_{&models_, &vectors_};
  const Replicas replicas_{[] { return std::vector<store::Replica>(); }, ""};
  ModelService model_service_{runtime_.clock(), &models_, nullptr,
                              &replicas_};  // no job is asked for
  const std::array<std::unique_ptr<rpc::RpcService>, 3> bindings_ = {
      bindings::Bind(&runtime_, &generation_service_),
      bindings::Bind(&runtime_, &activation_service_), bindings::Bind(&runtime_, &model_service_)};
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::GenerationService::Stub> generation_;
  std::unique_ptr<v1::ActivationService::Stub> activations_;
  std::unique_ptr<v1::ModelService::Stub> models_stub_;
};

TEST_F(GenerationServiceTest, CompletionsComeByIndexWithSeedsThatDrawThemAgain) {
  auto request = Asking<v1::GenerateRequest>();
  request.set_n(3);
  request.mutable_sampling()->set_seed(7);
  request.set_return_prompt_token_ids(true);
  grpc::ClientContext context;
  v1::GenerateResponse response;
  const grpc::Status status = generation_->Generate(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.completions_size(), 3);
  std::set<uint64_t> seeds;
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(response.completions(i).index(), i);
    EXPECT_EQ(response.completions(i).text(), "t5t6t7");
    EXPECT_THAT(response.completions(i).token_ids(), ElementsAre(5, 6, 7));
    EXPECT_EQ(response.completions(i).finish_reason(), v1::FINISH_REASON_LENGTH);
    EXPECT_FALSE(response.completions(i).has_logprobs());
    seeds.insert(response.completions(i).seed());
  }
  EXPECT_THAT(seeds, SizeIs(3));
  EXPECT_EQ(response.seed(), 7u);
  EXPECT_EQ(response.completions(0).seed(), 7u);
  EXPECT_EQ(engine_->requests()[1].sampling->seed, response.completions(1).seed());
  EXPECT_EQ(response.usage().prompt_tokens(), 2);
  EXPECT_EQ(response.usage().generated_tokens(), 9);
  EXPECT_THAT(response.prompt_token_ids(), ElementsAre(1, 2));
  ASSERT_EQ(response.digests_size(), 1);
  EXPECT_EQ(response.digests(0).name(), "models/m");
  EXPECT_EQ(response.digests(0).digest(), "weights");
  EXPECT_THAT(metrics_.Page({}), HasSubstr("valuescope_time_to_first_token_seconds_count 3"));
}

TEST_F(GenerationServiceTest, AStreamJoinsToTheCompletionAndEndsWithOneSummary) {
  auto request = Asking<v1::StreamGenerateRequest>();
  request.set_n(2);
  grpc::ClientContext context;
  const auto reader = generation_->StreamGenerate(&context, request);
  std::string text[2];
  int ends = 0, summaries = 0;
  v1::StreamGenerateResponse event;
  while (reader->Read(&event)) {
    EXPECT_EQ(summaries, 0);
    if (event.has_delta()) text[event.delta().index()] += event.delta().text();
    if (event.has_completion()) {
      EXPECT_EQ(text[event.completion().index()], "t5t6t7");
      EXPECT_EQ(event.completion().text(), "");
      ++ends;
    }
    if (event.has_summary()) {
      EXPECT_EQ(event.summary().usage().generated_tokens(), 6);
      ++summaries;
    }
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(ends, 2);
  EXPECT_EQ(summaries, 1);
}

TEST_F(GenerationServiceTest, AClientThatLeavesCancelsEveryCompletion) {
  engine_->hold = true;
  auto request = Asking<v1::GenerateRequest>();
  request.set_n(4);
  grpc::ClientContext context;
  std::thread leaver([&] {
    engine_->WaitForHeld(4);
    context.TryCancel();
  });
  v1::GenerateResponse response;
  EXPECT_EQ(generation_->Generate(&context, request, &response).error_code(),
            grpc::StatusCode::CANCELLED);
  leaver.join();
  EXPECT_TRUE(runtime_.WaitUntilIdle(absl::Now() + absl::Seconds(20)));
  EXPECT_EQ(engine_->cancelled(), 4);
}

TEST_F(GenerationServiceTest, StreamsSayThatTheyLiveWhileTheEngineWorks) {
  engine_->hold = true;
  {
    grpc::ClientContext context;
    const auto reader = generation_->StreamGenerate(&context, Asking<v1::StreamGenerateRequest>());
    v1::StreamGenerateResponse event;
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(reader->Read(&event));
      EXPECT_TRUE(event.has_heartbeat());
    }
    context.TryCancel();
  }
  v1::CaptureRequest request;
  request.set_model("models/m");
  request.add_taps();
  request.add_inputs()->mutable_prompt()->mutable_token_ids()->add_ids(1);
  grpc::ClientContext context;
  const auto reader = activations_->Capture(&context, request);
  v1::CaptureResponse event;
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(reader->Read(&event));
    EXPECT_TRUE(event.has_heartbeat());
  }
  context.TryCancel();
}

TEST_F(GenerationServiceTest, AListThatDeliveredSomethingWaitsWhereTheServerIsFull) {
  auto request = Asking<v1::ScoreRequest>();
  for (int i = 0; i < 100; ++i) request.add_continuations()->mutable_token_ids()->add_ids(i % 50);
  v1::CaptureRequest capture;
  capture.set_model("models/m");
  capture.add_taps();
  for (int i = 0; i < 100; ++i) {
    capture.add_inputs()->mutable_prompt()->mutable_token_ids()->add_ids(i);
  }
  // Full before the first, the list is refused; full in the middle, for longer than it takes until
  // nothing of the list is under way, it is not.
  engine_->full_between = {0, 1};
  v1::ScoreResponse response;
  {
    grpc::ClientContext context;
    EXPECT_EQ(generation_->Score(&context, request, &response).error_code(),
              grpc::StatusCode::RESOURCE_EXHAUSTED);
  }
  engine_->full_between = {51, 51 + 36};
  {
    grpc::ClientContext context;
    const grpc::Status status = generation_->Score(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response.scores_size(), 100);
  }
  engine_->full_between = {engine_->submits() + 50, engine_->submits() + 50 + 20};
  {
    grpc::ClientContext context;
    const auto reader = activations_->Capture(&context, capture);
    v1::CaptureResponse event;
    int inputs = 0;
    while (reader->Read(&event)) inputs += event.has_receipts() ? 1 : 0;
    const grpc::Status status = reader->Finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(inputs, 100);
  }
  // A client that leaves while its list waits ends it.
  engine_->full_between = {engine_->submits() + 50, INT_MAX};
  grpc::ClientContext context;
  std::thread leaver([&] {
    engine_->WaitForSubmits(engine_->full_between.first + 36);
    context.TryCancel();
  });
  EXPECT_EQ(generation_->Score(&context, request, &response).error_code(),
            grpc::StatusCode::CANCELLED);
  leaver.join();
}

TEST_F(GenerationServiceTest, ModelsAnswerBesideManyGenerations) {
  engine_->hold = true;
  std::vector<std::thread> callers;
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  for (int i = 0; i < 32; ++i) contexts.push_back(std::make_unique<grpc::ClientContext>());
  for (auto& context : contexts) {
    callers.emplace_back([&] {
      v1::GenerateResponse response;
      EXPECT_FALSE(
          generation_->Generate(context.get(), Asking<v1::GenerateRequest>(), &response).ok());
    });
  }
  engine_->WaitForHeld(32);
  grpc::ClientContext context;
  v1::GetModelRequest request;
  request.set_name("models/m");
  v1::GetModelResponse response;
  EXPECT_TRUE(models_stub_->GetModel(&context, request, &response).ok());
  EXPECT_EQ(response.model().sites_size(), 10);
  for (auto& one : contexts) one->TryCancel();
  for (std::thread& caller : callers) caller.join();
}

TEST_F(GenerationServiceTest, BadRequestsNeverReachTheEngine) {
  const auto code = [&](const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    v1::GenerateResponse response;
    return generation_->Generate(&context, request, &response).error_code();
  };
  auto request = Asking<v1::GenerateRequest>();
  request.set_n(0);
  EXPECT_EQ(code(request), grpc::StatusCode::INVALID_ARGUMENT);
  request = Asking<v1::GenerateRequest>();
  request.set_logprobs(21);
  EXPECT_EQ(code(request), grpc::StatusCode::INVALID_ARGUMENT);
  request.set_logprobs(-1);
  EXPECT_EQ(code(request), grpc::StatusCode::INVALID_ARGUMENT);
  request = Asking<v1::GenerateRequest>();
  request.set_model("models/other");
  EXPECT_EQ(code(request), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(engine_->requests(), SizeIs(0));
  engine_->refusal = RetryLater("QUEUE_FULL", "full", absl::Seconds(1));
  EXPECT_EQ(code(Asking<v1::GenerateRequest>()), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(GenerationServiceTest, CapturesTooLargeForAMessageAreRefused) {
  engine_->capture_width = 1 << 20;
  auto request = Asking<v1::GenerateRequest>();
  request.add_taps();
  grpc::ClientContext context;
  v1::GenerateResponse response;
  EXPECT_EQ(generation_->Generate(&context, request, &response).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(GenerationServiceTest, EveryContinuationIsScoredInItsPlace) {
  auto request = Asking<v1::ScoreRequest>();
  for (int i = 0; i < 100; ++i) {
    auto& ids = *request.add_continuations()->mutable_token_ids();
    ids.add_ids(i % 50);
    ids.add_ids(2);
  }
  grpc::ClientContext context;
  v1::ScoreResponse response;
  const grpc::Status status = generation_->Score(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.scores_size(), 100);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(response.scores(i).sum(), -0.5 * (i % 50) - 1);
    EXPECT_EQ(response.scores(i).mean(), response.scores(i).sum() / 2);
    EXPECT_THAT(response.scores(i).token_ids(), ElementsAre(i % 50, 2));
  }
  request.mutable_continuations(3)->mutable_token_ids()->clear_ids();
  grpc::ClientContext again;
  const grpc::Status empty = generation_->Score(&again, request, &response);
  EXPECT_EQ(empty.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(empty.error_message(), HasSubstr("continuations[3]"));
}

TEST_F(GenerationServiceTest, CapturesComeInputByInputReceiptsFirst) {
  v1::CaptureRequest request;
  request.set_model("models/m");
  request.add_taps()->set_reduction(v1::REDUCTION_MEAN);
  request.add_taps();
  for (int i = 0; i < 20; ++i) {
    auto& input = *request.add_inputs();
    for (int j = 0; j <= i; ++j) input.mutable_prompt()->mutable_token_ids()->add_ids(j);
  }
  grpc::ClientContext context;
  const auto reader = activations_->Capture(&context, request);
  int input = -1, chunks = 0, summaries = 0;
  v1::CaptureResponse event;
  while (reader->Read(&event)) {
    if (event.has_receipts()) {
      EXPECT_EQ(event.receipts().input_index(), ++input);
      EXPECT_EQ(event.receipts().prompt_tokens(), input + 1);
    }
    if (event.has_chunk()) {
      EXPECT_EQ(event.chunk().input_index(), input);
      EXPECT_EQ(event.chunk().tap_index(), chunks++ % 2);
    }
    if (event.has_summary()) {
      EXPECT_EQ(event.summary().usage().prompt_tokens(), 210);
      ++summaries;
    }
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(input, 19);
  EXPECT_EQ(chunks, 40);
  EXPECT_EQ(summaries, 1);
}

TEST_F(GenerationServiceTest, AnInputThatTheEngineRefusesIsNamed) {
  engine_->refusal = InvalidField("prompt", "has no tokens");
  v1::CaptureRequest request;
  request.set_model("models/m");
  request.add_taps();
  request.add_inputs()->mutable_prompt()->mutable_token_ids();
  grpc::ClientContext context;
  const auto reader = activations_->Capture(&context, request);
  v1::CaptureResponse event;
  EXPECT_FALSE(reader->Read(&event));
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("inputs[0].prompt"));
}

}  // namespace
}  // namespace valuescope::services
