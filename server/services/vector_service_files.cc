// The part of VectorService that reads and writes files.
#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/id.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "services/idempotency.h"
#include "services/replays.h"
#include "services/reply_size.h"
#include "services/request_codec.h"
#include "services/stored_vectors.h"
#include "services/study_codec.h"
#include "services/vector_service.h"
#include "studies/vector_file.h"

namespace valuescope::services {
namespace {

constexpr int64_t kMostFile = int64_t{1} << 30;

absl::Status CheckFormat(absl::string_view field, v1::VectorFormat format) {
  if (v1::VectorFormat_IsValid(format)) return absl::OkStatus();
  return InvalidField(field, "must be a VECTOR_FORMAT_... of the contract");
}

absl::Status CheckHeader(const v1::ImportVectorsHeader& header) {
  if (header.size_bytes() < 1 || header.size_bytes() > kMostFile) {
    return OutOfRange("header.size_bytes", static_cast<double>(header.size_bytes()), 1,
                      static_cast<double>(kMostFile));
  }
  VS_RETURN_IF_ERROR(CheckFormat("header.format", header.format()));
  VS_RETURN_IF_ERROR(CheckDisplayName("header.display_name", header.display_name()));
  if (header.format() != v1::VECTOR_FORMAT_GGUF) {
    if (header.convention() != v1::GGUF_CONVENTION_UNSPECIFIED) {
      return InvalidField("header.convention", "is for GGUF alone");
    }
  } else if (header.site() != v1::SITE_UNSPECIFIED && header.site() != v1::SITE_RESIDUAL_POST) {
    return InvalidField("header.site", "must be RESIDUAL_POST, the one site of GGUF's vectors",
                        "WRONG_SITE");
  }
  return store::CheckDigest("header.sha256", header.sha256());
}

// The file that follows the header, which is what it announces. Its memory is held by then.
absl::StatusOr<std::string> Receive(const v1::ImportVectorsHeader& header,
                                    rpc::StreamReader<v1::ImportVectorsRequest>& reader) {
  const auto size = static_cast<size_t>(header.size_bytes());
  std::string file;
  file.reserve(size);
  while (true) {
    VS_ASSIGN_OR_RETURN(const std::optional<v1::ImportVectorsRequest> part, reader.Read());
    if (!part) break;
    if (part->payload_case() != v1::ImportVectorsRequest::kData) {
      return InvalidField("data", "must follow the header");
    }
    if (part->data().size() > kVectorFileChunk) {
      return OutOfRange("data", static_cast<double>(part->data().size()), 0,
                        static_cast<double>(kVectorFileChunk));
    }
    if (part->data().size() > size - file.size()) {
      return InvalidField("data", "goes beyond header.size_bytes", "WRONG_SIZE");
    }
    file += part->data();
  }
  // A client that vanished ended its stream too: what it sent is not what it announced.
  if (file.size() != size) {
    return InvalidField("header.size_bytes",
                        absl::StrCat("is ", size, ", ", file.size(), " bytes came"), "WRONG_SIZE");
  }
  if (Sha256Hex(file) != header.sha256()) {
    return InvalidField("header.sha256", "does not match the bytes", "CHECKSUM_MISMATCH");
  }
  return file;
}

// The caller's name for a file's vectors, or their own.
absl::Status NameVectors(const v1::ImportVectorsHeader& header, studies::VectorFile& file) {
  for (studies::VectorInFile& one : file.vectors) {
    v1::Vector& record = one.vector.record;
    const std::string own =
        record.display_name().empty() ? one.tensors.front() : record.display_name();
    if (!header.display_name().empty()) {
      record.set_display_name(file.vectors.size() == 1
                                  ? header.display_name()
                                  : absl::StrCat(header.display_name(), " ", own));
    }
    const absl::Status status = CheckDisplayName("display_name", record.display_name());
    if (!status.ok()) {
      return InvalidField("data", absl::StrCat("a vector's name: ", status.message()));
    }
  }
  return absl::OkStatus();
}

// Where the answer would outgrow a message nothing is stored.
absl::Status CheckAnswerSize(const studies::VectorFile& file) {
  constexpr int64_t kRow = 128, kVector = 512;
  int64_t bytes = 0;
  for (const studies::VectorInFile& one : file.vectors) {
    v1::Vector record = one.vector.record;
    record.clear_statistics();
    bytes += kVector + static_cast<int64_t>(record.ByteSizeLong());
    for (const std::string& tensor : one.tensors) {
      bytes += kRow + static_cast<int64_t>(tensor.size());
    }
  }
  return CheckReplySize(bytes, "what is told of the file's vectors",
                        "import files of fewer vectors");
}

void Answer(const studies::VectorFile& file, const std::vector<store::Resource>& resources,
            v1::ImportVectorsResponse* response) {
  response->set_convention(file.convention);
  for (size_t i = 0; i < file.vectors.size(); ++i) {
    const studies::VectorInFile& one = file.vectors[i];
    v1::Vector& vector = *response->add_vectors();
    vector = VectorToProto(resources[i], one.vector, {});
    for (size_t row = 0; row < one.tensors.size(); ++row) {
      v1::ImportedRow& imported = *response->add_rows();
      imported.set_vector(vector.name());
      if (!vector.layers().empty()) imported.set_layer(vector.layers(static_cast<int>(row)));
      imported.set_tensor(one.tensors[row]);
    }
  }
}

}  // namespace

absl::Status VectorService::ImportVectors(const rpc::CallContext& context,
                                          rpc::StreamReader<v1::ImportVectorsRequest>& reader,
                                          v1::ImportVectorsResponse* response) {
  VS_ASSIGN_OR_RETURN(const std::optional<v1::ImportVectorsRequest> first, reader.Read());
  if (!first || !first->has_header()) return InvalidField("header", "must come first");
  const v1::ImportVectorsHeader& header = first->header();
  VS_RETURN_IF_ERROR(CheckHeader(header));
  VS_ASSIGN_OR_RETURN(const model::Site site, SiteFromProto("header.site", header.site()));
  auto key = KeyOf("VectorService/ImportVectors", header);
  if (!key.ok()) return InField("header", key.status());
  // The header names the bytes, so a repetition is answered before they have come again.
  VS_ASSIGN_OR_RETURN(const auto earlier, EarlierResults(*store_, context.tenant, *key));
  if (!earlier.empty()) return ReplayImportVectors(earlier, response);
  VS_ASSIGN_OR_RETURN(const auto model, ModelOfName("header.model", header.model(), *models_));
  VS_RETURN_IF_ERROR(context.Hold(header.size_bytes()));
  VS_ASSIGN_OR_RETURN(const std::string bytes, Receive(header, reader));
  VS_ASSIGN_OR_RETURN(const int64_t memory, studies::MemoryToRead(header.format(), bytes));
  VS_RETURN_IF_ERROR(context.Hold(memory));
  VS_ASSIGN_OR_RETURN(studies::VectorFile file,
                      studies::ReadVectorFile(header, site, *model, bytes));
  VS_RETURN_IF_ERROR(NameVectors(header, file));
  VS_RETURN_IF_ERROR(CheckAnswerSize(file));
  VS_RETURN_IF_ERROR(context.Why());
  std::vector<store::Resource> resources, to_put;
  // Two tensors of the same content are one vector, which is put once.
  std::set<std::string> ids;
  for (const studies::VectorInFile& one : file.vectors) {
    VS_ASSIGN_OR_RETURN(resources.emplace_back(), studies::MakeVectorResource(*blobs_, one.vector));
    if (ids.insert(resources.back().id).second) to_put.push_back(resources.back());
  }
  VS_ASSIGN_OR_RETURN(const auto stored,
                      store_->PutResources(context.tenant, std::move(to_put), *key));
  for (store::Resource& resource : resources) {
    for (const store::Resource& one : stored) {
      if (one.id == resource.id) resource = one;
    }
  }
  Answer(file, resources, response);
  return absl::OkStatus();
}

absl::Status VectorService::ExportVectors(const rpc::CallContext& context,
                                          const v1::ExportVectorsRequest& request,
                                          rpc::StreamWriter<v1::ExportVectorsResponse>& writer) {
  VS_RETURN_IF_ERROR(CheckFormat("format", request.format()));
  const bool gguf = request.format() == v1::VECTOR_FORMAT_GGUF;
  const auto most = static_cast<int>(gguf ? 1 : studies::kMostVectorsInFile);
  if (request.vectors_size() < 1 || request.vectors_size() > most) {
    return OutOfRange("vectors", request.vectors_size(), 1, most);
  }
  std::vector<studies::StoredVector> vectors;
  std::set<std::string> names;
  for (int i = 0; i < request.vectors_size(); ++i) {
    const std::string field = absl::StrCat("vectors[", i, "]");
    VS_ASSIGN_OR_RETURN(studies::StoredVector vector,
                        VectorToExport(context, field, request.vectors(i), request.layers()));
    if (vector.record.model_digest() !=
        (vectors.empty() ? vector : vectors[0]).record.model_digest()) {
      return InvalidField(field, "is of another model than vectors[0]", "WRONG_MODEL");
    }
    if (!names.insert(studies::NameInFile(vector)).second) {
      return InvalidField(field, "is in the file already");
    }
    vectors.push_back(std::move(vector));
  }
  std::string file;
  if (gguf) {
    VS_ASSIGN_OR_RETURN(file, studies::WriteControlVector(vectors.front()));
  } else {
    file = studies::WriteSafetensors(vectors);
  }
  vectors.clear();
  const auto size = static_cast<int64_t>(file.size());
  // A chunk, and the bytes that it is sent as.
  VS_RETURN_IF_ERROR(context.Hold(2 * std::min(kMostVectorFileMessage, size)));
  for (int64_t offset = 0; offset < size; offset += kVectorFileChunk) {
    if (context.cancellation.cancelled()) return context.Why();
    v1::ExportVectorsResponse part;
    part.set_offset(offset);
    part.set_data(file.substr(static_cast<size_t>(offset), kVectorFileChunk));
    part.set_crc32c(Crc32c(part.data()));
    part.set_total_bytes(size);
    VS_RETURN_IF_ERROR(writer.Write(std::move(part)));
  }
  return absl::OkStatus();
}

absl::StatusOr<studies::StoredVector> VectorService::VectorToExport(
    const rpc::CallContext& context, const std::string& field, const std::string& name,
    const v1::Layers& layers) const {
  // Rows as they are, as they are chosen, and in the file; a record and its JSON, which is longer.
  constexpr VectorCopies kCopies = {.rows = 4, .record = 12};
  UsedResources used;
  VS_ASSIGN_OR_RETURN(studies::StoredVector vector,
                      HeldVectorOfName(context, field, name, kCopies, *store_, *blobs_, used));
  if (layers.layers_case() == v1::Layers::LAYERS_NOT_SET || layers.all()) return vector;
  if (vector.record.layers().empty()) {
    return InvalidField("layers", absl::StrCat("`", name, "` is of a site without layers"));
  }
  VS_ASSIGN_OR_RETURN(const std::vector<int> chosen, LayersOfVectors(&layers, {&vector}));
  return studies::WithLayers(vector, chosen);
}

}  // namespace valuescope::services
