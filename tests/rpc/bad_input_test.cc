// Bad requests against the program with a small model: each is refused with an error of its own
// that says what is wrong where, nothing large is allocated for it, and the next request works.
#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/rpc/server_process.h"
#include "valuescope/v1/activations.grpc.pb.h"
#include "valuescope/v1/generation.grpc.pb.h"
#include "valuescope/v1/models.grpc.pb.h"

namespace valuescope::rpc {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

// A Gemma 2 of 4 blocks, 91 tokens in its vocabulary and a context of 192.
constexpr char kModel[] = "gemma2";
// What the server may grow over all refusals; AddressSanitizer keeps what was freed for a while.
#ifdef __SANITIZE_ADDRESS__
constexpr int64_t kMostGrowth = 512 << 20;
#else
// Else what gRPC's quota is in this configuration (104 MiB), of which a heap may keep all.
constexpr int64_t kMostGrowth = 128 << 20;
#endif

enum class Rpc { kGenerate, kScore, kCapture, kDetokenize };

struct Case {
  const char* name;
  Rpc rpc;
  std::string request;  // protobuf text, without the model unless it names one
  StatusCode code;
  const char* says;
};

std::string Repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

std::string Ids(int count) { return "prompt { token_ids { " + Repeated("ids: 7 ", count) + "} } "; }

// A steering of all blocks, 28 wide, with `change` in its place.
std::string Steered(const std::string& change) {
  return Ids(3) + "sampling { max_tokens: 4 } interventions { " + change + " } ";
}

std::string Width28(const std::string& element) {
  return "tensor { dtype: DATA_TYPE_FLOAT32 shape: 28 data: \"" + Repeated(element, 28) + "\" }";
}

const std::string kZero = "\\000\\000\\000\\000", kNan = "\\000\\000\\300\\177";

std::vector<Case> Cases() {
  const StatusCode invalid = StatusCode::INVALID_ARGUMENT;
  const std::string add = "layers { all: true } add { " + Width28(kZero) + " }";
  return {
      {"no prompt", Rpc::kGenerate, "", invalid, "prompt"},
      {"empty ids", Rpc::kGenerate, Ids(0), invalid, "no tokens"},
      {"id beyond the vocabulary", Rpc::kGenerate, "prompt { token_ids { ids: 1 ids: 91 } }",
       invalid, "prompt.token_ids.ids[1]"},
      {"negative id", Rpc::kGenerate, "prompt { token_ids { ids: -1 } }", invalid,
       "prompt.token_ids.ids[0]"},
      {"chat without messages", Rpc::kGenerate, "prompt { chat { } }", invalid, "messages"},
      {"a role that the template refuses", Rpc::kGenerate,
       "prompt { chat { messages { role: \"system\" content: \"Be brief.\" } } }", invalid,
       "System role not supported"},
      {"prompt beyond the context", Rpc::kGenerate, Ids(192), invalid, "allowed are 1 to 191"},
      {"more tokens than the context", Rpc::kGenerate, Ids(3) + "sampling { max_tokens: 190 }",
       invalid, "sampling.max_tokens"},
      {"no tokens to generate", Rpc::kGenerate, Ids(3) + "sampling { max_tokens: 0 }", invalid,
       "is 0, allowed range is 1 to 189"},
      {"negative temperature", Rpc::kGenerate, Ids(3) + "sampling { temperature: -1 }", invalid,
       "sampling.temperature"},
      {"temperature that is no number", Rpc::kGenerate, Ids(3) + "sampling { temperature: nan }",
       invalid, "nan"},
      {"top_p of zero", Rpc::kGenerate, Ids(3) + "sampling { top_p: 0 }", invalid,
       "sampling.top_p"},
      {"min_p above one", Rpc::kGenerate, Ids(3) + "sampling { min_p: 1.5 }", invalid,
       "sampling.min_p"},
      {"negative top_k", Rpc::kGenerate, Ids(3) + "sampling { top_k: -2 }", invalid,
       "sampling.top_k"},
      {"penalty of zero", Rpc::kGenerate, Ids(3) + "sampling { repetition_penalty: 0 }", invalid,
       "sampling.repetition_penalty"},
      {"empty stop string", Rpc::kGenerate, Ids(3) + "sampling { stop: \"\" }", invalid,
       "sampling.stop[0]"},
      {"too many stop strings", Rpc::kGenerate,
       Ids(3) + "sampling { " + Repeated("stop: \"a\" ", 17) + " }", invalid, "sampling.stop"},
      {"no completions", Rpc::kGenerate, Ids(3) + "n: 0", invalid,
       "is 0, allowed range is 1 to 64"},
      {"too many completions", Rpc::kGenerate, Ids(3) + "n: 65", invalid, "is 65"},
      {"too many log-probabilities", Rpc::kGenerate, Ids(3) + "logprobs: 21", invalid, "logprobs"},
      {"unknown model", Rpc::kGenerate, Ids(3) + "model: \"models/nobody\"", StatusCode::NOT_FOUND,
       "models/nobody"},
      {"a path for a model", Rpc::kGenerate, Ids(3) + "model: \"models/../gemma2\"", invalid,
       "model"},
      {"a model that is not loaded", Rpc::kGenerate, Ids(3) + "model: \"models/qwen3\"",
       StatusCode::FAILED_PRECONDITION, "models/qwen3"},

      {"no operation", Rpc::kGenerate, Steered("layers { all: true }"), invalid,
       "interventions[0]"},
      {"no layers", Rpc::kGenerate, Steered("add { " + Width28(kZero) + " }"), invalid,
       "interventions[0].layers"},
      {"layer beyond the model", Rpc::kGenerate,
       Steered("layers { list { layers: 4 } } add { " + Width28(kZero) + " }"), invalid,
       "is 4, allowed range is 0 to 3"},
      {"negative layer", Rpc::kGenerate,
       Steered("layers { list { layers: -1 } } add { " + Width28(kZero) + " }"), invalid, "is -1"},
      {"range that ends before it begins", Rpc::kGenerate,
       Steered("layers { range { first: 2 last: 1 } } add { " + Width28(kZero) + " }"), invalid,
       "interventions[0].layers.range"},
      {"layers at a site that has none", Rpc::kGenerate,
       Steered("site: SITE_FINAL_NORM layers { all: true } add { " + Width28(kZero) + " }"),
       invalid, "has no layers"},
      {"unknown site", Rpc::kGenerate, Steered("site: 99 " + add), invalid, "site"},
      {"vector of another width", Rpc::kGenerate,
       Steered("layers { all: true } add { tensor { dtype: DATA_TYPE_FLOAT32 shape: 2 data: "
               "\"" +
               kZero + kZero + "\" } }"),
       invalid, "28"},
      {"tensor whose bytes are not its shape", Rpc::kGenerate,
       Steered("layers { all: true } add { tensor { dtype: DATA_TYPE_FLOAT32 shape: 28 data: "
               "\"xy\" } }"),
       invalid, "data"},
      {"tensor whose shape overflows", Rpc::kGenerate,
       Steered("layers { list { layers: 1 } } add { tensor { dtype: DATA_TYPE_FLOAT32 shape: "
               "4611686018427387904 shape: 8 data: \"\" } }"),
       invalid, "shape"},
      {"vector that is no number", Rpc::kGenerate,
       Steered("layers { all: true } add { " + Width28(kNan) + " }"), invalid, "finite"},
      {"coefficient that is no number", Rpc::kGenerate,
       Steered("layers { all: true } add { " + Width28(kZero) + " coefficient: inf }"), invalid,
       "coefficient"},
      {"unknown vector", Rpc::kGenerate,
       Steered("layers { all: true } add { vector: \"vectors/nobody\" }"), StatusCode::NOT_FOUND,
       "vectors/nobody"},
      {"position beyond the tokens", Rpc::kGenerate, Steered(add + " tokens { positions: 99 }"),
       invalid, "positions"},
      {"a scope that meets no token", Rpc::kGenerate,
       Ids(3) + "sampling { max_tokens: 1 } interventions { " + add +
           " tokens { kind: TOKEN_KIND_GENERATED } }",
       invalid, "interventions[0].tokens"},
      {"too many interventions", Rpc::kGenerate,
       Ids(3) + Repeated("interventions { " + add + " } ", 65), invalid, "65"},

      {"tap of a layer beyond the model", Rpc::kGenerate,
       Ids(3) + "taps { layers { list { layers: 9 } } }", invalid, "is 9, allowed range is 0 to 3"},
      {"neurons at another site", Rpc::kGenerate,
       Ids(3) + "taps { site: SITE_RESIDUAL_POST neurons { layer: 0 index: 1 } }", invalid,
       "neurons"},
      {"neuron beyond the block", Rpc::kGenerate,
       Ids(3) + "taps { site: SITE_MLP_NEURONS neurons { layer: 0 index: 37 } }", invalid, "36"},
      {"too many taps", Rpc::kGenerate, Ids(3) + Repeated("taps { } ", 17), invalid, "taps"},

      {"nothing to score", Rpc::kScore, Ids(3), invalid, "continuations"},
      {"empty continuation", Rpc::kScore, Ids(3) + "continuations { token_ids { } }", invalid,
       "continuations[0]"},
      {"continuation beyond the context", Rpc::kScore,
       Ids(100) + "continuations { token_ids { " + Repeated("ids: 7 ", 93) + "} }", invalid,
       "allowed are at most 92"},
      {"continuation beyond the vocabulary", Rpc::kScore,
       Ids(3) + "continuations { token_ids { ids: 91 } }", invalid,
       "continuations[0].token_ids.ids[0]"},

      {"no inputs", Rpc::kCapture, "taps { }", invalid, "inputs"},
      {"no taps", Rpc::kCapture, "inputs { " + Ids(3) + " }", invalid, "taps"},
      {"input beyond the context", Rpc::kCapture, "taps { } inputs { " + Ids(193) + " }", invalid,
       "inputs[0].prompt"},
      {"reduction that is unknown", Rpc::kCapture,
       "taps { reduction: 77 } inputs { " + Ids(3) + " }", invalid, "reduction"},
      {"type that captures do not have", Rpc::kCapture,
       "taps { dtype: DATA_TYPE_INT32 } inputs { " + Ids(3) + " }", invalid, "dtype"},
      {"response tokens where there is no response", Rpc::kCapture,
       "taps { tokens { kind: TOKEN_KIND_RESPONSE } } inputs { " + Ids(3) + " }", invalid,
       "taps[0].tokens"},

      {"a negative id", Rpc::kDetokenize, "token_ids: -5", invalid, "is -5"},
      {"ids that are none", Rpc::kDetokenize, "token_ids: 500", invalid, "token_ids[0]"},
  };
}

// The server and the calls of this file.
class BadInput : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    server_ = new ServerProcess(
        {std::string("--model_root=") + VALUESCOPE_SOURCE_DIR + "/tests/golden/families",
         std::string("--models=") + kModel, "--threads=1", "--max_message_bytes=4MiB"});
    const std::string address = server_->WaitForAddress();
    ASSERT_NE(address, "") << server_->Log();
    grpc::ChannelArguments arguments;
    arguments.SetMaxSendMessageSize(-1);
    channel_ = new std::shared_ptr<grpc::Channel>(
        grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
    // Loading takes a moment, in which the model refuses.
    for (grpc::Status status(StatusCode::UNKNOWN, ""); !status.ok();) {
      status = Call({"first", Rpc::kGenerate, Good(), StatusCode::OK, ""});
      ASSERT_TRUE(status.ok() || status.error_code() == StatusCode::FAILED_PRECONDITION)
          << status.error_message();
    }
  }
  static void TearDownTestSuite() {
    delete channel_;
    server_->Signal(SIGTERM);
    EXPECT_EQ(server_->WaitForExit(), 0) << server_->Log();
    delete server_;
  }

  static std::string Good() { return Ids(5) + "sampling { max_tokens: 3 temperature: 0 }"; }

  template <typename Request>
  static Request Parse(const std::string& text) {
    Request request;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request)) << text;
    if (request.model().empty()) request.set_model(std::string("models/") + kModel);
    return request;
  }

  static grpc::Status Call(const Case& one) {
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    const auto generation = v1::GenerationService::NewStub(*channel_);
    const auto models = v1::ModelService::NewStub(*channel_);
    switch (one.rpc) {
      case Rpc::kGenerate: {
        v1::GenerateResponse response;
        return generation->Generate(&context, Parse<v1::GenerateRequest>(one.request), &response);
      }
      case Rpc::kScore: {
        v1::ScoreResponse response;
        return generation->Score(&context, Parse<v1::ScoreRequest>(one.request), &response);
      }
      case Rpc::kCapture: {
        const auto stub = v1::ActivationService::NewStub(*channel_);
        const auto request = Parse<v1::CaptureRequest>(one.request);
        const auto stream = stub->Capture(&context, request);
        v1::CaptureResponse response;
        while (stream->Read(&response)) {
        }
        return stream->Finish();
      }
      case Rpc::kDetokenize: {
        v1::DetokenizeResponse response;
        return models->Detokenize(&context, Parse<v1::DetokenizeRequest>(one.request), &response);
      }
    }
    return grpc::Status(StatusCode::UNKNOWN, "no such RPC");
  }

  static void ExpectServes() {
    const grpc::Status status = Call({"good", Rpc::kGenerate, Good(), StatusCode::OK, ""});
    EXPECT_TRUE(status.ok()) << status.error_message();
  }

  // Bytes of the server's memory that are not files.
  static int64_t ServerMemory() {
    std::ifstream status("/proc/" + std::to_string(server_->pid()) + "/status");
    for (std::string key; status >> key;) {
      int64_t kibibytes = 0;
      if (key == "RssAnon:" && status >> kibibytes) return kibibytes << 10;
    }
    return 0;
  }

  static ServerProcess* server_;
  static std::shared_ptr<grpc::Channel>* channel_;
};

ServerProcess* BadInput::server_ = nullptr;
std::shared_ptr<grpc::Channel>* BadInput::channel_ = nullptr;

TEST_F(BadInput, EachIsRefusedWithAnErrorOfItsOwnAndTheNextRequestWorks) {
  std::set<std::string> messages;
  const std::vector<Case> cases = Cases();
  const int64_t before = ServerMemory();
  for (const Case& one : cases) {
    const grpc::Status status = Call(one);
    EXPECT_EQ(status.error_code(), one.code) << one.name << ": " << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(one.says)) << one.name;
    EXPECT_TRUE(messages.insert(status.error_message()).second)
        << one.name << " says what another says: " << status.error_message();
    ExpectServes();
  }
  EXPECT_LT(ServerMemory() - before, kMostGrowth);
}

TEST_F(BadInput, AMessageOfAGibibyteIsRefusedByItsLength) {
  const int64_t before = ServerMemory();
  v1::GenerateRequest request = Parse<v1::GenerateRequest>("");
  request.mutable_prompt()->set_text(std::string(size_t{1} << 30, 'a'));
  grpc::ClientContext context;
  v1::GenerateResponse response;
  const grpc::Status status =
      v1::GenerationService::NewStub(*channel_)->Generate(&context, request, &response);
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_LT(ServerMemory() - before, kMostGrowth);
  ExpectServes();
}

}  // namespace
}  // namespace valuescope::rpc
