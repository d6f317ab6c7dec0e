#include "model/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/host_tensor.h"
#include "base/status_macros.h"
#include "model/strict_json.h"
#include "observability/log.h"

namespace valuescope::model {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kLengthBytes = 8;  // of the header, before it
constexpr size_t kMaxNameBytes = 1024;
constexpr size_t kMaxRank = 8;
constexpr char kIndex[] = "model.safetensors.index.json";
constexpr char kSingle[] = "model.safetensors";
constexpr char kAdapter[] = "adapter_config.json";

absl::Status Refused(absl::string_view file, absl::string_view why) {
  return ErrorWithReason(absl::StatusCode::kInvalidArgument, "MALFORMED_MODEL_FILE",
                         absl::StrCat(file, ": ", why));
}

std::optional<DType> ParseDType(const json& name) {
  if (name == "F32") return DType::kFloat32;
  if (name == "F16") return DType::kFloat16;
  if (name == "BF16") return DType::kBFloat16;
  if (name == "F64") return DType::kFloat64;
  if (name == "I32") return DType::kInt32;
  if (name == "I64") return DType::kInt64;
  return std::nullopt;
}

bool IsUnsigned(const json& value) { return value.is_number_unsigned(); }

// What a refusal repeats of a file, cut short.
std::string Quoted(const json& value) {
  constexpr size_t kMaxQuoted = 80;
  const std::string text = value.dump(/*indent=*/-1, /*indent_char=*/' ', /*ensure_ascii=*/true);
  return text.size() <= kMaxQuoted ? text : absl::StrCat(text.substr(0, kMaxQuoted), "...");
}

struct Range {
  uint64_t begin = 0;
  uint64_t end = 0;
};

// `begin`, `end`: of the file's data.
absl::StatusOr<TensorPlace> ParseEntry(absl::string_view file, const std::string& name,
                                       const json& entry, uint64_t begin, uint64_t end) {
  const auto refused = [&](absl::string_view why) {
    return Refused(file, absl::StrCat("tensor \"", name, "\" ", why));
  };
  if (name.size() > kMaxNameBytes) return Refused(file, "has a tensor name over 1024 bytes");
  if (!entry.is_object()) return refused("is not an object");
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!entry.contains(key)) return refused(absl::StrCat("lacks ", key));
  }
  const std::optional<DType> dtype = ParseDType(entry["dtype"]);
  if (!dtype) {
    return refused(absl::StrCat("has a type that is not served: ", Quoted(entry["dtype"])));
  }
  const json& shape = entry["shape"];
  if (!shape.is_array() || shape.size() > kMaxRank ||
      !std::all_of(shape.begin(), shape.end(), IsUnsigned)) {
    return refused(absl::StrCat("has a malformed shape: ", Quoted(shape)));
  }
  const json& offsets = entry["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !IsUnsigned(offsets[0]) ||
      !IsUnsigned(offsets[1])) {
    return refused(absl::StrCat("has malformed data_offsets: ", Quoted(offsets)));
  }
  TensorPlace tensor{.dtype = *dtype, .shape = {}};
  for (const json& dimension : shape) {
    if (dimension.get<uint64_t>() > (uint64_t{1} << 40))
      return refused("has a dimension that is too large");
    tensor.shape.push_back(dimension.get<int64_t>());
  }
  const absl::StatusOr<int64_t> size = CheckedByteSize(*dtype, tensor.shape);
  if (!size.ok()) return refused("has a shape that is too large");
  const Range range{offsets[0].get<uint64_t>(), offsets[1].get<uint64_t>()};
  if (range.begin > range.end) return refused("has data_offsets that end before they begin");
  if (range.end > end - begin) return refused("lies beyond the end of the file");
  if (range.end - range.begin != static_cast<uint64_t>(*size)) {
    return refused("has a byte range that does not match its shape");
  }
  tensor.offset = static_cast<int64_t>(begin + range.begin);
  tensor.size = *size;
  return tensor;
}

// `strings`, unless null, gets them.
absl::Status CheckMetadata(absl::string_view file, const json& metadata,
                           std::map<std::string, std::string>* strings) {
  const auto is_string = [](const json& value) { return value.is_string(); };
  if (!metadata.is_object() || !std::all_of(metadata.begin(), metadata.end(), is_string)) {
    return Refused(file, "__metadata__ is not an object of strings");
  }
  if (strings != nullptr) *strings = metadata.get<std::map<std::string, std::string>>();
  return absl::OkStatus();
}

// The resolved path of `folder`/`name`, if it is beneath the resolved folder.
absl::StatusOr<std::string> Beneath(const std::string& folder, const std::string& name) {
  const auto resolve = [](const std::string& path) -> std::string {
    char* real = realpath(path.c_str(), nullptr);
    std::string result = real ? real : "";
    std::free(real);
    return result;
  };
  const std::string root = resolve(folder);
  const std::string path = resolve(absl::StrCat(folder, "/", name));
  if (root.empty() || path.empty()) {
    return ErrorWithReason(absl::StatusCode::kNotFound, "MODEL_FILE_MISSING",
                           absl::StrCat(name, " is missing from the model's folder"));
  }
  if (!absl::StartsWith(path, root + "/"))
    return Refused(name, "is a link that leads out of the model's folder");
  return path;
}

// Names what the folder has instead, the first of these files by name.
absl::Status NoWeights(const std::string& folder) {
  std::string other;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    for (const char* ending : {".safetensors", ".index.json", ".bin", ".pth", ".pt", ".gguf"}) {
      if (absl::EndsWith(name, ending) && (other.empty() || name < other)) other = name;
    }
  }
  const std::string missing = absl::StrCat(kSingle, " is missing from the model's folder");
  return ErrorWithReason(
      absl::StatusCode::kNotFound, "MODEL_FILE_MISSING",
      other.empty()
          ? missing
          : absl::StrCat(missing, ", and so is ", kIndex, "; what it has, such as ", Quoted(other),
                         ", is not read: save the model with "
                         "save_pretrained, or rename a file that holds all weights"));
}

}  // namespace

absl::Status ModelFilesChanged() {
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "MODEL_FILES_CHANGED",
                         "the model's files were written to since its load began; load it again "
                         "once they are complete");
}

absl::StatusOr<std::unique_ptr<ModelFile>> ModelFile::Open(const std::string& folder,
                                                           const std::string& name) {
  VS_ASSIGN_OR_RETURN(const std::string path, Beneath(folder, name));
  // A FIFO in the folder must not block the server.
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (file < 0) return Refused(name, "cannot be read");
  struct stat facts {};
  if (fstat(file, &facts) != 0 || !S_ISREG(facts.st_mode)) {
    close(file);
    return Refused(name, "is not a regular file");
  }
  return std::unique_ptr<ModelFile>(new ModelFile(name, file, facts));
}

ModelFile::ModelFile(std::string name, int file, const struct stat& facts)
    : name_(std::move(name)),
      file_(file),
      size_(facts.st_size),
      seconds_(facts.st_mtim.tv_sec),
      nanoseconds_(facts.st_mtim.tv_nsec) {}

ModelFile::~ModelFile() { close(file_); }

absl::Status ModelFile::Read(int64_t offset, int64_t size, char* bytes) const {
  while (size > 0) {
    const ssize_t count = pread(file_, bytes, static_cast<size_t>(size), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Refused(name_, "cannot be read");
    if (count == 0) return ModelFilesChanged();
    bytes += count;
    offset += count;
    size -= count;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ModelFile::ReadAll(int64_t most) const {
  if (size_ > most) return Refused(name_, absl::StrCat("is over ", most, " bytes"));
  std::string bytes(static_cast<size_t>(size_), '\0');
  VS_RETURN_IF_ERROR(Read(0, size_, bytes.data()));
  return bytes;
}

bool ModelFile::IsUnchanged() const {
  struct stat facts {};
  return fstat(file_, &facts) == 0 && facts.st_size == size_ && facts.st_mtim.tv_sec == seconds_ &&
         facts.st_mtim.tv_nsec == nanoseconds_;
}

absl::StatusOr<int64_t> SafetensorsHeaderBytes(absl::string_view file_name, absl::string_view begin,
                                               int64_t file_size) {
  uint64_t header_bytes = 0;
  if (begin.size() < kLengthBytes) return Refused(file_name, "is too short for a header");
  std::memcpy(&header_bytes, begin.data(), sizeof(header_bytes));
  if (header_bytes > kMaxHeaderBytes) {
    return Refused(file_name, absl::StrCat("has a header over 100 MB: ", header_bytes, " bytes"));
  }
  if (header_bytes > static_cast<uint64_t>(file_size) - kLengthBytes) {
    return Refused(file_name, absl::StrCat("has a header of ", header_bytes,
                                           " bytes beyond the end of the file"));
  }
  return static_cast<int64_t>(header_bytes);
}

namespace {

absl::StatusOr<std::map<std::string, TensorPlace>> ParseHeader(
    absl::string_view file_name, absl::string_view text, int64_t file_size,
    std::map<std::string, std::string>* metadata = nullptr) {
  VS_ASSIGN_OR_RETURN(const json header, ParseStrictJson(file_name, text));
  if (!header.is_object()) return Refused(file_name, "has a header that is not an object");
  const uint64_t begin = kLengthBytes + text.size(), end = static_cast<uint64_t>(file_size);
  std::map<std::string, TensorPlace> tensors;
  std::vector<std::pair<Range, std::string>> ranges;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      VS_RETURN_IF_ERROR(CheckMetadata(file_name, entry, metadata));
      continue;
    }
    TensorPlace& tensor = tensors[name];
    VS_ASSIGN_OR_RETURN(tensor, ParseEntry(file_name, name, entry, begin, end));
    const auto first = static_cast<uint64_t>(tensor.offset);
    ranges.emplace_back(Range{first, first + static_cast<uint64_t>(tensor.size)}, name);
  }
  std::sort(ranges.begin(), ranges.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.begin, a.first.end) < std::pair(b.first.begin, b.first.end);
  });
  uint64_t covered = begin;
  for (const auto& [range, name] : ranges) {
    if (range.begin < covered)
      return Refused(file_name, absl::StrCat("tensor \"", name, "\" overlaps another"));
    if (range.begin > covered)
      return Refused(file_name, absl::StrCat("has a hole before tensor \"", name, "\""));
    covered = range.end;
  }
  if (covered != end) return Refused(file_name, "has bytes behind the last tensor");
  return tensors;
}

}  // namespace

absl::StatusOr<std::map<std::string, StoredTensor>> ParseSafetensors(
    absl::string_view file_name, absl::string_view bytes,
    std::map<std::string, std::string>* metadata) {
  const auto size = static_cast<int64_t>(bytes.size());
  VS_ASSIGN_OR_RETURN(const int64_t header_bytes, SafetensorsHeaderBytes(file_name, bytes, size));
  const auto header = bytes.substr(kLengthBytes, static_cast<size_t>(header_bytes));
  VS_ASSIGN_OR_RETURN(auto places, ParseHeader(file_name, header, size, metadata));
  std::map<std::string, StoredTensor> tensors;
  for (auto& [name, place] : places) {
    tensors[name] = {
        .dtype = place.dtype,
        .shape = std::move(place.shape),
        .bytes = bytes.substr(static_cast<size_t>(place.offset), static_cast<size_t>(place.size))};
  }
  return tensors;
}

absl::StatusOr<std::map<std::string, TensorPlace>> ReadTensorPlaces(const ModelFile& file) {
  std::string begin(static_cast<size_t>(std::min<int64_t>(file.size(), kLengthBytes)), '\0');
  VS_RETURN_IF_ERROR(file.Read(0, static_cast<int64_t>(begin.size()), begin.data()));
  VS_ASSIGN_OR_RETURN(const int64_t header_bytes,
                      SafetensorsHeaderBytes(file.name(), begin, file.size()));
  std::string header(static_cast<size_t>(header_bytes), '\0');
  VS_RETURN_IF_ERROR(file.Read(kLengthBytes, header_bytes, header.data()));
  return ParseHeader(file.name(), header, file.size());
}

absl::StatusOr<std::map<std::string, std::set<std::string>>> WeightFiles(
    const std::string& folder) {
  using Files = std::map<std::string, std::set<std::string>>;
  if (!absl::IsNotFound(Beneath(folder, kAdapter).status())) {
    return Refused(kAdapter,
                   "is there: what it would change of the weights is not read; merge the "
                   "adapter into them and remove the file");
  }
  // What is there but cannot be read is refused where it is opened.
  if (!absl::IsNotFound(Beneath(folder, kSingle).status())) {
    if (Beneath(folder, kIndex).ok()) {
      observability::Log(observability::LogLevel::kWarning, "model file ignored",
                         {{"model", std::filesystem::path(folder).filename().string()},
                          {"file", kIndex},
                          {"because", "model.safetensors is there"}});
    }
    return Files{{kSingle, {}}};
  }
  auto index_file = ModelFile::Open(folder, kIndex);
  if (absl::IsNotFound(index_file.status())) return NoWeights(folder);
  if (!index_file.ok()) return index_file.status();
  VS_ASSIGN_OR_RETURN(const std::string text, (*index_file)->ReadAll(kMaxHeaderBytes));
  VS_ASSIGN_OR_RETURN(const json index, ParseStrictJson(kIndex, text));
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    return Refused(kIndex, "has no weight_map");
  }
  Files files;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    if (!file.is_string()) {
      return Refused(
          kIndex, absl::StrCat("tensor ", Quoted(tensor), " has a file name that is not a string"));
    }
    const std::string name = file.get<std::string>();
    if (name.empty() || name.size() > 255 || absl::StrContains(name, "/") || name.front() == '.' ||
        name.find('\0') != std::string::npos || !absl::EndsWith(name, ".safetensors")) {
      return Refused(kIndex, absl::StrCat("names a file that is not a plain .safetensors name: ",
                                          Quoted(file)));
    }
    files[name].insert(tensor);
  }
  if (files.empty()) return Refused(kIndex, "names no files");
  return files;
}

}  // namespace valuescope::model
