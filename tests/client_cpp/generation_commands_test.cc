// What `generate` asks a server and what a person sees of its answers, event by event.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "commands.h"
#include "output.h"
#include "tests/client_cpp/fake_server.h"

namespace valuescope::command_line {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::internal::CaptureStderr;
using ::testing::internal::CaptureStdout;
using ::testing::internal::GetCapturedStderr;
using ::testing::internal::GetCapturedStdout;

v1::StreamGenerateResponse Delta(int index, const std::string& text) {
  v1::StreamGenerateResponse event;
  event.mutable_delta()->set_index(index);
  event.mutable_delta()->set_text(text);
  return event;
}

v1::StreamGenerateResponse End(int index) {
  v1::StreamGenerateResponse event;
  event.mutable_completion()->set_index(index);
  event.mutable_completion()->set_finish_reason(v1::FINISH_REASON_LENGTH);
  return event;
}

// Answers every request with the same events.
class Generations : public v1::GenerationService::Service {
 public:
  grpc::Status StreamGenerate(grpc::ServerContext*, const v1::StreamGenerateRequest* got,
                              grpc::ServerWriter<v1::StreamGenerateResponse>* writer) override {
    request = *got;
    for (const v1::StreamGenerateResponse& event : events) writer->Write(event);
    return status;
  }
  std::vector<v1::StreamGenerateResponse> events;
  grpc::Status status = grpc::Status::OK;
  v1::StreamGenerateRequest request;
};

// One model of width 4 with three layers. Its pieces spell the token's id and a line break.
class Models : public v1::ModelService::Service {
 public:
  grpc::Status GetModel(grpc::ServerContext*, const v1::GetModelRequest* request,
                        v1::GetModelResponse* response) override {
    v1::Model& model = *response->mutable_model();
    model.set_name(request->name());
    model.set_num_layers(3);
    v1::SiteShape& shape = *model.add_sites();
    shape.set_site(v1::SITE_RESIDUAL_POST);
    shape.set_width(4);
    shape.set_has_layers(true);
    return grpc::Status::OK;
  }
  grpc::Status Detokenize(grpc::ServerContext*, const v1::DetokenizeRequest* request,
                          v1::DetokenizeResponse* response) override {
    for (const int id : request->token_ids()) response->add_pieces(std::to_string(id) + "\n");
    return grpc::Status::OK;
  }
};

class GenerateTest : public ::testing::Test {
 protected:
  // Runs the command; what it printed is in `out` and `err`.
  int Run() {
    flags.prompt.model = "m";
    flags.prompt.words = {"Hi"};
    CaptureStdout();
    CaptureStderr();
    Globals globals;
    globals.server = server.address();
    const int code = Generate(globals, flags);
    out = GetCapturedStdout();
    err = GetCapturedStderr();
    return code;
  }

  Generations generations;
  Models models;
  FakeServer server{&generations, &models};
  GenerateFlags flags;
  std::string out, err;
};

TEST_F(GenerateTest, PrintsTheTextAndANewlineAfterIt) {
  generations.events = {Delta(0, "Once "), Delta(0, "upon"), End(0)};
  EXPECT_EQ(Run(), kOk) << err;
  EXPECT_EQ(out, "Once upon\n");
}

TEST_F(GenerateTest, PrintsNothingWhereTheRequestIsRefused) {
  generations.status = grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "no");
  EXPECT_EQ(Run(), kRequestRefused);
  EXPECT_EQ(out, "");
}

TEST_F(GenerateTest, EndsTheLineOfATextThatAnErrorCutsShort) {
  generations.events = {Delta(0, "Once")};
  generations.status = grpc::Status(grpc::StatusCode::INTERNAL, "broken");
  EXPECT_EQ(Run(), kServerError);
  EXPECT_EQ(out, "Once\n");
}

TEST_F(GenerateTest, PrintsInterleavedCompletionsWholeAndInOrder) {
  flags.n = 3;
  generations.events = {Delta(1, "b1"),  Delta(0, "a1"),  Delta(1, " b2"), End(1),
                        Delta(2, "c\n"), Delta(0, " a2"), End(0),          End(2)};
  EXPECT_EQ(Run(), kOk) << err;
  EXPECT_EQ(out, "[0]\na1 a2\n[1]\nb1 b2\n[2]\nc\n\n");
  EXPECT_LT(err.find("completion 0: length"), err.find("completion 1: length"));
}

TEST_F(GenerateTest, PrintsWhatThereIsOfSeveralWhenAnErrorCutsThemShort) {
  flags.n = 2;
  generations.events = {Delta(0, "a"), Delta(1, "b"), End(1)};
  generations.status = grpc::Status(grpc::StatusCode::INTERNAL, "broken");
  EXPECT_EQ(Run(), kServerError);
  EXPECT_EQ(out, "[0]\na\n[1]\nb\n");
}

TEST_F(GenerateTest, PrintsATableOfLogProbabilitiesAfterTheText) {
  flags.logprobs = 2;
  v1::StreamGenerateResponse event = Delta(0, "Hey");
  event.mutable_delta()->add_token_ids(7);
  v1::Logprobs& logprobs = *event.mutable_delta()->mutable_logprobs();
  logprobs.add_token_logprobs(-0.5f);
  v1::TopLogprobs& top = *logprobs.add_top();
  for (const auto& [id, logprob] : {std::pair(7, -0.5f), std::pair(9, -1.25f)}) {
    top.add_token_ids(id);
    top.add_logprobs(logprob);
  }
  generations.events = {event, End(0)};
  EXPECT_EQ(Run(), kOk) << err;
  EXPECT_EQ(generations.request.logprobs(), 2);
  EXPECT_EQ(out,
            "Hey\n"
            "LOGPROB  ID  TOKEN  LIKELIEST\n"
            "-0.5000  7   7\\n    7\\n -0.5000  9\\n -1.2500\n");
}

TEST_F(GenerateTest, SendsHowTokensAreDrawn) {
  flags.top_k = 40;
  flags.min_p = 0.25f;
  flags.repetition_penalty = 1.5f;
  EXPECT_EQ(Run(), kOk) << err;
  EXPECT_EQ(generations.request.sampling().top_k(), 40);
  EXPECT_EQ(generations.request.sampling().min_p(), 0.25f);
  EXPECT_EQ(generations.request.sampling().repetition_penalty(), 1.5f);
  EXPECT_FALSE(generations.request.has_logprobs());
}

TEST_F(GenerateTest, ShapesTheRowsOfAFileByTheModelsWidth) {
  const std::string path = ::testing::TempDir() + "/generate_rows.f32";
  std::ofstream(path, std::ios::binary) << std::string(16, '\0');
  flags.prompt.vectors = {"file:" + path + ":1@0-1"};  // 4 numbers, 2 layers
  EXPECT_EQ(Run(), kOk) << err;
  EXPECT_THAT(generations.request.interventions(0).add().tensor().shape(), ElementsAre(4));

  std::ofstream(path, std::ios::binary) << std::string(24, '\0');
  EXPECT_EQ(Run(), kUsageError);
  EXPECT_THAT(err, HasSubstr("generate_rows.f32' holds 6 numbers; here it needs 4 (one row) or 8"));
  std::remove(path.c_str());
}

}  // namespace
}  // namespace valuescope::command_line
