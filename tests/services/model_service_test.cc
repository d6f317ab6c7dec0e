// Tokenize and Detokenize over real gRPC with a small byte-level tokenizer.
#include "services/model_service.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/synchronization/notification.h"
#include "bindings/bindings.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tests/services/scripted_engine.h"
#include "tests/text/small_tokenizers.h"
#include "valuescope/v1/models.grpc.pb.h"

namespace valuescope::services {
namespace {

using testing::HasSubstr;

constexpr int kIm = 263;  // "<|im_start|>"

// models/m with a tokenizer and a template that writes what the messages say.
class OneTextModel : public OneModel {
 public:
  OneTextModel() : OneModel(std::make_shared<ScriptedEngine>()) {
    const std::filesystem::path folder =
        std::filesystem::path(testing::TempDir()) / "model_service_test";
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "tokenizer.json") << text::ByteLevelTokenizer();
    std::ofstream(folder / "chat_template.jinja")
        << "{% for m in messages %}{{ m.content }}{% endfor %}";
    auto text = text::TextModel::Load(folder.string());
    EXPECT_TRUE(text.ok()) << text.status();
    model_->architecture.vocabulary = 300;
    model_->text = *std::move(text);
    model_->engine = std::make_unique<ScriptedEngine>();
  }

  absl::StatusOr<std::shared_ptr<const engine::ServedModel>> Get(absl::string_view) const override {
    return model_;
  }

 private:
  std::shared_ptr<engine::ServedModel> model_ = std::make_shared<engine::ServedModel>();
};

// The field that an error names, else its reason.
std::string Blamed(const grpc::Status& status) {
  google::rpc::Status proto;
  google::rpc::ErrorInfo info;
  EXPECT_TRUE(proto.ParseFromString(status.error_details()));
  if (proto.details_size() == 0 || !proto.details(0).UnpackTo(&info)) return "";
  const auto field = info.metadata().find("field");
  return field == info.metadata().end() ? info.reason() : field->second;
}

class ModelServiceTest : public testing::Test {
 protected:
  ModelServiceTest() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(binding_.get());
    server_ = builder.BuildAndStart();
    stub_ = v1::ModelService::NewStub(grpc::CreateChannel("127.0.0.1:" + std::to_string(port),
                                                          grpc::InsecureChannelCredentials()));
  }

  ~ModelServiceTest() override {
    EXPECT_TRUE(runtime_.WaitUntilIdle(absl::Now() + absl::Seconds(20)));
    server_->Shutdown();
  }

  grpc::Status Tokenize(const v1::Prompt& prompt, v1::TokenizeResponse* response) {
    v1::TokenizeRequest request;
    request.set_model("models/m");
    *request.mutable_prompt() = prompt;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    return stub_->Tokenize(&context, request, response);
  }

  grpc::Status Detokenize(int count, int id, v1::DetokenizeResponse* response) {
    v1::DetokenizeRequest request;
    request.set_model("models/m");
    for (int i = 0; i < count; ++i) request.add_token_ids(id);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    return stub_->Detokenize(&context, request, response);
  }

  absl::Notification released_;  // of the quick lane's only thread
  OneTextModel models_;
  rpc::OpenAuthenticator authenticator_;
  rpc::CallRuntime runtime_{&authenticator_,
                            nullptr,
                            {.quick = {.max_threads = 1, .max_queued = 8},
                             .long_running = {.max_threads = 1, .max_queued = 8}}};
  // Another server, which has what this one has no folder of.
  static std::vector<store::Replica> Others() {
    v1::Replica record;
    record.set_name("other");
    v1::ModelReplica& has = *record.add_models();
    has.set_replica("other");
    has.set_model("models/elsewhere");
    store::Replica replica;
    replica.record = record.SerializeAsString();
    return {replica};
  }

  v1::ListModelsResponse ListModels(bool all_replicas) {
    v1::ListModelsRequest request;
    request.set_all_replicas(all_replicas);
    grpc::ClientContext context;
    v1::ListModelsResponse response;
    const grpc::Status status = stub_->ListModels(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  const Replicas replicas_{&Others, ""};
  ModelService service_{runtime_.clock(), &models_, nullptr, &replicas_};  // no job is asked for
  const std::unique_ptr<rpc::RpcService> binding_ = bindings::Bind(&runtime_, &service_);
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::ModelService::Stub> stub_;
};

TEST_F(ModelServiceTest, WhatOnlyOtherServersHaveIsListedWhereItIsAskedFor) {
  const v1::ListModelsResponse own = ListModels(/*all_replicas=*/false);
  for (const v1::Model& model : own.models()) EXPECT_NE(model.name(), "models/elsewhere");
  const v1::ListModelsResponse all = ListModels(/*all_replicas=*/true);
  ASSERT_EQ(all.models_size(), own.models_size() + 1);
  const auto elsewhere = absl::c_find_if(
      all.models(), [](const v1::Model& model) { return model.name() == "models/elsewhere"; });
  ASSERT_NE(elsewhere, all.models().end());
  EXPECT_EQ(elsewhere->state(), v1::MODEL_STATE_UNSPECIFIED);
  ASSERT_EQ(elsewhere->replicas_size(), 1);
  EXPECT_EQ(elsewhere->replicas(0).replica(), "other");
}

TEST_F(ModelServiceTest, TokenizingTakesNoThreadOfTheQuickLane) {
  ASSERT_TRUE(
      runtime_.Submit(rpc::Lane::kQuick, "", [this] { released_.WaitForNotification(); }).ok());
  v1::Prompt prompt;
  prompt.set_text("hello");
  v1::TokenizeResponse tokens;
  grpc::Status status = Tokenize(prompt, &tokens);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(tokens.rendered_text(), "hello");
  v1::DetokenizeResponse text;
  status = Detokenize(2, kIm, &text);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(text.text(), "<|im_start|><|im_start|>");
  EXPECT_EQ(text.pieces_size(), 2);
  released_.Notify();
}

TEST_F(ModelServiceTest, UnloadsThatWaitTakeNoThread) {
  constexpr int kUnloads = 100;
  std::vector<std::thread> callers;
  for (int i = 0; i < kUnloads; ++i) {
    callers.emplace_back([this] {
      v1::UnloadModelRequest request;
      request.set_name("models/m");
      request.set_force(true);
      v1::UnloadModelResponse response;
      grpc::ClientContext context;
      const grpc::Status status = stub_->UnloadModel(&context, request, &response);
      EXPECT_TRUE(status.ok()) << status.error_message();
      EXPECT_EQ(response.model().name(), "models/m");
    });
  }
  models_.WaitForUnloads(kUnloads);
  v1::Prompt prompt;
  prompt.set_text("hello");
  v1::TokenizeResponse tokens;
  EXPECT_TRUE(Tokenize(prompt, &tokens).ok());
  v1::GetModelRequest get;
  get.set_name("models/m");
  v1::GetModelResponse got;
  grpc::ClientContext context;
  EXPECT_TRUE(stub_->GetModel(&context, get, &got).ok());
  models_.EndUnloads();
  for (std::thread& caller : callers) caller.join();
}

TEST_F(ModelServiceTest, TokenizeIsGivenABoundedPrompt) {
  const std::string much((1 << 20) + 1, ' ');
  v1::TokenizeResponse response;
  v1::Prompt prompt;
  prompt.set_text(much);
  grpc::Status status = Tokenize(prompt, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Blamed(status), "prompt.text");
  EXPECT_THAT(status.error_message(), HasSubstr("at most 1048576"));

  prompt.mutable_chat()->add_messages()->set_content(much);
  EXPECT_EQ(Blamed(Tokenize(prompt, &response)), "prompt.chat.messages");

  for (int i = 0; i <= 1 << 18; ++i) prompt.mutable_token_ids()->add_ids(1);
  status = Tokenize(prompt, &response);
  EXPECT_EQ(Blamed(status), "prompt.token_ids.ids");
  EXPECT_THAT(status.error_message(), HasSubstr("262145 ids, allowed are at most 262144"));
}

TEST_F(ModelServiceTest, DetokenizeIsGivenBoundedIds) {
  v1::DetokenizeResponse response;
  EXPECT_TRUE(Detokenize(1 << 18, 1, &response).ok());
  EXPECT_EQ(response.pieces_size(), 1 << 18);
  const grpc::Status status = Detokenize((1 << 18) + 1, 1, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Blamed(status), "token_ids");
}

TEST_F(ModelServiceTest, AResponseThatFitsNoMessageIsRefused) {
  v1::Prompt prompt;
  prompt.set_text(std::string(1 << 20, 'x'));  // a token a byte
  v1::TokenizeResponse tokens;
  grpc::Status status = Tokenize(prompt, &tokens);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Blamed(status), "RESPONSE_TOO_LARGE");
  v1::DetokenizeResponse text;
  status = Detokenize(1 << 18, kIm, &text);  // the pieces alone would fit
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Blamed(status), "RESPONSE_TOO_LARGE");
}

}  // namespace
}  // namespace valuescope::services
