// The C++ client of valuescope: a thin layer over the generated stubs that adds what every caller
// would otherwise write: deadlines, retries that obey the server, readable error details, chunked
// artifacts with checksums, tensors as typed spans. The generated messages (package valuescope.v1)
// are the vocabulary.
//
//   valuescope::Client client("127.0.0.1:50051");
//   valuescope::v1::GenerateRequest request;
//   request.set_model("models/SmolLM2-135M-Instruct");
//   request.mutable_prompt()->set_text("The sea is");
//   absl::StatusOr<valuescope::v1::GenerateResponse> response = client.Generate(request);
#ifndef VALUESCOPE_CLIENT_H_
#define VALUESCOPE_CLIENT_H_

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "valuescope/v1/activations.grpc.pb.h"
#include "valuescope/v1/artifacts.grpc.pb.h"
#include "valuescope/v1/generation.grpc.pb.h"
#include "valuescope/v1/jobs.grpc.pb.h"
#include "valuescope/v1/models.grpc.pb.h"
#include "valuescope/v1/neurons.grpc.pb.h"
#include "valuescope/v1/vectors.grpc.pb.h"

namespace valuescope {

// One field of a request and what is wrong with it.
struct FieldViolation {
  std::string field;
  std::string description;
};

// What the server said beyond code and message; empty for an error made on this side.
struct ErrorDetails {
  std::string reason;                      // UPPER_SNAKE_CASE, stable: branch on it
  std::vector<FieldViolation> violations;  // for INVALID_ARGUMENT
  std::optional<absl::Duration> retry_after;
  std::string request_id;  // quote it when reporting a fault
};
ErrorDetails ErrorDetailsOf(const absl::Status& status);

// A float32 tensor of `shape` from its elements in row-major order. INVALID_ARGUMENT where their
// number is not product(shape).
absl::StatusOr<v1::Tensor> MakeTensor(std::span<const float> elements, std::vector<int64_t> shape);

// The elements of a float32, float64, float16 or bfloat16 tensor as float32, row-major.
// INVALID_ARGUMENT for other types and where the bytes do not match the shape.
absl::StatusOr<std::vector<float>> TensorElements(const v1::Tensor& tensor);

// Messages of a server stream, one at a time. Destroying it cancels the call on the server.
//
//   auto stream = client.StreamGenerate(request);
//   v1::StreamGenerateResponse event;
//   while (stream.Read(&event)) { ... }
//   absl::Status status = stream.Finish();
template <typename Response>
class Stream {
 public:
  Stream(std::unique_ptr<grpc::ClientContext> context,
         std::unique_ptr<grpc::ClientReader<Response>> reader)
      : context_(std::move(context)), reader_(std::move(reader)) {}
  Stream(Stream&&) = default;
  Stream& operator=(Stream&&) = delete;
  ~Stream() {
    if (context_ == nullptr || finished_) return;
    context_->TryCancel();
    static_cast<void>(Finish());
  }

  // The next message, or false at the end: then Finish tells why.
  bool Read(Response* response) { return reader_->Read(response); }

  // OK, or what ended the stream. Reads what is left.
  absl::Status Finish();

  // From any thread; Read then returns false and Finish CANCELLED.
  void Cancel() { context_->TryCancel(); }

 private:
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientReader<Response>> reader_;
  bool finished_ = false;
};

struct ClientOptions {
  std::string token;                                      // bearer token; empty sends none
  absl::Duration timeout = absl::InfiniteDuration();      // of each call, its retries included
  std::shared_ptr<grpc::ChannelCredentials> credentials;  // null connects in the clear
  // Further attempts after UNAVAILABLE, or RESOURCE_EXHAUSTED with a delay from the server.
  int max_retries = 4;
};

// A connection. Thread-safe; cheap to move, not copyable.
//
// Every unary method may be retried without harm: reads and generations have no lasting effect, and
// calls that create something carry a request_id, which the client fills in where the caller left
// it empty.
class Client {
 public:
  explicit Client(const std::string& target, ClientOptions options = {});
  ~Client();
  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;

  absl::StatusOr<v1::ListModelsResponse> ListModels(const v1::ListModelsRequest& request);
  absl::StatusOr<v1::GetModelResponse> GetModel(const v1::GetModelRequest& request);
  absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request);
  absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request);

  absl::StatusOr<v1::GenerateResponse> Generate(const v1::GenerateRequest& request);
  Stream<v1::StreamGenerateResponse> StreamGenerate(const v1::StreamGenerateRequest& request);
  absl::StatusOr<v1::ScoreResponse> Score(const v1::ScoreRequest& request);
  Stream<v1::CaptureResponse> Capture(const v1::CaptureRequest& request);

  absl::StatusOr<v1::ExtractVectorsResponse> ExtractVectors(v1::ExtractVectorsRequest request);
  absl::StatusOr<v1::DecomposeVectorsResponse> DecomposeVectors(
      v1::DecomposeVectorsRequest request);
  absl::StatusOr<v1::CreateVectorResponse> CreateVector(v1::CreateVectorRequest request);
  absl::StatusOr<v1::GetVectorResponse> GetVector(const v1::GetVectorRequest& request);
  absl::StatusOr<v1::ListVectorsResponse> ListVectors(const v1::ListVectorsRequest& request);

  absl::StatusOr<v1::ClassifyNeuronsResponse> ClassifyNeurons(v1::ClassifyNeuronsRequest request);
  absl::StatusOr<v1::AttributeNeuronsResponse> AttributeNeurons(
      v1::AttributeNeuronsRequest request);

  absl::StatusOr<v1::CreateJobResponse> CreateJob(v1::CreateJobRequest request);
  absl::StatusOr<v1::GetJobResponse> GetJob(const v1::GetJobRequest& request);
  absl::StatusOr<v1::ListJobsResponse> ListJobs(const v1::ListJobsRequest& request);
  absl::StatusOr<v1::CancelJobResponse> CancelJob(const v1::CancelJobRequest& request);
  Stream<v1::WatchJobResponse> WatchJob(const v1::WatchJobRequest& request);

  absl::StatusOr<v1::GetArtifactResponse> GetArtifact(const v1::GetArtifactRequest& request);
  absl::StatusOr<v1::ListArtifactsResponse> ListArtifacts(const v1::ListArtifactsRequest& request);

  // Uploads `bytes`; size, SHA-256, chunks and their checksums are filled in.
  absl::StatusOr<v1::Artifact> WriteArtifact(const std::string& bytes,
                                             v1::WriteArtifactHeader header);

  // Reads a whole artifact in order, calling `sink` with each checked part; a lost connection goes
  // on at the offset reached. DATA_LOSS where a checksum or, at the end, the SHA-256 disagrees.
  absl::StatusOr<v1::Artifact> ReadArtifact(
      const std::string& name, const std::function<absl::Status(const std::string&)>& sink);

 private:
  struct Stubs;

  std::unique_ptr<grpc::ClientContext> NewContext(absl::Time deadline) const;
  absl::Time DeadlineFromNow() const;
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Call(Stub& stub,
                                grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                             Response*),
                                const Request& request);

  ClientOptions options_;
  std::unique_ptr<Stubs> stubs_;
};

// The translation that Stream::Finish uses; `context` gives the trailing metadata.
absl::Status FromGrpcStatus(const grpc::Status& status, const grpc::ClientContext& context);

template <typename Response>
absl::Status Stream<Response>::Finish() {
  Response rest;
  while (reader_->Read(&rest)) {
  }
  finished_ = true;
  return FromGrpcStatus(reader_->Finish(), *context_);
}

}  // namespace valuescope

#endif  // VALUESCOPE_CLIENT_H_
