// The C++ client of valuescope: a thin layer over the generated stubs that adds what every caller
// would otherwise write: deadlines, retries that obey the server (call.h), cancellation from
// another thread, streams as handles (stream.h), readable error details (error.h), chunked
// artifacts with checksums, tensors as typed spans (tensor.h). The generated messages (package
// valuescope.v1) are the vocabulary.
//
//   valuescope::Client client("127.0.0.1:50051");
//   valuescope::v1::GenerateRequest request;
//   request.set_model("models/SmolLM2-135M-Instruct");
//   request.mutable_prompt()->set_text("The sea is");
//   absl::StatusOr<valuescope::v1::GenerateResponse> response = client.Generate(request);
//   if (!response.ok()) std::cerr << valuescope::ErrorText(response.status()) << "\n";
#ifndef VALUESCOPE_CLIENT_H_
#define VALUESCOPE_CLIENT_H_

#include <google/protobuf/message.h>
#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "valuescope/call.h"
#include "valuescope/credentials.h"
#include "valuescope/error.h"
#include "valuescope/job_watch.h"
#include "valuescope/stream.h"
#include "valuescope/tensor.h"
#include "valuescope/v1/activations.grpc.pb.h"
#include "valuescope/v1/artifacts.grpc.pb.h"
#include "valuescope/v1/evaluation.grpc.pb.h"
#include "valuescope/v1/generation.grpc.pb.h"
#include "valuescope/v1/jobs.grpc.pb.h"
#include "valuescope/v1/models.grpc.pb.h"
#include "valuescope/v1/neurons.grpc.pb.h"
#include "valuescope/v1/tenants.grpc.pb.h"
#include "valuescope/v1/vectors.grpc.pb.h"

namespace valuescope {

struct ClientOptions {
  std::string token = "";  // bearer token; empty sends none
  // File of a bearer token in its place, read for each attempt of a call, so that a token that is
  // renewed there is the one that is sent. A call fails with FAILED_PRECONDITION where it cannot be
  // read.
  std::string token_file = "";
  // Of each call, its retries included; InfiniteDuration for no limit. Default by what it does: two
  // minutes for lookups, an hour for calls that compute, a day for streams.
  std::optional<absl::Duration> timeout = std::nullopt;
  // TLS, see TlsCredentials; null connects in the clear.
  std::shared_ptr<grpc::ChannelCredentials> credentials = nullptr;
  std::shared_ptr<Cancellation> cancellation = nullptr;  // of calls whose options name none
  RetryPolicy retry = {};
  std::shared_ptr<RetryClock> clock = nullptr;  // null is the real one
};

// A connection. Thread-safe; cheap to move, not copyable.
//
// Calls that only read or compute are tried again where RetryPolicy says so, and so are those that
// create something: they carry a request_id, which the client fills in where the caller left it
// empty. Deleting, withdrawing and unloading are never repeated.
class Client {
 public:
  explicit Client(const std::string& target, ClientOptions options = {});
  ~Client();
  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;

  absl::StatusOr<v1::ListModelsResponse> ListModels(const v1::ListModelsRequest& request,
                                                    const CallOptions& options = {});
  absl::StatusOr<v1::GetModelResponse> GetModel(const v1::GetModelRequest& request,
                                                const CallOptions& options = {});
  absl::StatusOr<v1::ListReplicasResponse> ListReplicas(const v1::ListReplicasRequest& request,
                                                        const CallOptions& options = {});
  absl::StatusOr<v1::LoadModelResponse> LoadModel(v1::LoadModelRequest request,
                                                  const CallOptions& options = {});
  absl::StatusOr<v1::UnloadModelResponse> UnloadModel(const v1::UnloadModelRequest& request,
                                                      const CallOptions& options = {});
  absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request,
                                                const CallOptions& options = {});
  absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request,
                                                    const CallOptions& options = {});

  absl::StatusOr<v1::GenerateResponse> Generate(const v1::GenerateRequest& request,
                                                const CallOptions& options = {});
  Stream<v1::StreamGenerateResponse> StreamGenerate(const v1::StreamGenerateRequest& request,
                                                    const CallOptions& options = {});
  absl::StatusOr<v1::ScoreResponse> Score(const v1::ScoreRequest& request,
                                          const CallOptions& options = {});

  Stream<v1::CaptureResponse> Capture(const v1::CaptureRequest& request,
                                      const CallOptions& options = {});

  absl::StatusOr<v1::ExtractVectorsResponse> ExtractVectors(v1::ExtractVectorsRequest request,
                                                            const CallOptions& options = {});
  absl::StatusOr<v1::DecomposeVectorsResponse> DecomposeVectors(v1::DecomposeVectorsRequest request,
                                                                const CallOptions& options = {});
  absl::StatusOr<v1::CompareVectorsResponse> CompareVectors(
      const v1::CompareVectorsRequest& request, const CallOptions& options = {});
  absl::StatusOr<v1::CreateVectorResponse> CreateVector(v1::CreateVectorRequest request,
                                                        const CallOptions& options = {});
  absl::StatusOr<v1::GetVectorResponse> GetVector(const v1::GetVectorRequest& request,
                                                  const CallOptions& options = {});
  absl::StatusOr<v1::ListVectorsResponse> ListVectors(const v1::ListVectorsRequest& request,
                                                      const CallOptions& options = {});
  absl::StatusOr<v1::DeleteVectorResponse> DeleteVector(const v1::DeleteVectorRequest& request,
                                                        const CallOptions& options = {});
  // Uploads the bytes of a file of vectors; size and SHA-256 are filled in.
  absl::StatusOr<v1::ImportVectorsResponse> ImportVectors(const std::string& bytes,
                                                          v1::ImportVectorsHeader header,
                                                          const CallOptions& options = {});
  // Reads a whole file of vectors in order, calling `sink` with each checked part. DATA_LOSS where
  // a checksum disagrees, or the end is missing.
  absl::Status ExportVectors(const v1::ExportVectorsRequest& request,
                             const std::function<absl::Status(const std::string&)>& sink,
                             const CallOptions& options = {});

  absl::StatusOr<v1::AttributeNeuronsResponse> AttributeNeurons(v1::AttributeNeuronsRequest request,
                                                                const CallOptions& options = {});
  absl::StatusOr<v1::ClassifyNeuronsResponse> ClassifyNeurons(v1::ClassifyNeuronsRequest request,
                                                              const CallOptions& options = {});
  absl::StatusOr<v1::ScoreSelectivityResponse> ScoreSelectivity(v1::ScoreSelectivityRequest request,
                                                                const CallOptions& options = {});
  absl::StatusOr<v1::TestNeuronsResponse> TestNeurons(const v1::TestNeuronsRequest& request,
                                                      const CallOptions& options = {});
  absl::StatusOr<v1::CompareNeuronSetsResponse> CompareNeuronSets(
      const v1::CompareNeuronSetsRequest& request, const CallOptions& options = {});
  absl::StatusOr<v1::GetNeuronSetResponse> GetNeuronSet(const v1::GetNeuronSetRequest& request,
                                                        const CallOptions& options = {});
  absl::StatusOr<v1::ListNeuronSetsResponse> ListNeuronSets(
      const v1::ListNeuronSetsRequest& request, const CallOptions& options = {});
  absl::StatusOr<v1::DeleteNeuronSetResponse> DeleteNeuronSet(
      const v1::DeleteNeuronSetRequest& request, const CallOptions& options = {});
  absl::StatusOr<v1::TopContextsResponse> TopContexts(const v1::TopContextsRequest& request,
                                                      const CallOptions& options = {});

  absl::StatusOr<v1::AskQuestionnaireResponse> AskQuestionnaire(
      const v1::AskQuestionnaireRequest& request, const CallOptions& options = {});
  absl::StatusOr<v1::AnswerChoicesResponse> AnswerChoices(const v1::AnswerChoicesRequest& request,
                                                          const CallOptions& options = {});
  absl::StatusOr<v1::ScoreTaggedResponsesResponse> ScoreTaggedResponses(
      const v1::ScoreTaggedResponsesRequest& request, const CallOptions& options = {});
  absl::StatusOr<v1::JudgeResponsesResponse> JudgeResponses(
      const v1::JudgeResponsesRequest& request, const CallOptions& options = {});
  absl::StatusOr<v1::CompareResponsesResponse> CompareResponses(
      const v1::CompareResponsesRequest& request, const CallOptions& options = {});
  absl::StatusOr<v1::MeasureTextsResponse> MeasureTexts(const v1::MeasureTextsRequest& request,
                                                        const CallOptions& options = {});

  absl::StatusOr<v1::CreateJobResponse> CreateJob(v1::CreateJobRequest request,
                                                  const CallOptions& options = {});
  absl::StatusOr<v1::GetJobResponse> GetJob(const v1::GetJobRequest& request,
                                            const CallOptions& options = {});
  absl::StatusOr<v1::ListJobsResponse> ListJobs(const v1::ListJobsRequest& request,
                                                const CallOptions& options = {});
  // One stream: it ends where the connection does.
  Stream<v1::WatchJobResponse> WatchJob(const v1::WatchJobRequest& request,
                                        const CallOptions& options = {});
  // The same over as many streams as it takes. A server that is away, to be restarted for instance,
  // is waited for with four times the attempts of other calls. Without a timeout as long as the job
  // takes, whatever the client's timeout is.
  JobWatch FollowJob(const v1::WatchJobRequest& request, const CallOptions& options = {},
                     JobWatch::OnLost on_lost = nullptr);
  absl::StatusOr<v1::CancelJobResponse> CancelJob(const v1::CancelJobRequest& request,
                                                  const CallOptions& options = {});
  absl::StatusOr<v1::RetryJobResponse> RetryJob(v1::RetryJobRequest request,
                                                const CallOptions& options = {});
  absl::StatusOr<v1::DeleteJobResponse> DeleteJob(const v1::DeleteJobRequest& request,
                                                  const CallOptions& options = {});

  absl::StatusOr<v1::GetArtifactResponse> GetArtifact(const v1::GetArtifactRequest& request,
                                                      const CallOptions& options = {});
  absl::StatusOr<v1::ListArtifactsResponse> ListArtifacts(const v1::ListArtifactsRequest& request,
                                                          const CallOptions& options = {});
  absl::StatusOr<v1::DeleteArtifactResponse> DeleteArtifact(
      const v1::DeleteArtifactRequest& request, const CallOptions& options = {});

  // Uploads `bytes`; size, SHA-256, chunks and their checksums are filled in.
  absl::StatusOr<v1::Artifact> WriteArtifact(const std::string& bytes,
                                             v1::WriteArtifactHeader header,
                                             const CallOptions& options = {});

  // Reads a whole artifact in order, calling `sink` with each checked part; a lost connection goes
  // on at the offset reached. DATA_LOSS where a checksum or, at the end, the SHA-256 disagrees.
  absl::StatusOr<v1::Artifact> ReadArtifact(
      const std::string& name, const std::function<absl::Status(const std::string&)>& sink,
      const CallOptions& options = {});

  // Reads a data set as a table from its begin to its end, as ReadArtifact reads a file; `offset`
  // is not looked at. INVALID_ARGUMENT at the first line that is no row: `sink` may have been given
  // what stands before it.
  absl::StatusOr<v1::TableEnd> ReadTable(
      v1::ReadTableRequest request, const std::function<absl::Status(const std::string&)>& sink,
      const CallOptions& options = {});

  absl::StatusOr<v1::PublishResourceResponse> PublishResource(
      const v1::PublishResourceRequest& request, const CallOptions& options = {});
  absl::StatusOr<v1::WithdrawResourceResponse> WithdrawResource(
      const v1::WithdrawResourceRequest& request, const CallOptions& options = {});
  absl::StatusOr<v1::QueryUsageResponse> QueryUsage(const v1::QueryUsageRequest& request,
                                                    const CallOptions& options = {});

 private:
  struct Stubs;
  enum class Repeat { kHarmless, kNever };

  // `timeout` where nobody asked for another.
  internal::Attempts::Settings SettingsOf(const google::protobuf::Message& request,
                                          const CallOptions& options, Repeat repeat,
                                          absl::Duration timeout) const;
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Call(Stub& stub,
                                grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                             Response*),
                                const Request& request, const CallOptions& options, Repeat repeat);
  template <typename Stub, typename Request, typename Response>
  Stream<Response> Open(Stub& stub,
                        std::unique_ptr<grpc::ClientReader<Response>> (Stub::*method)(
                            grpc::ClientContext*, const Request&),
                        const Request& request, const CallOptions& options);

  ClientOptions options_;
  std::shared_ptr<Stubs> stubs_;  // shared with streams, which may open again
};

}  // namespace valuescope

#endif  // VALUESCOPE_CLIENT_H_
