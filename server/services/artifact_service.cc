#include "services/artifact_service.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/id.h"
#include "base/shared_tenant.h"
#include "base/status_macros.h"
#include "services/idempotency.h"
#include "services/replays.h"
#include "services/request_codec.h"
#include "services/study_codec.h"
#include "studies/provenance.h"
#include "studies/stored_neuron_set.h"
#include "studies/stored_record.h"

namespace valuescope::services {
namespace {

constexpr int64_t kMaxArtifact = int64_t{1} << 40;
constexpr size_t kMaxMediaType = 127;

// Every artifact's bytes follow their first format; a resource's version is of its record.
constexpr int kBytesVersion = 1;

absl::StatusOr<v1::Provenance> ProvenanceOf(const store::Resource& resource) {
  if (resource.kind != store::ResourceKind::kNeuronSet) {
    return studies::ProvenanceOfArtifact(resource);
  }
  VS_ASSIGN_OR_RETURN(v1::NeuronSet set, studies::DescribeNeuronSet(resource));
  return std::move(*set.mutable_provenance());
}

absl::StatusOr<v1::Artifact> ToProto(const store::Resource& resource) {
  v1::Artifact proto;
  proto.set_name(resource.kind == store::ResourceKind::kNeuronSet
                     ? absl::StrCat("artifacts/", studies::kNeuronSetArtifactPrefix, resource.id)
                     : store::ResourceName(resource.kind, resource.id));
  proto.set_display_name(resource.display_name);
  proto.set_media_type(resource.media_type);
  proto.set_size_bytes(resource.blob_size);
  proto.set_sha256(resource.blob_digest);
  proto.set_format_version(kBytesVersion);
  if (!resource.job_id.empty()) proto.set_job(absl::StrCat("jobs/", resource.job_id));
  *proto.mutable_create_time() = TimeToProto(resource.created_at);
  proto.set_owner(resource.owner());
  VS_ASSIGN_OR_RETURN(v1::Provenance provenance, ProvenanceOf(resource));
  if (provenance.format_version() > 0) *proto.mutable_provenance() = std::move(provenance);
  return proto;
}

bool IsPrintable(absl::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return absl::ascii_isprint(c); });
}

absl::Status CheckHeader(const v1::WriteArtifactHeader& header) {
  if (header.size_bytes() < 0 || header.size_bytes() > kMaxArtifact) {
    return OutOfRange("header.size_bytes", static_cast<double>(header.size_bytes()), 0,
                      static_cast<double>(kMaxArtifact));
  }
  VS_RETURN_IF_ERROR(CheckDisplayName("header.display_name", header.display_name()));
  if (absl::StrContains(header.display_name(), "/")) {
    return InvalidField("header.display_name", "must hold no '/'");
  }
  if (header.media_type().size() > kMaxMediaType || !IsPrintable(header.media_type())) {
    return InvalidField("header.media_type", "must be at most 127 printable ASCII characters");
  }
  return store::CheckDigest("header.sha256", header.sha256());
}

absl::Status CheckChunk(const v1::ArtifactChunk& chunk, int64_t offset, int64_t size) {
  if (chunk.offset() != offset) {
    return InvalidField("chunk.offset",
                        absl::StrCat("is ", chunk.offset(), ", the next byte is ", offset),
                        "WRONG_OFFSET");
  }
  const int64_t bytes = static_cast<int64_t>(chunk.data().size());
  if (bytes > kArtifactChunk)
    return OutOfRange("chunk.data", static_cast<double>(bytes), 0,
                      static_cast<double>(kArtifactChunk));
  if (bytes > size - offset)
    return InvalidField("chunk.data", "goes beyond header.size_bytes", "WRONG_SIZE");
  if (bytes > 0 && chunk.crc32c() != Crc32c(chunk.data())) {
    return InvalidField("chunk.crc32c", absl::StrCat("does not match the data at offset ", offset),
                        "CHECKSUM_MISMATCH");
  }
  return absl::OkStatus();
}

}  // namespace

// The columns of a neuron set are read as an artifact too; the set itself owns their bytes.
absl::StatusOr<store::Resource> ArtifactService::Find(const std::string& tenant,
                                                      const std::string& name) const {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName("name", "artifacts", name));
  if (absl::StartsWith(id, studies::kNeuronSetArtifactPrefix)) {
    const std::string set =
        id.substr(std::char_traits<char>::length(studies::kNeuronSetArtifactPrefix));
    auto found = store_->GetResource(tenant, store::ResourceKind::kNeuronSet, set);
    if (!absl::IsNotFound(found.status())) return found;
  }
  return store_->GetResource(tenant, store::ResourceKind::kArtifact, id);
}

absl::Status ArtifactService::WriteArtifact(const rpc::CallContext& context,
                                            rpc::StreamReader<v1::WriteArtifactRequest>& reader,
                                            v1::WriteArtifactResponse* response) {
  VS_ASSIGN_OR_RETURN(std::optional<v1::WriteArtifactRequest> first, reader.Read());
  if (!first || !first->has_header()) return InvalidField("header", "must come first");
  const v1::WriteArtifactHeader header = first->header();
  VS_RETURN_IF_ERROR(CheckHeader(header));
  auto key = KeyOf("ArtifactService/WriteArtifact", header);
  if (!key.ok()) return InField("header", key.status());
  // The header names the bytes, so a repetition is answered before they have come again.
  VS_ASSIGN_OR_RETURN(const auto earlier, EarlierResult(*store_, context.tenant, *key));
  if (earlier) {
    VS_ASSIGN_OR_RETURN(*response->mutable_artifact(), ToProto(*earlier));
    return absl::OkStatus();
  }
  VS_ASSIGN_OR_RETURN(auto writer, blobs_->NewWriter());
  while (true) {
    VS_ASSIGN_OR_RETURN(const std::optional<v1::WriteArtifactRequest> part, reader.Read());
    if (!part) break;
    if (!part->has_chunk()) return InvalidField("chunk", "must follow the header");
    VS_RETURN_IF_ERROR(CheckChunk(part->chunk(), writer->size(), header.size_bytes()));
    VS_RETURN_IF_ERROR(writer->Append(part->chunk().data()));
  }
  // A client that vanished ended its stream too: what it sent is not what it announced.
  if (writer->size() != header.size_bytes()) {
    return InvalidField(
        "header.size_bytes",
        absl::StrCat("is ", header.size_bytes(), ", ", writer->size(), " bytes came"),
        "WRONG_SIZE");
  }
  auto blob = writer->Finish(header.sha256());
  if (!blob.ok()) return InField("header", blob.status());
  store::Resource resource;
  resource.kind = store::ResourceKind::kArtifact;
  resource.id = NewUuid();
  resource.digest = blob->digest;
  resource.display_name = header.display_name();
  resource.media_type =
      header.media_type().empty() ? "application/octet-stream" : header.media_type();
  resource.format_version = studies::kRecordVersion;
  resource.blob_digest = blob->digest;
  resource.blob_size = blob->size;
  VS_ASSIGN_OR_RETURN(const auto stored,
                      store_->PutResources(context.tenant, {std::move(resource)}, *key));
  VS_ASSIGN_OR_RETURN(*response->mutable_artifact(), ToProto(stored.front()));
  return absl::OkStatus();
}

absl::Status ArtifactService::GetArtifact(const rpc::CallContext& context,
                                          const v1::GetArtifactRequest& request,
                                          v1::GetArtifactResponse* response) {
  VS_ASSIGN_OR_RETURN(const store::Resource resource, Find(context.tenant, request.name()));
  VS_ASSIGN_OR_RETURN(*response->mutable_artifact(), ToProto(resource));
  return absl::OkStatus();
}

absl::Status ArtifactService::ListArtifacts(const rpc::CallContext& context,
                                            const v1::ListArtifactsRequest& request,
                                            v1::ListArtifactsResponse* response) {
  VS_ASSIGN_OR_RETURN(
      store::ResourceFilter filter,
      FilterByModel(request.model(), [](const store::Resource& resource, const std::string& model) {
        const auto provenance = studies::ProvenanceOfArtifact(resource);
        return provenance.ok() && provenance->model() == model;
      }));
  if (!request.job().empty()) {
    VS_ASSIGN_OR_RETURN(filter.job_id, IdOfName("job", "jobs", request.job()));
  }
  VS_ASSIGN_OR_RETURN(const store::ResourcePage page,
                      store_->ListResources(
                          request.shared() ? kSharedTenant : absl::string_view(context.tenant),
                          store::ResourceKind::kArtifact, filter,
                          {.page_size = request.page_size(), .page_token = request.page_token()}));
  for (const store::Resource& resource : page.resources) {
    VS_ASSIGN_OR_RETURN(*response->add_artifacts(), ToProto(resource));
  }
  response->set_next_page_token(page.next_page_token);
  return absl::OkStatus();
}

absl::Status ArtifactService::ReadArtifact(const rpc::CallContext& context,
                                           const v1::ReadArtifactRequest& request,
                                           rpc::StreamWriter<v1::ReadArtifactResponse>& writer) {
  VS_ASSIGN_OR_RETURN(const store::Resource resource, Find(context.tenant, request.name()));
  if (request.offset() < 0 || request.offset() > resource.blob_size) {
    return OutOfRange("offset", static_cast<double>(request.offset()), 0,
                      static_cast<double>(resource.blob_size));
  }
  if (request.limit() < 0)
    return InvalidField("limit", "must not be negative; 0 means up to the end");
  const int64_t left = resource.blob_size - request.offset();
  const int64_t end =
      request.offset() + (request.limit() == 0 ? left : std::min(left, request.limit()));
  // A chunk, and the bytes that it is sent as.
  VS_RETURN_IF_ERROR(context.Hold(2 * std::min(kMostChunkMessage, end - request.offset())));
  bool first = true;
  for (int64_t offset = request.offset(); offset < end; offset += kArtifactChunk) {
    if (context.cancellation.cancelled()) return context.Why();
    v1::ReadArtifactResponse part;
    VS_ASSIGN_OR_RETURN(
        *part.mutable_chunk()->mutable_data(),
        blobs_->Read(resource.blob_digest, offset, std::min(kArtifactChunk, end - offset)));
    part.mutable_chunk()->set_offset(offset);
    part.mutable_chunk()->set_crc32c(Crc32c(part.chunk().data()));
    if (std::exchange(first, false)) {
      VS_ASSIGN_OR_RETURN(*part.mutable_artifact(), ToProto(resource));
    }
    VS_RETURN_IF_ERROR(writer.Write(std::move(part)));
  }
  return absl::OkStatus();
}

absl::Status ArtifactService::DeleteArtifact(const rpc::CallContext& context,
                                             const v1::DeleteArtifactRequest& request,
                                             v1::DeleteArtifactResponse*) {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName("name", "artifacts", request.name()));
  return store_->DeleteResource(context.tenant, store::ResourceKind::kArtifact, id);
}

}  // namespace valuescope::services
