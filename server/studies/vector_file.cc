// Long because two formats say the same of a vector: what is checked of one is checked of the other
// by the same lines.
#include "studies/vector_file.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/host_tensor.h"
#include "base/status_macros.h"
#include "model/safetensors.h"
#include "studies/contract_enums.h"
#include "studies/gguf_file.h"
#include "studies/message_json.h"
#include "studies/provenance.h"
#include "studies/resource_naming.h"
#include "studies/tensor_file.h"

namespace valuescope::studies {
namespace {

constexpr char kFormatKey[] = "valuescope.format", kFormat[] = "vectors 1";
// Says whose a safetensors file is where its format is lost.
constexpr char kWriterKey[] = "valuescope.written_by", kWriter[] = "valuescope";
constexpr char kVectorKey[] = "valuescope.vector";
constexpr char kOurs[] = "valuescope.";  // begins the keys that are ours
constexpr char kConventionKey[] = "valuescope.convention";
constexpr char kConvention[] = "direction.N acts behind block N, 0-based";
constexpr char kArchitectureKey[] = "general.architecture", kArchitecture[] = "controlvector";
constexpr char kModelHintKey[] = "controlvector.model_hint";
constexpr char kLayerCountKey[] = "controlvector.layer_count";
constexpr char kDirection[] = "direction.";
// Input of a vector that came in a file of others.
constexpr char kFileInput[] = "file";
// A record has at most 256 KiB as a message, and JSON is wordier.
constexpr size_t kMostRecordText = size_t{2} << 20;
// Of what JSON is parsed to, for a byte of its text: at worst "{},{}," as statistics of a record.
constexpr int64_t kParsedPerByte = 64;

std::string Quoted(absl::string_view text) {
  constexpr size_t kMostQuoted = 80;
  const absl::string_view head = text.substr(0, kMostQuoted);
  return absl::StrCat("\"", absl::CHexEscape(head), head.size() < text.size() ? "...\"" : "\"");
}

absl::Status Malformed(absl::string_view what) {
  return InvalidField("data", what, "MALFORMED_FILE");
}

// Refuses a file of ours that lost `key`, so that it is not taken for one of others.
template <typename Metadata>
absl::Status CheckNothingIsLost(const Metadata& metadata, absl::string_view key) {
  const auto is_ours = [](const auto& pair) { return absl::StartsWith(pair.first, kOurs); };
  if (metadata.contains(std::string(key)) || absl::c_none_of(metadata, is_ours)) {
    return absl::OkStatus();
  }
  return Malformed(absl::StrCat("valuescope wrote it, but its metadata lacks ", key));
}

// A refusal of a parser that knows no field.
absl::Status OfData(const absl::Status& status) {
  return absl::IsInvalidArgument(status) ? Malformed(status.message()) : status;
}

// --- Records ---

// Rows are the tensor's, and the rest belongs to the server that stores the vector.
void KeepWhatFilesTell(v1::Vector& record) {
  record.clear_name();
  record.clear_data();
  record.clear_create_time();
  record.clear_owner();
}

std::string RecordText(const StoredVector& vector) {
  v1::Vector record = vector.record;
  KeepWhatFilesTell(record);
  record.set_digest(VectorDigest(vector));
  return MessageToJson(record).dump(/*indent=*/-1, /*indent_char=*/' ', /*ensure_ascii=*/false,
                                    nlohmann::ordered_json::error_handler_t::replace);
}

absl::StatusOr<v1::Vector> ParseRecord(absl::string_view tensor, absl::string_view text) {
  v1::Vector record;
  // The parser's own message may quote the text.
  if (text.size() > kMostRecordText ||
      !google::protobuf::util::JsonStringToMessage(std::string(text), &record).ok()) {
    return Malformed(absl::StrCat("what it tells of ", Quoted(tensor),
                                  " is not the JSON of a Vector that this server knows"));
  }
  KeepWhatFilesTell(record);
  return record;
}

// Whether statistics are one a row, of its layer.
bool HasStatisticsOfItsRows(const v1::Vector& record) {
  const auto& statistics = record.statistics();
  if (statistics.empty()) return true;
  if (record.layers().empty()) return statistics.size() == 1 && statistics[0].layer() == 0;
  return std::equal(statistics.begin(), statistics.end(), record.layers().begin(),
                    record.layers().end(),
                    [](const auto& row, int32_t layer) { return row.layer() == layer; });
}

absl::Status CheckRows(absl::string_view tensor, const engine::ServedModel& model,
                       const StoredVector& vector) {
  const absl::Status status = CheckVector(vector, model.architecture);
  if (status.ok()) return status;
  return InvalidField("data", absl::StrCat("tensor ", Quoted(tensor), ": ", status.message()),
                      DetailsOf(status).reason);
}

// Takes a vector as a file of ours tells it, its rows set: nothing of it may be other than what was
// written.
absl::Status CheckTold(absl::string_view tensor, const engine::ServedModel& model,
                       StoredVector& vector) {
  v1::Vector& record = vector.record;
  const auto field = absl::StrCat("`data`: tensor ", Quoted(tensor));
  if (record.model_digest() != model.weights_digest) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "WRONG_MODEL",
                           absl::StrCat(field, " was made on ", Quoted(record.model()),
                                        " with other weights than those of models/", model.id));
  }
  if (!SiteOf(record.site()) || !HasStatisticsOfItsRows(record)) {
    return Malformed(absl::StrCat("tensor ", Quoted(tensor),
                                  " has no site, or statistics of other layers than its rows"));
  }
  VS_RETURN_IF_ERROR(CheckRows(tensor, model, vector));
  if (VectorDigest(vector) != record.digest()) {
    return InvalidField("data",
                        absl::StrCat("tensor ", Quoted(tensor),
                                     ": its rows and what is told of them do not give the digest "
                                     "that is told"),
                        "DIGEST_MISMATCH");
  }
  record.clear_digest();
  record.set_model(absl::StrCat("models/", model.id));
  return absl::OkStatus();
}

// A vector of a file of others.
StoredVector Untold(const v1::ImportVectorsHeader& header, const engine::ServedModel& model,
                    model::Site site, std::span<const int32_t> layers) {
  StoredVector vector;
  vector.record = VectorWithin(model, site, layers);
  v1::Provenance& provenance = *vector.record.mutable_provenance();
  provenance = ProvenanceWithin(model);
  provenance.set_site(SiteToProto(site));
  provenance.set_sign_rule("the file's");
  v1::ResourceDigest& file = *provenance.add_inputs();
  file.set_name(kFileInput);
  file.set_digest(header.sha256());
  provenance.set_options(RecordOfRequest(
      header, {"model", "site", "size_bytes", "sha256", "display_name", "request_id"}));
  return vector;
}

absl::StatusOr<std::vector<float>> Floats(absl::string_view tensor, DType dtype,
                                          const std::vector<int64_t>& shape,
                                          absl::string_view bytes) {
  auto floats = ToFloat32(HostTensor{.dtype = dtype, .shape = shape, .bytes = std::string(bytes)});
  if (floats.ok()) return floats;
  return Malformed(absl::StrCat("tensor ", Quoted(tensor), " has the type ", NameOf(dtype),
                                ", vectors are of a float type"));
}

// --- safetensors ---

absl::StatusOr<StoredVector> ReadTold(absl::string_view name, const model::StoredTensor& tensor,
                                      const std::map<std::string, std::string>& metadata,
                                      const engine::ServedModel& model) {
  const auto told = metadata.find(std::string(name));
  if (told == metadata.end()) {
    return Malformed(absl::StrCat("nothing is told of tensor ", Quoted(name)));
  }
  StoredVector vector;
  VS_ASSIGN_OR_RETURN(vector.record, ParseRecord(name, told->second));
  if (tensor.dtype != DType::kFloat32 ||
      tensor.shape != std::vector<int64_t>{vector.num_rows(), vector.width()}) {
    return Malformed(absl::StrCat("tensor ", Quoted(name), " is not FLOAT32 [", vector.num_rows(),
                                  ", ", vector.width(), "], as it tells itself"));
  }
  VS_ASSIGN_OR_RETURN(vector.rows, Floats(name, tensor.dtype, tensor.shape, tensor.bytes));
  VS_RETURN_IF_ERROR(CheckTold(name, model, vector));
  return vector;
}

absl::StatusOr<StoredVector> ReadUntold(const v1::ImportVectorsHeader& header, model::Site site,
                                        absl::string_view name, const model::StoredTensor& tensor,
                                        const engine::ServedModel& model) {
  const int64_t width = model::WidthOf(site, model.architecture);
  const int num_layers = model::IsPerLayer(site) ? model.architecture.num_layers : 0;
  const int64_t rows = std::max(1, num_layers);
  if (tensor.shape != std::vector<int64_t>{rows, width}) {
    return InvalidField(
        "data",
        absl::StrCat("tensor ", Quoted(name), " has the shape [", absl::StrJoin(tensor.shape, ", "),
                     "]; in files of others a tensor has one row for every block, [", rows, ", ",
                     width, "] at ", NameOf(site), " of this model. CreateVector stores others"),
        "WRONG_SHAPE");
  }
  std::vector<int32_t> layers;
  for (int layer = 0; layer < num_layers; ++layer) layers.push_back(layer);
  StoredVector vector = Untold(header, model, site, layers);
  VS_ASSIGN_OR_RETURN(vector.rows, Floats(name, tensor.dtype, tensor.shape, tensor.bytes));
  VS_RETURN_IF_ERROR(CheckRows(name, model, vector));
  return vector;
}

absl::StatusOr<VectorFile> ReadSafetensors(const v1::ImportVectorsHeader& header, model::Site site,
                                           const engine::ServedModel& model,
                                           absl::string_view file) {
  std::map<std::string, std::string> metadata;
  const auto tensors = model::ParseSafetensors("the file", file, &metadata);
  if (!tensors.ok()) return OfData(tensors.status());
  if (tensors->empty() || tensors->size() > kMostVectorsInFile) {
    return Malformed(absl::StrCat("has ", tensors->size(), " tensors, a file of vectors has 1 to ",
                                  kMostVectorsInFile));
  }
  VS_RETURN_IF_ERROR(CheckNothingIsLost(metadata, kFormatKey));
  const auto format = metadata.find(kFormatKey);
  if (format != metadata.end() && format->second != kFormat) {
    return Malformed(absl::StrCat("is of the format ", Quoted(format->second), ", ",
                                  Quoted(kFormat), " is read"));
  }
  VectorFile result;
  for (const auto& [name, tensor] : *tensors) {
    VectorInFile& one = result.vectors.emplace_back();
    if (format != metadata.end()) {
      VS_ASSIGN_OR_RETURN(one.vector, ReadTold(name, tensor, metadata, model));
    } else {
      VS_ASSIGN_OR_RETURN(one.vector, ReadUntold(header, site, name, tensor, model));
    }
    one.tensors.assign(static_cast<size_t>(one.vector.num_rows()), name);
  }
  return result;
}

// --- GGUF ---

// N of "direction.N" as it is written, and nothing else.
std::optional<int> NumberOf(absl::string_view name) {
  int number = 0;
  if (!absl::StartsWith(name, kDirection) ||
      !absl::SimpleAtoi(name.substr(sizeof(kDirection) - 1), &number) ||
      name != absl::StrCat(kDirection, number) || number < 0) {
    return std::nullopt;
  }
  return number;
}

absl::StatusOr<v1::GgufConvention> ConventionOf(const v1::ImportVectorsHeader& header,
                                                const GgufFile& file) {
  if (!v1::GgufConvention_IsValid(header.convention())) {
    return InvalidField("header.convention", "must be a GGUF_CONVENTION_... of the contract");
  }
  const bool ours = file.metadata.contains(kVectorKey);
  if (ours && header.convention() == v1::GGUF_CONVENTION_CVECTOR_GENERATOR) {
    return InvalidField("header.convention",
                        "valuescope wrote this file, and counted blocks as LLAMA_CPP does");
  }
  if (header.convention() != v1::GGUF_CONVENTION_UNSPECIFIED) return header.convention();
  if (ours) return v1::GGUF_CONVENTION_LLAMA_CPP;
  const auto count = file.metadata.find(kLayerCountKey);
  const bool written_by_gguf_py =
      count != file.metadata.end() && count->second.type == GgufType::kUint32;
  if (file.tensors.contains(absl::StrCat(kDirection, 0)) || written_by_gguf_py) {
    return v1::GGUF_CONVENTION_REPENG;
  }
  return InvalidField("header.convention",
                      "is needed: the file may be one of llama.cpp's cvector-generator, whose "
                      "direction.N is the output of block N - 1, or count blocks as llama.cpp's "
                      "loader does",
                      "CONVENTION_NEEDED");
}

// The block of direction.`number`. INVALID_ARGUMENT where there is none.
absl::StatusOr<int> BlockOf(absl::string_view tensor, int number, v1::GgufConvention convention,
                            int num_layers) {
  const int block = convention == v1::GGUF_CONVENTION_CVECTOR_GENERATOR ? number - 1 : number;
  const int first = convention == v1::GGUF_CONVENTION_LLAMA_CPP ? 1 : 0;
  if (block >= first && block < num_layers) return block;
  return InvalidField("data",
                      absl::StrCat("tensor ", Quoted(tensor), " is of block ", block,
                                   " by the convention ", v1::GgufConvention_Name(convention),
                                   ", allowed are blocks ", first, " to ", num_layers - 1),
                      "OUT_OF_RANGE");
}

absl::StatusOr<std::vector<float>> ReadDirection(absl::string_view name, const GgufTensor& tensor,
                                                 int64_t width) {
  std::vector<int64_t> shape = tensor.shape;
  while (shape.size() > 1 && shape.back() == 1) shape.pop_back();
  if (shape != std::vector<int64_t>{width}) {
    return InvalidField("data",
                        absl::StrCat("tensor ", Quoted(name), " has the dimensions [",
                                     absl::StrJoin(tensor.shape, ", "),
                                     "], rows of this model have ", width, " elements"),
                        "WRONG_WIDTH");
  }
  return Floats(name, tensor.dtype, tensor.shape, tensor.bytes);
}

// The rows of a file, ascending.
struct Directions {
  std::vector<int32_t> blocks;
  std::vector<std::string> tensors;
  std::vector<float> rows;  // [blocks, hidden]
};

absl::StatusOr<Directions> ReadDirections(const GgufFile& file, v1::GgufConvention convention,
                                          const model::Architecture& architecture) {
  std::map<int, absl::string_view> names;  // by block
  for (const auto& [name, tensor] : file.tensors) {
    const std::optional<int> number = NumberOf(name);
    if (!number) {
      return Malformed(absl::StrCat("tensor ", Quoted(name),
                                    " is no direction.N, and a control vector has no others"));
    }
    VS_ASSIGN_OR_RETURN(const int block,
                        BlockOf(name, *number, convention, architecture.num_layers));
    names[block] = name;
  }
  if (names.empty()) return Malformed("has no tensor direction.N");
  Directions directions;
  for (const auto& [block, name] : names) {
    VS_ASSIGN_OR_RETURN(const std::vector<float> row,
                        ReadDirection(name, file.tensors.find(name)->second, architecture.hidden));
    directions.blocks.push_back(block);
    directions.tensors.emplace_back(name);
    directions.rows.insert(directions.rows.end(), row.begin(), row.end());
  }
  return directions;
}

// What `told`, of a file of ours, says of the rows.
absl::StatusOr<StoredVector> TakeTold(const GgufValue& told, Directions directions,
                                      const engine::ServedModel& model) {
  if (told.type != GgufType::kString) {
    return Malformed(absl::StrCat("the metadata ", kVectorKey, " is no string"));
  }
  StoredVector vector;
  VS_ASSIGN_OR_RETURN(vector.record, ParseRecord(kVectorKey, told.bytes));
  if (vector.record.site() != v1::SITE_RESIDUAL_POST ||
      !absl::c_equal(directions.blocks, vector.record.layers())) {
    return Malformed(absl::StrCat("its tensors are not those that ", kVectorKey, " tells"));
  }
  vector.rows = std::move(directions.rows);
  VS_RETURN_IF_ERROR(CheckTold(directions.tensors.front(), model, vector));
  return vector;
}

absl::StatusOr<VectorFile> ReadControlVector(v1::ImportVectorsHeader header,
                                             const engine::ServedModel& model,
                                             absl::string_view bytes) {
  const absl::StatusOr<GgufFile> file = ParseGguf(bytes);
  if (!file.ok()) return OfData(file.status());
  VS_RETURN_IF_ERROR(CheckNothingIsLost(file->metadata, kVectorKey));
  VectorFile result;
  VS_ASSIGN_OR_RETURN(result.convention, ConventionOf(header, *file));
  header.set_convention(result.convention);
  VS_ASSIGN_OR_RETURN(Directions directions,
                      ReadDirections(*file, result.convention, model.architecture));
  VectorInFile& one = result.vectors.emplace_back();
  one.tensors = directions.tensors;
  const auto told = file->metadata.find(kVectorKey);
  if (told != file->metadata.end()) {
    VS_ASSIGN_OR_RETURN(one.vector, TakeTold(told->second, std::move(directions), model));
    return result;
  }
  one.vector = Untold(header, model, model::Site::kResidualPost, directions.blocks);
  one.vector.rows = std::move(directions.rows);
  VS_RETURN_IF_ERROR(CheckRows(one.tensors.front(), model, one.vector));
  return result;
}

}  // namespace

StoredVector WithLayers(const StoredVector& vector, std::span<const int> layers) {
  StoredVector chosen;
  chosen.record = vector.record;
  chosen.record.clear_layers();
  chosen.record.clear_statistics();
  for (const int layer : layers) {
    const int64_t row = *vector.RowOfLayer(layer);
    chosen.record.add_layers(layer);
    const std::span<const float> values = vector.row(row);
    chosen.rows.insert(chosen.rows.end(), values.begin(), values.end());
    if (vector.record.statistics_size() > 0) {
      *chosen.record.add_statistics() = vector.record.statistics(static_cast<int>(row));
    }
  }
  return chosen;
}

std::string NameInFile(const StoredVector& vector) {
  return absl::StrCat("vectors/", IdOfDigest(VectorDigest(vector)));
}

std::string WriteSafetensors(std::span<const StoredVector> vectors) {
  nlohmann::ordered_json metadata = {{kWriterKey, kWriter}, {kFormatKey, kFormat}};
  std::vector<NamedTensor> tensors;
  for (const StoredVector& vector : vectors) {
    NamedTensor& named = tensors.emplace_back();
    named.name = NameInFile(vector);
    named.tensor =
        HostTensor{.dtype = DType::kFloat32,
                   .shape = {vector.num_rows(), vector.width()},
                   .bytes = std::string(reinterpret_cast<const char*>(vector.rows.data()),
                                        vector.rows.size() * sizeof(float))};
    metadata[named.name] = RecordText(vector);
  }
  return WriteTensorFile(tensors, metadata.dump());
}

absl::StatusOr<std::string> WriteControlVector(const StoredVector& vector) {
  if (vector.site() != model::Site::kResidualPost) {
    return InvalidField("vectors[0]",
                        absl::StrCat("is a vector of ", NameOf(vector.site()),
                                     ", llama.cpp's control vectors act at RESIDUAL_POST alone"),
                        "WRONG_SITE");
  }
  if (vector.RowOfLayer(0)) {
    return InvalidField("layers",
                        "must leave layer 0 out: llama.cpp's control vectors cannot act behind "
                        "block 0, and it refuses a file that asks for it",
                        "NO_LAYER_0");
  }
  const std::string model = vector.record.model();
  const GgufPair metadata[] = {
      {kArchitectureKey, kArchitecture},
      {kModelHintKey, model.substr(model.find('/') + 1)},
      {kLayerCountKey, static_cast<uint32_t>(vector.num_rows())},
      {kConventionKey, kConvention},
      {kVectorKey, RecordText(vector)},
  };
  std::vector<NamedTensor> tensors;
  for (int64_t row = 0; row < vector.num_rows(); ++row) {
    const std::span<const float> values = vector.row(row);
    tensors.push_back(
        {.name = absl::StrCat(kDirection, vector.record.layers(static_cast<int>(row))),
         .tensor = {.dtype = DType::kFloat32,
                    .shape = {vector.width()},
                    .bytes = std::string(reinterpret_cast<const char*>(values.data()),
                                         values.size_bytes())}});
  }
  return WriteGguf(metadata, tensors);
}

absl::StatusOr<int64_t> MemoryToRead(v1::VectorFormat format, absl::string_view file) {
  // Rows as they are found, as numbers, by vector, and as they are stored.
  constexpr int64_t kCopies = 4;
  const auto size = static_cast<int64_t>(file.size());
  if (format == v1::VECTOR_FORMAT_GGUF) {
    const int64_t text = std::min<int64_t>(size, kMostRecordText);
    return kCopies * size + kParsedPerByte * text;
  }
  const auto header = model::SafetensorsHeaderBytes("the file", file, size);
  if (!header.ok()) return OfData(header.status());
  return kCopies * size + kParsedPerByte * *header;
}

absl::StatusOr<VectorFile> ReadVectorFile(const v1::ImportVectorsHeader& header, model::Site site,
                                          const engine::ServedModel& model,
                                          absl::string_view file) {
  if (header.format() == v1::VECTOR_FORMAT_GGUF) return ReadControlVector(header, model, file);
  return ReadSafetensors(header, site, model, file);
}

}  // namespace valuescope::studies
