#include "valuescope/client.h"

#include <openssl/rand.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "absl/strings/cord.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "checksum.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace valuescope {
namespace {

constexpr char kDetails[] = "valuescope/details";
constexpr char kRequestId[] = "valuescope/request_id";
constexpr int kMessageLimit = 16 << 20;
constexpr size_t kChunkBytes = 1 << 20;

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

// How long to wait before another attempt, or nothing where another attempt is of no use.
std::optional<absl::Duration> RetryDelay(const absl::Status& status, int attempt) {
  const absl::Duration backoff =
      std::min(absl::Milliseconds(100) * (1 << std::min(attempt, 10)), absl::Seconds(5));
  if (status.code() == absl::StatusCode::kUnavailable) {
    return ErrorDetailsOf(status).retry_after.value_or(backoff);
  }
  if (status.code() == absl::StatusCode::kResourceExhausted) {
    return ErrorDetailsOf(status).retry_after;
  }
  return std::nullopt;
}

float FromHalf(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu;
  const uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  const uint32_t wide =
      sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | (mantissa << 13);
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

float FromBFloat16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

template <typename T, typename Convert>
std::vector<float> ConvertElements(const std::string& data, Convert convert) {
  std::vector<float> elements(data.size() / sizeof(T));
  for (size_t i = 0; i < elements.size(); ++i) {
    T element;
    std::memcpy(&element, data.data() + i * sizeof(T), sizeof(T));
    elements[i] = convert(element);
  }
  return elements;
}

// Product of the dimensions, or nothing for a negative one or an overflow.
template <typename Dimensions>
std::optional<int64_t> ElementCount(const Dimensions& shape) {
  int64_t count = 1;
  for (const int64_t dimension : shape) {
    if (dimension < 0 || (dimension > 0 && count > (int64_t{1} << 48) / dimension)) {
      return std::nullopt;
    }
    count *= dimension;
  }
  return count;
}

}  // namespace

absl::Status FromGrpcStatus(const grpc::Status& status, const grpc::ClientContext& context) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  result.SetPayload(kDetails, absl::Cord(status.error_details()));
  const auto& trailing = context.GetServerTrailingMetadata();
  if (const auto found = trailing.find("x-request-id"); found != trailing.end()) {
    result.SetPayload(kRequestId,
                      absl::Cord(absl::string_view(found->second.data(), found->second.size())));
  }
  return result;
}

ErrorDetails ErrorDetailsOf(const absl::Status& status) {
  ErrorDetails details;
  if (const auto id = status.GetPayload(kRequestId)) details.request_id = std::string(*id);
  const auto payload = status.GetPayload(kDetails);
  google::rpc::Status rich;
  if (!payload || !rich.ParseFromString(std::string(*payload))) return details;
  for (const auto& any : rich.details()) {
    if (google::rpc::ErrorInfo info; any.UnpackTo(&info)) details.reason = info.reason();
    if (google::rpc::BadRequest bad; any.UnpackTo(&bad)) {
      for (const auto& violation : bad.field_violations()) {
        details.violations.push_back({violation.field(), violation.description()});
      }
    }
    if (google::rpc::RetryInfo retry; any.UnpackTo(&retry)) {
      details.retry_after = absl::Seconds(retry.retry_delay().seconds()) +
                            absl::Nanoseconds(retry.retry_delay().nanos());
    }
  }
  return details;
}

absl::StatusOr<v1::Tensor> MakeTensor(std::span<const float> elements, std::vector<int64_t> shape) {
  const std::optional<int64_t> count = ElementCount(shape);
  if (!count || *count != static_cast<int64_t>(elements.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("a tensor of this shape does not have ", elements.size(), " elements"));
  }
  v1::Tensor tensor;
  tensor.set_dtype(v1::DATA_TYPE_FLOAT32);
  tensor.mutable_shape()->Add(shape.begin(), shape.end());
  tensor.set_data(elements.data(), elements.size_bytes());
  return tensor;
}

absl::StatusOr<std::vector<float>> TensorElements(const v1::Tensor& tensor) {
  const std::optional<int64_t> count = ElementCount(tensor.shape());
  const auto sized = [&](int64_t size) {
    return count && *count * size == static_cast<int64_t>(tensor.data().size());
  };
  switch (tensor.dtype()) {
    case v1::DATA_TYPE_FLOAT32:
      if (sized(4)) return ConvertElements<float>(tensor.data(), [](float x) { return x; });
      break;
    case v1::DATA_TYPE_FLOAT64:
      if (sized(8)) {
        return ConvertElements<double>(tensor.data(),
                                       [](double x) { return static_cast<float>(x); });
      }
      break;
    case v1::DATA_TYPE_FLOAT16:
      if (sized(2)) return ConvertElements<uint16_t>(tensor.data(), FromHalf);
      break;
    case v1::DATA_TYPE_BFLOAT16:
      if (sized(2)) return ConvertElements<uint16_t>(tensor.data(), FromBFloat16);
      break;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("not a tensor of floats: ", v1::DataType_Name(tensor.dtype())));
  }
  return absl::InvalidArgumentError("the tensor's bytes do not match its shape");
}

struct Client::Stubs {
  explicit Stubs(const std::shared_ptr<grpc::Channel>& channel)
      : activations(channel),
        artifacts(channel),
        generation(channel),
        jobs(channel),
        models(channel),
        neurons(channel),
        vectors(channel) {}

  v1::ActivationService::Stub activations;
  v1::ArtifactService::Stub artifacts;
  v1::GenerationService::Stub generation;
  v1::JobService::Stub jobs;
  v1::ModelService::Stub models;
  v1::NeuronService::Stub neurons;
  v1::VectorService::Stub vectors;
};

Client::Client(const std::string& target, ClientOptions options) : options_(std::move(options)) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMessageLimit);
  arguments.SetMaxSendMessageSize(kMessageLimit);
  const auto credentials =
      options_.credentials ? options_.credentials : grpc::InsecureChannelCredentials();
  stubs_ = std::make_unique<Stubs>(grpc::CreateCustomChannel(target, credentials, arguments));
}

Client::~Client() = default;
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;

absl::Time Client::DeadlineFromNow() const { return absl::Now() + options_.timeout; }

std::unique_ptr<grpc::ClientContext> Client::NewContext(absl::Time deadline) const {
  auto context = std::make_unique<grpc::ClientContext>();
  if (deadline != absl::InfiniteFuture()) context->set_deadline(absl::ToChronoTime(deadline));
  if (!options_.token.empty()) {
    context->AddMetadata("authorization", absl::StrCat("Bearer ", options_.token));
  }
  return context;
}

template <typename Stub, typename Request, typename Response>
absl::StatusOr<Response> Client::Call(Stub& stub,
                                      grpc::Status (Stub::*method)(grpc::ClientContext*,
                                                                   const Request&, Response*),
                                      const Request& request) {
  const absl::Time deadline = DeadlineFromNow();
  for (int attempt = 0;; ++attempt) {
    const auto context = NewContext(deadline);
    Response response;
    absl::Status status =
        FromGrpcStatus((stub.*method)(context.get(), request, &response), *context);
    if (status.ok()) return response;
    const std::optional<absl::Duration> delay = RetryDelay(status, attempt);
    if (!delay || attempt == options_.max_retries || absl::Now() + *delay >= deadline) {
      return status;
    }
    absl::SleepFor(*delay);
  }
}

absl::StatusOr<v1::ListModelsResponse> Client::ListModels(const v1::ListModelsRequest& request) {
  return Call(stubs_->models, &v1::ModelService::Stub::ListModels, request);
}
absl::StatusOr<v1::GetModelResponse> Client::GetModel(const v1::GetModelRequest& request) {
  return Call(stubs_->models, &v1::ModelService::Stub::GetModel, request);
}
absl::StatusOr<v1::TokenizeResponse> Client::Tokenize(const v1::TokenizeRequest& request) {
  return Call(stubs_->models, &v1::ModelService::Stub::Tokenize, request);
}
absl::StatusOr<v1::DetokenizeResponse> Client::Detokenize(const v1::DetokenizeRequest& request) {
  return Call(stubs_->models, &v1::ModelService::Stub::Detokenize, request);
}

absl::StatusOr<v1::GenerateResponse> Client::Generate(const v1::GenerateRequest& request) {
  return Call(stubs_->generation, &v1::GenerationService::Stub::Generate, request);
}
Stream<v1::StreamGenerateResponse> Client::StreamGenerate(
    const v1::StreamGenerateRequest& request) {
  auto context = NewContext(DeadlineFromNow());
  auto reader = stubs_->generation.StreamGenerate(context.get(), request);
  return {std::move(context), std::move(reader)};
}
absl::StatusOr<v1::ScoreResponse> Client::Score(const v1::ScoreRequest& request) {
  return Call(stubs_->generation, &v1::GenerationService::Stub::Score, request);
}
Stream<v1::CaptureResponse> Client::Capture(const v1::CaptureRequest& request) {
  auto context = NewContext(DeadlineFromNow());
  auto reader = stubs_->activations.Capture(context.get(), request);
  return {std::move(context), std::move(reader)};
}

absl::StatusOr<v1::ExtractVectorsResponse> Client::ExtractVectors(
    v1::ExtractVectorsRequest request) {
  FillRequestId(request);
  return Call(stubs_->vectors, &v1::VectorService::Stub::ExtractVectors, request);
}
absl::StatusOr<v1::DecomposeVectorsResponse> Client::DecomposeVectors(
    v1::DecomposeVectorsRequest request) {
  FillRequestId(request);
  return Call(stubs_->vectors, &v1::VectorService::Stub::DecomposeVectors, request);
}
absl::StatusOr<v1::CreateVectorResponse> Client::CreateVector(v1::CreateVectorRequest request) {
  FillRequestId(request);
  return Call(stubs_->vectors, &v1::VectorService::Stub::CreateVector, request);
}
absl::StatusOr<v1::GetVectorResponse> Client::GetVector(const v1::GetVectorRequest& request) {
  return Call(stubs_->vectors, &v1::VectorService::Stub::GetVector, request);
}
absl::StatusOr<v1::ListVectorsResponse> Client::ListVectors(const v1::ListVectorsRequest& request) {
  return Call(stubs_->vectors, &v1::VectorService::Stub::ListVectors, request);
}

absl::StatusOr<v1::ClassifyNeuronsResponse> Client::ClassifyNeurons(
    v1::ClassifyNeuronsRequest request) {
  FillRequestId(request);
  return Call(stubs_->neurons, &v1::NeuronService::Stub::ClassifyNeurons, request);
}
absl::StatusOr<v1::AttributeNeuronsResponse> Client::AttributeNeurons(
    v1::AttributeNeuronsRequest request) {
  FillRequestId(request);
  return Call(stubs_->neurons, &v1::NeuronService::Stub::AttributeNeurons, request);
}

absl::StatusOr<v1::CreateJobResponse> Client::CreateJob(v1::CreateJobRequest request) {
  if (!request.validate_only()) FillRequestId(request);
  return Call(stubs_->jobs, &v1::JobService::Stub::CreateJob, request);
}
absl::StatusOr<v1::GetJobResponse> Client::GetJob(const v1::GetJobRequest& request) {
  return Call(stubs_->jobs, &v1::JobService::Stub::GetJob, request);
}
absl::StatusOr<v1::ListJobsResponse> Client::ListJobs(const v1::ListJobsRequest& request) {
  return Call(stubs_->jobs, &v1::JobService::Stub::ListJobs, request);
}
absl::StatusOr<v1::CancelJobResponse> Client::CancelJob(const v1::CancelJobRequest& request) {
  return Call(stubs_->jobs, &v1::JobService::Stub::CancelJob, request);
}
Stream<v1::WatchJobResponse> Client::WatchJob(const v1::WatchJobRequest& request) {
  auto context = NewContext(DeadlineFromNow());
  auto reader = stubs_->jobs.WatchJob(context.get(), request);
  return {std::move(context), std::move(reader)};
}

absl::StatusOr<v1::GetArtifactResponse> Client::GetArtifact(const v1::GetArtifactRequest& request) {
  return Call(stubs_->artifacts, &v1::ArtifactService::Stub::GetArtifact, request);
}
absl::StatusOr<v1::ListArtifactsResponse> Client::ListArtifacts(
    const v1::ListArtifactsRequest& request) {
  return Call(stubs_->artifacts, &v1::ArtifactService::Stub::ListArtifacts, request);
}

absl::StatusOr<v1::Artifact> Client::WriteArtifact(const std::string& bytes,
                                                   v1::WriteArtifactHeader header) {
  FillRequestId(header);
  Sha256Digest digest;
  digest.Update(bytes);
  header.set_sha256(digest.Hex());
  header.set_size_bytes(static_cast<int64_t>(bytes.size()));

  const auto context = NewContext(DeadlineFromNow());
  v1::WriteArtifactResponse response;
  const auto writer = stubs_->artifacts.WriteArtifact(context.get(), &response);
  v1::WriteArtifactRequest first;
  *first.mutable_header() = std::move(header);
  bool open = writer->Write(first);
  for (size_t offset = 0; open && offset < bytes.size(); offset += kChunkBytes) {
    const size_t size = std::min(kChunkBytes, bytes.size() - offset);
    v1::WriteArtifactRequest part;
    part.mutable_chunk()->set_offset(static_cast<int64_t>(offset));
    part.mutable_chunk()->set_data(bytes.data() + offset, size);
    part.mutable_chunk()->set_crc32c(ChunkChecksum(bytes.data() + offset, size));
    open = writer->Write(part);
  }
  writer->WritesDone();
  if (absl::Status status = FromGrpcStatus(writer->Finish(), *context); !status.ok()) return status;
  return response.artifact();
}

absl::StatusOr<v1::Artifact> Client::ReadArtifact(
    const std::string& name, const std::function<absl::Status(const std::string&)>& sink) {
  v1::GetArtifactRequest get;
  get.set_name(name);
  const auto found = GetArtifact(get);
  if (!found.ok()) return found.status();
  const v1::Artifact& artifact = found->artifact();
  const absl::Time deadline = DeadlineFromNow();

  Sha256Digest digest;
  int64_t offset = 0;
  for (int attempt = 0; offset < artifact.size_bytes();) {
    v1::ReadArtifactRequest request;
    request.set_name(name);
    request.set_offset(offset);
    auto context = NewContext(deadline);
    auto reader = stubs_->artifacts.ReadArtifact(context.get(), request);
    Stream<v1::ReadArtifactResponse> stream(std::move(context), std::move(reader));
    v1::ReadArtifactResponse part;
    while (stream.Read(&part)) {
      const std::string& data = part.chunk().data();
      if (part.chunk().offset() != offset ||
          part.chunk().crc32c() != ChunkChecksum(data.data(), data.size())) {
        return absl::DataLossError(absl::StrCat(name, ": the chunk at ", offset, " is damaged"));
      }
      if (absl::Status status = sink(data); !status.ok()) return status;
      digest.Update(data);
      offset += static_cast<int64_t>(data.size());
      attempt = 0;
    }
    const absl::Status status = stream.Finish();
    if (status.ok()) {
      if (offset < artifact.size_bytes()) {
        return absl::DataLossError(
            absl::StrCat(name, ": ended at ", offset, " of ", artifact.size_bytes(), " bytes"));
      }
      break;
    }
    const std::optional<absl::Duration> delay = RetryDelay(status, attempt);
    if (!delay || attempt++ == options_.max_retries || absl::Now() + *delay >= deadline) {
      return status;
    }
    absl::SleepFor(*delay);
  }
  if (digest.Hex() != artifact.sha256()) {
    return absl::DataLossError(absl::StrCat(name, ": SHA-256 of the bytes read differs"));
  }
  return artifact;
}

}  // namespace valuescope
