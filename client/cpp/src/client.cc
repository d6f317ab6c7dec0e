// Long because it has a function for each method of the contract, nearly all of one kind.
#include "valuescope/client.h"

#include <openssl/rand.h>

#include <algorithm>
#include <type_traits>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "checksum.h"
#include "routed_model.h"

namespace valuescope {
namespace {

// The server's messages stay under 4 MiB; this much is for one that is configured otherwise.
constexpr int kMostReplyBytes = 16 << 20;
// What a request may have is the server's to say (its --max_message_bytes).
constexpr int kNoLimit = -1;
constexpr size_t kChunkBytes = 1 << 20;
// While calls run, a connection whose other end vanished without a word is found out and ends them
// with UNAVAILABLE.
constexpr int kKeepaliveMs = 20'000;
// What ends a call that hangs, far above what any takes.
constexpr absl::Duration kLookupTimeout = absl::Minutes(2);
constexpr absl::Duration kWorkTimeout = absl::Hours(1);
constexpr absl::Duration kStreamTimeout = absl::Hours(24);
// Times the attempts of other calls: who watches a job has time.
constexpr int kWatchPatience = 4;
// At most between two attempts of a connection: those of calls are not further apart either.
constexpr int kReconnectMs = 5'000;

template <typename Request, typename... Others>
constexpr bool kIsOneOf = (std::is_same_v<Request, Others> || ...);

// How long a call may take that answers with one message.
template <typename Request>
constexpr absl::Duration TimeoutOf() {
  constexpr bool computes =
      kIsOneOf<Request, v1::GenerateRequest, v1::ScoreRequest, v1::TokenizeRequest,
               v1::DetokenizeRequest, v1::UnloadModelRequest, v1::ExtractVectorsRequest,
               v1::DecomposeVectorsRequest, v1::CompareVectorsRequest, v1::AttributeNeuronsRequest,
               v1::ClassifyNeuronsRequest, v1::ScoreSelectivityRequest,
               v1::CompareNeuronSetsRequest, v1::TopContextsRequest, v1::TestNeuronsRequest,
               v1::AskQuestionnaireRequest, v1::AnswerChoicesRequest,
               v1::ScoreTaggedResponsesRequest, v1::MeasureTextsRequest, v1::JudgeResponsesRequest,
               v1::CompareResponsesRequest, v1::CreateJobRequest>;
  return computes ? kWorkTimeout : kLookupTimeout;
}

std::string NewRequestId() {
  unsigned char bytes[16];
  RAND_bytes(bytes, sizeof(bytes));
  bytes[6] = static_cast<unsigned char>((bytes[6] & 0x0f) | 0x40);
  bytes[8] = static_cast<unsigned char>((bytes[8] & 0x3f) | 0x80);
  const std::string hex =
      absl::BytesToHexString(absl::string_view(reinterpret_cast<char*>(bytes), sizeof(bytes)));
  return absl::StrCat(hex.substr(0, 8), "-", hex.substr(8, 4), "-", hex.substr(12, 4), "-",
                      hex.substr(16, 4), "-", hex.substr(20));
}

template <typename Request>
void FillRequestId(Request& request) {
  if (request.request_id().empty()) request.set_request_id(NewRequestId());
}

// What the header of an upload says of its bytes.
template <typename Header>
void Announce(const std::string& bytes, Header& header) {
  FillRequestId(header);
  Sha256Digest digest;
  digest.Update(bytes);
  header.set_sha256(digest.Hex());
  header.set_size_bytes(static_cast<int64_t>(bytes.size()));
}

// Calls `send` with the parts of `bytes`, and where each begins, until all went or the server hung
// up, which `send` tells by false.
void InParts(const std::string& bytes, const std::function<bool(size_t, size_t)>& send) {
  bool open = true;
  for (size_t offset = 0; open && offset < bytes.size(); offset += kChunkBytes) {
    open = send(offset, std::min(kChunkBytes, bytes.size() - offset));
  }
}

// Sends header and chunks until all went or the server hung up.
void Upload(const std::string& bytes, const v1::WriteArtifactHeader& header,
            grpc::ClientWriter<v1::WriteArtifactRequest>& writer) {
  v1::WriteArtifactRequest first;
  *first.mutable_header() = header;
  if (writer.Write(first)) {
    InParts(bytes, [&](size_t offset, size_t size) {
      v1::WriteArtifactRequest part;
      part.mutable_chunk()->set_offset(static_cast<int64_t>(offset));
      part.mutable_chunk()->set_data(bytes.data() + offset, size);
      part.mutable_chunk()->set_crc32c(ChunkChecksum(bytes.data() + offset, size));
      return writer.Write(part);
    });
  }
  writer.WritesDone();
}

void Upload(const std::string& bytes, const v1::ImportVectorsHeader& header,
            grpc::ClientWriter<v1::ImportVectorsRequest>& writer) {
  v1::ImportVectorsRequest first;
  *first.mutable_header() = header;
  if (writer.Write(first)) {
    InParts(bytes, [&](size_t offset, size_t size) {
      v1::ImportVectorsRequest part;
      part.set_data(bytes.data() + offset, size);
      return writer.Write(part);
    });
  }
  writer.WritesDone();
}

// A file on its way in: what arrived is checked, counted and passed on.
class Download {
 public:
  using Sink = std::function<absl::Status(const std::string&)>;
  Download(const std::string& name, const Sink& sink) : name_(name), sink_(sink) {}

  int64_t offset() const { return offset_; }

  absl::Status Add(const v1::ArtifactChunk& chunk) {
    const std::string& data = chunk.data();
    if (chunk.offset() != offset_ || chunk.crc32c() != ChunkChecksum(data.data(), data.size())) {
      return absl::DataLossError(absl::StrCat(name_, ": the chunk at ", offset_, " is damaged"));
    }
    digest_.Update(data);
    offset_ += static_cast<int64_t>(data.size());
    return sink_(data);
  }

  // Once the server said that this was all, of a file of that size and SHA-256.
  absl::Status Check(int64_t size, const std::string& sha256) {
    if (offset_ != size) {
      return absl::DataLossError(
          absl::StrCat(name_, ": ended at ", offset_, " of ", size, " bytes"));
    }
    if (digest_.Hex() != sha256) {
      return absl::DataLossError(absl::StrCat(name_, ": SHA-256 of the bytes read differs"));
    }
    return absl::OkStatus();
  }

 private:
  const std::string& name_;
  const Sink& sink_;
  Sha256Digest digest_;
  int64_t offset_ = 0;
};

// Reads a call's parts and returns how it ended. `taken` is the first error of `take`, which gives
// the call up.
template <typename Part, typename Take>
absl::Status ReadParts(grpc::ClientReader<Part>& reader, internal::Attempts& attempts,
                       const Take& take, absl::Status* taken) {
  Part part;
  while (reader.Read(&part)) {
    if (!taken->ok()) continue;  // reads what is left of the call that was given up
    *taken = take(part);
    attempts.Progressed();
    if (!taken->ok()) attempts.Cancel();
  }
  return attempts.End(reader.Finish());
}

}  // namespace

struct Client::Stubs {
  explicit Stubs(const std::shared_ptr<grpc::Channel>& channel)
      : activations(channel),
        artifacts(channel),
        evaluation(channel),
        generation(channel),
        jobs(channel),
        models(channel),
        neurons(channel),
        tenants(channel),
        vectors(channel) {}

  v1::ActivationService::Stub activations;
  v1::ArtifactService::Stub artifacts;
  v1::EvaluationService::Stub evaluation;
  v1::GenerationService::Stub generation;
  v1::JobService::Stub jobs;
  v1::ModelService::Stub models;
  v1::NeuronService::Stub neurons;
  v1::TenantService::Stub tenants;
  v1::VectorService::Stub vectors;
};

Client::Client(const std::string& target, ClientOptions options) : options_(std::move(options)) {
  if (!options_.clock) options_.clock = RealRetryClock();
  grpc::ChannelArguments arguments;
  // Where a name has several addresses, as that of a headless Service has, all its servers are
  // called in turn.
  arguments.SetLoadBalancingPolicyName("round_robin");
  arguments.SetMaxReceiveMessageSize(kMostReplyBytes);
  arguments.SetMaxSendMessageSize(kNoLimit);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectMs);
  const auto credentials =
      options_.credentials ? options_.credentials : grpc::InsecureChannelCredentials();
  stubs_ = std::make_shared<Stubs>(grpc::CreateCustomChannel(target, credentials, arguments));
}

Client::~Client() = default;
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;

internal::Attempts::Settings Client::SettingsOf(const google::protobuf::Message& request,
                                                const CallOptions& options, Repeat repeat,
                                                absl::Duration timeout) const {
  return {.retry = options_.retry,
          .clock = options_.clock,
          .token = options_.token,
          .token_file = options_.token_file,
          .model = RoutedModel(request),
          .timeout = options.timeout.value_or(options_.timeout.value_or(timeout)),
          .cancellation = options.cancellation ? options.cancellation : options_.cancellation,
          .repeatable = repeat == Repeat::kHarmless};
}

template <typename Stub, typename Request, typename Response>
absl::StatusOr<Response> Client::Call(
    Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
    const Request& request, const CallOptions& options, Repeat repeat) {
  internal::Attempts attempts(SettingsOf(request, options, repeat, TimeoutOf<Request>()));
  absl::Status status;
  do {
    Response response;
    status = attempts.End((stub.*method)(attempts.Begin(), request, &response));
    if (status.ok()) return response;
  } while (attempts.Again(&status));
  return status;
}

template <typename Stub, typename Request, typename Response>
Stream<Response> Client::Open(Stub& stub,
                              std::unique_ptr<grpc::ClientReader<Response>> (Stub::*method)(
                                  grpc::ClientContext*, const Request&),
                              const Request& request, const CallOptions& options) {
  return Stream<Response>(std::make_unique<internal::Attempts>(
                              SettingsOf(request, options, Repeat::kHarmless, kStreamTimeout)),
                          [stubs = stubs_, &stub, method, request](grpc::ClientContext* context) {
                            return (stub.*method)(context, request);
                          });
}

absl::StatusOr<v1::ListModelsResponse> Client::ListModels(const v1::ListModelsRequest& request,
                                                          const CallOptions& options) {
  return Call(stubs_->models, &v1::ModelService::Stub::ListModels, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::GetModelResponse> Client::GetModel(const v1::GetModelRequest& request,
                                                      const CallOptions& options) {
  return Call(stubs_->models, &v1::ModelService::Stub::GetModel, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::ListReplicasResponse> Client::ListReplicas(
    const v1::ListReplicasRequest& request, const CallOptions& options) {
  return Call(stubs_->models, &v1::ModelService::Stub::ListReplicas, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::LoadModelResponse> Client::LoadModel(v1::LoadModelRequest request,
                                                        const CallOptions& options) {
  FillRequestId(request);
  return Call(stubs_->models, &v1::ModelService::Stub::LoadModel, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::UnloadModelResponse> Client::UnloadModel(const v1::UnloadModelRequest& request,
                                                            const CallOptions& options) {
  return Call(stubs_->models, &v1::ModelService::Stub::UnloadModel, request, options,
              Repeat::kNever);
}
absl::StatusOr<v1::TokenizeResponse> Client::Tokenize(const v1::TokenizeRequest& request,
                                                      const CallOptions& options) {
  return Call(stubs_->models, &v1::ModelService::Stub::Tokenize, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::DetokenizeResponse> Client::Detokenize(const v1::DetokenizeRequest& request,
                                                          const CallOptions& options) {
  return Call(stubs_->models, &v1::ModelService::Stub::Detokenize, request, options,
              Repeat::kHarmless);
}

absl::StatusOr<v1::GenerateResponse> Client::Generate(const v1::GenerateRequest& request,
                                                      const CallOptions& options) {
  return Call(stubs_->generation, &v1::GenerationService::Stub::Generate, request, options,
              Repeat::kHarmless);
}
Stream<v1::StreamGenerateResponse> Client::StreamGenerate(const v1::StreamGenerateRequest& request,
                                                          const CallOptions& options) {
  return Open(stubs_->generation, &v1::GenerationService::Stub::StreamGenerate, request, options);
}
absl::StatusOr<v1::ScoreResponse> Client::Score(const v1::ScoreRequest& request,
                                                const CallOptions& options) {
  return Call(stubs_->generation, &v1::GenerationService::Stub::Score, request, options,
              Repeat::kHarmless);
}

Stream<v1::CaptureResponse> Client::Capture(const v1::CaptureRequest& request,
                                            const CallOptions& options) {
  return Open(stubs_->activations, &v1::ActivationService::Stub::Capture, request, options);
}

absl::StatusOr<v1::ExtractVectorsResponse> Client::ExtractVectors(v1::ExtractVectorsRequest request,
                                                                  const CallOptions& options) {
  FillRequestId(request);
  return Call(stubs_->vectors, &v1::VectorService::Stub::ExtractVectors, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::DecomposeVectorsResponse> Client::DecomposeVectors(
    v1::DecomposeVectorsRequest request, const CallOptions& options) {
  FillRequestId(request);
  return Call(stubs_->vectors, &v1::VectorService::Stub::DecomposeVectors, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::CompareVectorsResponse> Client::CompareVectors(
    const v1::CompareVectorsRequest& request, const CallOptions& options) {
  return Call(stubs_->vectors, &v1::VectorService::Stub::CompareVectors, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::CreateVectorResponse> Client::CreateVector(v1::CreateVectorRequest request,
                                                              const CallOptions& options) {
  FillRequestId(request);
  return Call(stubs_->vectors, &v1::VectorService::Stub::CreateVector, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::GetVectorResponse> Client::GetVector(const v1::GetVectorRequest& request,
                                                        const CallOptions& options) {
  return Call(stubs_->vectors, &v1::VectorService::Stub::GetVector, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::ListVectorsResponse> Client::ListVectors(const v1::ListVectorsRequest& request,
                                                            const CallOptions& options) {
  return Call(stubs_->vectors, &v1::VectorService::Stub::ListVectors, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::DeleteVectorResponse> Client::DeleteVector(
    const v1::DeleteVectorRequest& request, const CallOptions& options) {
  return Call(stubs_->vectors, &v1::VectorService::Stub::DeleteVector, request, options,
              Repeat::kNever);
}

absl::StatusOr<v1::AttributeNeuronsResponse> Client::AttributeNeurons(
    v1::AttributeNeuronsRequest request, const CallOptions& options) {
  FillRequestId(request);
  return Call(stubs_->neurons, &v1::NeuronService::Stub::AttributeNeurons, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::ClassifyNeuronsResponse> Client::ClassifyNeurons(
    v1::ClassifyNeuronsRequest request, const CallOptions& options) {
  FillRequestId(request);
  return Call(stubs_->neurons, &v1::NeuronService::Stub::ClassifyNeurons, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::ScoreSelectivityResponse> Client::ScoreSelectivity(
    v1::ScoreSelectivityRequest request, const CallOptions& options) {
  FillRequestId(request);
  return Call(stubs_->neurons, &v1::NeuronService::Stub::ScoreSelectivity, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::TestNeuronsResponse> Client::TestNeurons(const v1::TestNeuronsRequest& request,
                                                            const CallOptions& options) {
  return Call(stubs_->neurons, &v1::NeuronService::Stub::TestNeurons, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::CompareNeuronSetsResponse> Client::CompareNeuronSets(
    const v1::CompareNeuronSetsRequest& request, const CallOptions& options) {
  return Call(stubs_->neurons, &v1::NeuronService::Stub::CompareNeuronSets, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::GetNeuronSetResponse> Client::GetNeuronSet(
    const v1::GetNeuronSetRequest& request, const CallOptions& options) {
  return Call(stubs_->neurons, &v1::NeuronService::Stub::GetNeuronSet, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::ListNeuronSetsResponse> Client::ListNeuronSets(
    const v1::ListNeuronSetsRequest& request, const CallOptions& options) {
  return Call(stubs_->neurons, &v1::NeuronService::Stub::ListNeuronSets, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::DeleteNeuronSetResponse> Client::DeleteNeuronSet(
    const v1::DeleteNeuronSetRequest& request, const CallOptions& options) {
  return Call(stubs_->neurons, &v1::NeuronService::Stub::DeleteNeuronSet, request, options,
              Repeat::kNever);
}
absl::StatusOr<v1::TopContextsResponse> Client::TopContexts(const v1::TopContextsRequest& request,
                                                            const CallOptions& options) {
  return Call(stubs_->neurons, &v1::NeuronService::Stub::TopContexts, request, options,
              Repeat::kHarmless);
}

absl::StatusOr<v1::AskQuestionnaireResponse> Client::AskQuestionnaire(
    const v1::AskQuestionnaireRequest& request, const CallOptions& options) {
  return Call(stubs_->evaluation, &v1::EvaluationService::Stub::AskQuestionnaire, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::AnswerChoicesResponse> Client::AnswerChoices(
    const v1::AnswerChoicesRequest& request, const CallOptions& options) {
  return Call(stubs_->evaluation, &v1::EvaluationService::Stub::AnswerChoices, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::ScoreTaggedResponsesResponse> Client::ScoreTaggedResponses(
    const v1::ScoreTaggedResponsesRequest& request, const CallOptions& options) {
  return Call(stubs_->evaluation, &v1::EvaluationService::Stub::ScoreTaggedResponses, request,
              options, Repeat::kHarmless);
}
absl::StatusOr<v1::JudgeResponsesResponse> Client::JudgeResponses(
    const v1::JudgeResponsesRequest& request, const CallOptions& options) {
  return Call(stubs_->evaluation, &v1::EvaluationService::Stub::JudgeResponses, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::CompareResponsesResponse> Client::CompareResponses(
    const v1::CompareResponsesRequest& request, const CallOptions& options) {
  return Call(stubs_->evaluation, &v1::EvaluationService::Stub::CompareResponses, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::MeasureTextsResponse> Client::MeasureTexts(
    const v1::MeasureTextsRequest& request, const CallOptions& options) {
  return Call(stubs_->evaluation, &v1::EvaluationService::Stub::MeasureTexts, request, options,
              Repeat::kHarmless);
}

absl::StatusOr<v1::CreateJobResponse> Client::CreateJob(v1::CreateJobRequest request,
                                                        const CallOptions& options) {
  if (!request.validate_only()) FillRequestId(request);
  return Call(stubs_->jobs, &v1::JobService::Stub::CreateJob, request, options, Repeat::kHarmless);
}
absl::StatusOr<v1::GetJobResponse> Client::GetJob(const v1::GetJobRequest& request,
                                                  const CallOptions& options) {
  return Call(stubs_->jobs, &v1::JobService::Stub::GetJob, request, options, Repeat::kHarmless);
}
absl::StatusOr<v1::ListJobsResponse> Client::ListJobs(const v1::ListJobsRequest& request,
                                                      const CallOptions& options) {
  return Call(stubs_->jobs, &v1::JobService::Stub::ListJobs, request, options, Repeat::kHarmless);
}
Stream<v1::WatchJobResponse> Client::WatchJob(const v1::WatchJobRequest& request,
                                              const CallOptions& options) {
  return Open(stubs_->jobs, &v1::JobService::Stub::WatchJob, request, options);
}
JobWatch Client::FollowJob(const v1::WatchJobRequest& request, const CallOptions& options,
                           JobWatch::OnLost on_lost) {
  internal::Attempts::Settings settings =
      SettingsOf(request, options, Repeat::kHarmless, absl::InfiniteDuration());
  settings.timeout = options.timeout.value_or(absl::InfiniteDuration());
  settings.retry.attempts *= kWatchPatience;
  return JobWatch(
      std::make_unique<internal::Attempts>(std::move(settings)), request.last_revision(),
      [stubs = stubs_, request](grpc::ClientContext* context, int64_t last_revision) {
        v1::WatchJobRequest behind = request;
        behind.set_last_revision(last_revision);
        return stubs->jobs.WatchJob(context, behind);
      },
      std::move(on_lost));
}
absl::StatusOr<v1::CancelJobResponse> Client::CancelJob(const v1::CancelJobRequest& request,
                                                        const CallOptions& options) {
  return Call(stubs_->jobs, &v1::JobService::Stub::CancelJob, request, options, Repeat::kHarmless);
}
absl::StatusOr<v1::RetryJobResponse> Client::RetryJob(v1::RetryJobRequest request,
                                                      const CallOptions& options) {
  FillRequestId(request);
  return Call(stubs_->jobs, &v1::JobService::Stub::RetryJob, request, options, Repeat::kHarmless);
}
absl::StatusOr<v1::DeleteJobResponse> Client::DeleteJob(const v1::DeleteJobRequest& request,
                                                        const CallOptions& options) {
  return Call(stubs_->jobs, &v1::JobService::Stub::DeleteJob, request, options, Repeat::kNever);
}

absl::StatusOr<v1::GetArtifactResponse> Client::GetArtifact(const v1::GetArtifactRequest& request,
                                                            const CallOptions& options) {
  return Call(stubs_->artifacts, &v1::ArtifactService::Stub::GetArtifact, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::ListArtifactsResponse> Client::ListArtifacts(
    const v1::ListArtifactsRequest& request, const CallOptions& options) {
  return Call(stubs_->artifacts, &v1::ArtifactService::Stub::ListArtifacts, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::DeleteArtifactResponse> Client::DeleteArtifact(
    const v1::DeleteArtifactRequest& request, const CallOptions& options) {
  return Call(stubs_->artifacts, &v1::ArtifactService::Stub::DeleteArtifact, request, options,
              Repeat::kNever);
}

absl::StatusOr<v1::PublishResourceResponse> Client::PublishResource(
    const v1::PublishResourceRequest& request, const CallOptions& options) {
  return Call(stubs_->tenants, &v1::TenantService::Stub::PublishResource, request, options,
              Repeat::kHarmless);
}
absl::StatusOr<v1::WithdrawResourceResponse> Client::WithdrawResource(
    const v1::WithdrawResourceRequest& request, const CallOptions& options) {
  return Call(stubs_->tenants, &v1::TenantService::Stub::WithdrawResource, request, options,
              Repeat::kNever);
}
absl::StatusOr<v1::QueryUsageResponse> Client::QueryUsage(const v1::QueryUsageRequest& request,
                                                          const CallOptions& options) {
  return Call(stubs_->tenants, &v1::TenantService::Stub::QueryUsage, request, options,
              Repeat::kHarmless);
}

absl::StatusOr<v1::ImportVectorsResponse> Client::ImportVectors(const std::string& bytes,
                                                                v1::ImportVectorsHeader header,
                                                                const CallOptions& options) {
  Announce(bytes, header);
  internal::Attempts attempts(SettingsOf(header, options, Repeat::kHarmless, kWorkTimeout));
  absl::Status status;
  do {
    v1::ImportVectorsResponse response;
    const auto writer = stubs_->vectors.ImportVectors(attempts.Begin(), &response);
    Upload(bytes, header, *writer);
    status = attempts.End(writer->Finish());
    if (status.ok()) return response;
  } while (attempts.Again(&status));
  return status;
}

absl::Status Client::ExportVectors(const v1::ExportVectorsRequest& request,
                                   const std::function<absl::Status(const std::string&)>& sink,
                                   const CallOptions& options) {
  auto stream = Open(stubs_->vectors, &v1::VectorService::Stub::ExportVectors, request, options);
  int64_t offset = 0, total = 0;
  v1::ExportVectorsResponse part;
  while (stream.Read(&part)) {
    const std::string& data = part.data();
    if (part.offset() != offset || part.crc32c() != ChunkChecksum(data.data(), data.size())) {
      return absl::DataLossError(absl::StrCat("the file's part at ", offset, " is damaged"));
    }
    if (absl::Status status = sink(data); !status.ok()) return status;
    offset += static_cast<int64_t>(data.size());
    total = part.total_bytes();
  }
  if (absl::Status status = stream.Finish(); !status.ok()) return status;
  if (offset == total) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("the file ended at ", offset, " of ", total, " bytes"));
}

absl::StatusOr<v1::Artifact> Client::WriteArtifact(const std::string& bytes,
                                                   v1::WriteArtifactHeader header,
                                                   const CallOptions& options) {
  Announce(bytes, header);

  internal::Attempts attempts(SettingsOf(header, options, Repeat::kHarmless, kWorkTimeout));
  absl::Status status;
  do {
    v1::WriteArtifactResponse response;
    const auto writer = stubs_->artifacts.WriteArtifact(attempts.Begin(), &response);
    Upload(bytes, header, *writer);
    status = attempts.End(writer->Finish());
    if (status.ok()) return response.artifact();
  } while (attempts.Again(&status));
  return status;
}

absl::StatusOr<v1::Artifact> Client::ReadArtifact(
    const std::string& name, const std::function<absl::Status(const std::string&)>& sink,
    const CallOptions& options) {
  v1::GetArtifactRequest get;
  get.set_name(name);
  const auto found = GetArtifact(get, options);
  if (!found.ok()) return found.status();

  const v1::Artifact& artifact = found->artifact();
  Download download(name, sink);
  v1::ReadArtifactRequest request;
  request.set_name(name);
  internal::Attempts attempts(SettingsOf(request, options, Repeat::kHarmless, kStreamTimeout));
  const auto take = [&](const v1::ReadArtifactResponse& part) {
    return download.Add(part.chunk());
  };
  while (download.offset() < artifact.size_bytes()) {
    request.set_offset(download.offset());
    const auto reader = stubs_->artifacts.ReadArtifact(attempts.Begin(), request);
    absl::Status taken;
    absl::Status status = ReadParts(*reader, attempts, take, &taken);
    if (!taken.ok()) return taken;
    if (status.ok()) break;
    if (!attempts.Again(&status)) return status;
  }
  if (absl::Status status = download.Check(artifact.size_bytes(), artifact.sha256()); !status.ok())
    return status;
  return artifact;
}

absl::StatusOr<v1::TableEnd> Client::ReadTable(
    v1::ReadTableRequest request, const std::function<absl::Status(const std::string&)>& sink,
    const CallOptions& options) {
  Download download(request.artifact(), sink);
  internal::Attempts attempts(SettingsOf(request, options, Repeat::kHarmless, kStreamTimeout));
  v1::TableEnd end;
  const auto take = [&](const v1::ReadTableResponse& part) {
    if (part.has_end()) end = part.end();
    return part.has_chunk() ? download.Add(part.chunk()) : absl::OkStatus();
  };
  absl::Status status;
  do {
    request.set_offset(download.offset());
    const auto reader = stubs_->artifacts.ReadTable(attempts.Begin(), request);
    absl::Status taken;
    status = ReadParts(*reader, attempts, take, &taken);
    if (!taken.ok()) return taken;
  } while (!status.ok() && attempts.Again(&status));
  if (status.ok()) status = download.Check(end.size_bytes(), end.sha256());
  if (!status.ok()) return status;
  return end;
}

}  // namespace valuescope
