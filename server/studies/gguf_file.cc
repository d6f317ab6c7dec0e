#include "studies/gguf_file.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/error.h"
#include "base/host_tensor.h"
#include "base/status_macros.h"

namespace valuescope::studies {
namespace {

constexpr char kMagic[] = "GGUF";
constexpr uint32_t kVersion = 3;
constexpr uint64_t kMostPairs = 4096, kMostTensors = 4096;
constexpr uint32_t kMostDimensions = 4;
constexpr int kMostNesting = 4;  // arrays of arrays
constexpr size_t kMostName = 256;
constexpr uint64_t kDefaultAlignment = 32, kMostAlignment = 1 << 16;
constexpr char kAlignmentKey[] = "general.alignment";

std::string Quoted(absl::string_view text) {
  constexpr size_t kMostQuoted = 80;
  const absl::string_view head = text.substr(0, kMostQuoted);
  return absl::StrCat("\"", absl::CHexEscape(head), head.size() < text.size() ? "...\"" : "\"");
}

absl::Status Refused(uint64_t offset, absl::string_view why) {
  return ErrorWithReason(absl::StatusCode::kInvalidArgument, "MALFORMED_FILE",
                         absl::StrCat("byte ", offset, ": ", why));
}

// Tensors' types by their numbers in the format, those that vectors may have.
std::optional<DType> DTypeOf(uint32_t type) {
  switch (type) {
    case 0:
      return DType::kFloat32;
    case 1:
      return DType::kFloat16;
    case 30:
      return DType::kBFloat16;
    default:
      return std::nullopt;
  }
}

// Bytes of a value of a type of fixed size; 0 for strings, arrays and unknown types.
uint64_t SizeOf(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool:
      return 1;
    case GgufType::kUint16:
    case GgufType::kInt16:
      return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32:
      return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      break;
  }
  return 0;
}

// A place in the file that only moves forward, and never beyond its end.
class Cursor {
 public:
  explicit Cursor(absl::string_view bytes) : bytes_(bytes) {}

  uint64_t offset() const { return offset_; }
  uint64_t left() const { return bytes_.size() - offset_; }

  absl::StatusOr<absl::string_view> Take(uint64_t size, absl::string_view what) {
    if (size > left()) {
      return Refused(offset_,
                     absl::StrCat(what, " of ", size, " bytes goes beyond the file's end"));
    }
    const absl::string_view taken = bytes_.substr(offset_, size);
    offset_ += size;
    return taken;
  }

  template <typename Number>
  absl::StatusOr<Number> Read(absl::string_view what) {
    VS_ASSIGN_OR_RETURN(const absl::string_view taken, Take(sizeof(Number), what));
    Number number;
    std::memcpy(&number, taken.data(), sizeof(number));
    return number;
  }

  absl::StatusOr<absl::string_view> ReadString(absl::string_view what) {
    VS_ASSIGN_OR_RETURN(const uint64_t size, Read<uint64_t>(what));
    return Take(size, what);
  }

  absl::StatusOr<std::string> ReadName(absl::string_view what) {
    const uint64_t begin = offset_;
    VS_ASSIGN_OR_RETURN(const absl::string_view name, ReadString(what));
    if (name.empty() || name.size() > kMostName) {
      return Refused(begin, absl::StrCat(what, " must have 1 to ", kMostName, " bytes"));
    }
    return std::string(name);
  }

 private:
  const absl::string_view bytes_;
  uint64_t offset_ = 0;
};

absl::Status SkipValue(Cursor& cursor, GgufType type, int nesting);

absl::Status SkipArray(Cursor& cursor, int nesting) {
  const uint64_t begin = cursor.offset();
  if (nesting >= kMostNesting) return Refused(begin, "arrays are nested too deeply");
  VS_ASSIGN_OR_RETURN(const uint32_t type, cursor.Read<uint32_t>("an array's type"));
  VS_ASSIGN_OR_RETURN(const uint64_t count, cursor.Read<uint64_t>("an array's length"));
  const auto element = static_cast<GgufType>(type);
  if (const uint64_t size = SizeOf(element); size > 0) {
    if (count > cursor.left() / size) {
      return Refused(begin,
                     absl::StrCat("an array of ", count, " elements goes beyond the file's end"));
    }
    return cursor.Take(count * size, "an array").status();
  }
  // Each takes bytes of the file, so there are no more than it has.
  for (uint64_t i = 0; i < count; ++i) {
    VS_RETURN_IF_ERROR(SkipValue(cursor, element, nesting + 1));
  }
  return absl::OkStatus();
}

absl::Status SkipValue(Cursor& cursor, GgufType type, int nesting) {
  if (type == GgufType::kString) return cursor.ReadString("a string").status();
  if (type == GgufType::kArray) return SkipArray(cursor, nesting);
  if (const uint64_t size = SizeOf(type); size > 0) return cursor.Take(size, "a value").status();
  return Refused(cursor.offset(),
                 absl::StrCat("no value has the type ", static_cast<uint32_t>(type)));
}

absl::StatusOr<GgufValue> ReadValue(Cursor& cursor, absl::string_view file) {
  VS_ASSIGN_OR_RETURN(const uint32_t type, cursor.Read<uint32_t>("a value's type"));
  GgufValue value{.type = static_cast<GgufType>(type), .bytes = {}};
  if (value.type == GgufType::kString) {
    VS_ASSIGN_OR_RETURN(value.bytes, cursor.ReadString("a string"));
    return value;
  }
  const uint64_t begin = cursor.offset();
  VS_RETURN_IF_ERROR(SkipValue(cursor, value.type, /*nesting=*/0));
  value.bytes = file.substr(begin, cursor.offset() - begin);
  return value;
}

absl::Status ReadMetadata(Cursor& cursor, absl::string_view file, uint64_t count, GgufFile& into) {
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t begin = cursor.offset();
    VS_ASSIGN_OR_RETURN(std::string key, cursor.ReadName("a key"));
    VS_ASSIGN_OR_RETURN(const GgufValue value, ReadValue(cursor, file));
    const auto [place, is_new] = into.metadata.emplace(std::move(key), value);
    if (!is_new) return Refused(begin, absl::StrCat("the key ", Quoted(place->first), " twice"));
  }
  return absl::OkStatus();
}

// Of the tensors' bytes.
absl::StatusOr<uint64_t> AlignmentOf(const GgufFile& file) {
  const auto found = file.metadata.find(kAlignmentKey);
  if (found == file.metadata.end()) return kDefaultAlignment;
  uint32_t alignment = 0;
  if (found->second.type == GgufType::kUint32) {
    std::memcpy(&alignment, found->second.bytes.data(), sizeof(alignment));
  }
  if (alignment < 8 || alignment > kMostAlignment || (alignment & (alignment - 1)) != 0) {
    return ErrorWithReason(
        absl::StatusCode::kInvalidArgument, "MALFORMED_FILE",
        absl::StrCat(kAlignmentKey, " must be an UINT32 power of two, 8 to ", kMostAlignment));
  }
  return uint64_t{alignment};
}

// A tensor that the table tells of.
struct Entry {
  std::string name;
  uint64_t told_at = 0;  // byte of the table
  GgufTensor tensor;
  uint64_t offset = 0;  // among the tensors' bytes
  uint64_t size = 0;
};

absl::StatusOr<Entry> ReadEntry(Cursor& cursor) {
  Entry entry;
  entry.told_at = cursor.offset();
  VS_ASSIGN_OR_RETURN(entry.name, cursor.ReadName("a tensor's name"));
  const auto refused = [&](absl::string_view why) {
    return Refused(entry.told_at, absl::StrCat("tensor ", Quoted(entry.name), " ", why));
  };
  VS_ASSIGN_OR_RETURN(const uint32_t dimensions, cursor.Read<uint32_t>("a number of dimensions"));
  if (dimensions > kMostDimensions) {
    return refused(absl::StrCat("has ", dimensions, " dimensions, more than 4"));
  }
  for (uint32_t i = 0; i < dimensions; ++i) {
    VS_ASSIGN_OR_RETURN(const uint64_t extent, cursor.Read<uint64_t>("a dimension"));
    if (extent > (uint64_t{1} << 40)) return refused("has a dimension that is too large");
    entry.tensor.shape.push_back(static_cast<int64_t>(extent));
  }
  VS_ASSIGN_OR_RETURN(const uint32_t type, cursor.Read<uint32_t>("a tensor's type"));
  const std::optional<DType> dtype = DTypeOf(type);
  if (!dtype) return refused(absl::StrCat("has the type ", type, "; F32, F16 and BF16 are read"));
  entry.tensor.dtype = *dtype;
  const absl::StatusOr<int64_t> size = CheckedByteSize(*dtype, entry.tensor.shape);
  if (!size.ok()) return refused("has a shape that is too large");
  entry.size = static_cast<uint64_t>(*size);
  VS_ASSIGN_OR_RETURN(entry.offset, cursor.Read<uint64_t>("a tensor's offset"));
  return entry;
}

uint64_t Aligned(uint64_t offset, uint64_t alignment) {
  return (offset + alignment - 1) / alignment * alignment;
}

// Gives the entries their bytes, which begin behind the table.
absl::Status PlaceTensors(std::vector<Entry> entries, absl::string_view data, uint64_t alignment,
                          GgufFile& into) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.offset, a.size) < std::pair(b.offset, b.size);
  });
  uint64_t covered = 0;
  for (Entry& entry : entries) {
    const auto refused = [&](absl::string_view why) {
      return Refused(entry.told_at, absl::StrCat("tensor ", Quoted(entry.name), " ", why));
    };
    if (entry.offset % alignment != 0) return refused("has an offset that is not aligned");
    if (entry.offset > data.size() || entry.size > data.size() - entry.offset) {
      return refused("goes beyond the file's end");
    }
    if (entry.offset < covered) return refused("overlaps another");
    covered = entry.offset + entry.size;
    entry.tensor.bytes = data.substr(entry.offset, entry.size);
    const auto [place, is_new] =
        into.tensors.emplace(std::move(entry.name), std::move(entry.tensor));
    if (!is_new) {
      return Refused(entry.told_at, absl::StrCat("a tensor ", Quoted(place->first), " twice"));
    }
  }
  return absl::OkStatus();
}

template <typename Number>
void Append(std::string& file, Number number) {
  static_assert(std::is_unsigned_v<Number>);
  file.append(reinterpret_cast<const char*>(&number), sizeof(number));
}

void AppendString(std::string& file, absl::string_view text) {
  Append(file, uint64_t{text.size()});
  file.append(text.data(), text.size());
}

void AppendPair(std::string& file, const GgufPair& pair) {
  AppendString(file, pair.key);
  if (const auto* text = std::get_if<std::string>(&pair.value)) {
    Append(file, static_cast<uint32_t>(GgufType::kString));
    AppendString(file, *text);
  } else {
    Append(file, static_cast<uint32_t>(GgufType::kUint32));
    Append(file, std::get<uint32_t>(pair.value));
  }
}

}  // namespace

absl::StatusOr<GgufFile> ParseGguf(absl::string_view bytes) {
  Cursor cursor(bytes);
  VS_ASSIGN_OR_RETURN(const absl::string_view magic, cursor.Take(4, "the file's magic"));
  if (magic != kMagic) return Refused(0, "is no GGUF file");
  VS_ASSIGN_OR_RETURN(const uint32_t version, cursor.Read<uint32_t>("the version"));
  if (version != 2 && version != 3) {
    return Refused(4, absl::StrCat("has version ", version, " of the format; 2 and 3 are read, ",
                                   "little-endian"));
  }
  VS_ASSIGN_OR_RETURN(const uint64_t tensors, cursor.Read<uint64_t>("the number of tensors"));
  VS_ASSIGN_OR_RETURN(const uint64_t pairs, cursor.Read<uint64_t>("the number of pairs"));
  if (tensors > kMostTensors || pairs > kMostPairs) {
    return Refused(8, absl::StrCat("announces ", tensors, " tensors and ", pairs,
                                   " pairs of metadata, a file of vectors has at most 4096 each"));
  }
  GgufFile file;
  VS_RETURN_IF_ERROR(ReadMetadata(cursor, bytes, pairs, file));
  VS_ASSIGN_OR_RETURN(const uint64_t alignment, AlignmentOf(file));
  std::vector<Entry> entries;
  for (uint64_t i = 0; i < tensors; ++i) {
    VS_ASSIGN_OR_RETURN(entries.emplace_back(), ReadEntry(cursor));
  }
  const uint64_t begin = std::min<uint64_t>(Aligned(cursor.offset(), alignment), bytes.size());
  VS_RETURN_IF_ERROR(PlaceTensors(std::move(entries), bytes.substr(begin), alignment, file));
  return file;
}

std::string WriteGguf(std::span<const GgufPair> metadata, std::span<const NamedTensor> tensors) {
  std::string file = kMagic;
  Append(file, kVersion);
  Append(file, uint64_t{tensors.size()});
  Append(file, uint64_t{metadata.size()});
  for (const GgufPair& pair : metadata) AppendPair(file, pair);
  uint64_t offset = 0;
  for (const NamedTensor& named : tensors) {
    VS_CHECK(named.tensor.dtype == DType::kFloat32);
    AppendString(file, named.name);
    Append(file, static_cast<uint32_t>(named.tensor.shape.size()));
    for (auto extent = named.tensor.shape.rbegin(); extent != named.tensor.shape.rend(); ++extent) {
      Append(file, static_cast<uint64_t>(*extent));
    }
    Append(file, uint32_t{0});  // F32
    Append(file, offset);
    offset = Aligned(offset + named.tensor.bytes.size(), kDefaultAlignment);
  }
  for (const NamedTensor& named : tensors) {
    file.resize(Aligned(file.size(), kDefaultAlignment), '\0');
    file += named.tensor.bytes;
  }
  // llama.cpp wants the last one's padding too.
  file.resize(Aligned(file.size(), kDefaultAlignment), '\0');
  return file;
}

}  // namespace valuescope::studies
