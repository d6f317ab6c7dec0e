#include "studies/tensor_file.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/number_bytes.h"
#include "base/status_macros.h"
#include "model/safetensors.h"
#include "nlohmann/json.hpp"

namespace valuescope::studies {
namespace {

absl::string_view SafetensorsName(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "F32";
    case DType::kFloat16:
      return "F16";
    case DType::kBFloat16:
      return "BF16";
    case DType::kFloat64:
      return "F64";
    case DType::kInt32:
      return "I32";
    case DType::kInt64:
      return "I64";
  }
  return "";
}

template <typename T>
NamedTensor MakeColumn(std::string name, DType dtype, std::span<const T> values) {
  HostTensor tensor;
  tensor.dtype = dtype;
  tensor.shape = {static_cast<int64_t>(values.size())};
  tensor.bytes.assign(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  return {.name = std::move(name), .tensor = std::move(tensor)};
}

absl::Status Damaged(absl::string_view what) {
  return ErrorWithReason(absl::StatusCode::kDataLoss, "TENSOR_FILE_DAMAGED",
                         absl::StrCat("a stored tensor file is damaged: ", what));
}

}  // namespace

NamedTensor Column(std::string name, std::span<const int32_t> values) {
  return MakeColumn(std::move(name), DType::kInt32, values);
}

NamedTensor Column(std::string name, std::span<const int64_t> values) {
  return MakeColumn(std::move(name), DType::kInt64, values);
}

NamedTensor Column(std::string name, std::span<const double> values) {
  return MakeColumn(std::move(name), DType::kFloat64, values);
}

int64_t DeclaredTensor::bytes() const {
  return std::accumulate(shape.begin(), shape.end(), SizeOf(dtype), std::multiplies<>());
}

std::string TensorFileHead(std::span<const DeclaredTensor> tensors, absl::string_view metadata) {
  // Written piece by piece: as a document it would take many times as much memory.
  std::string head(sizeof(uint64_t), '\0');  // of the length
  absl::string_view separator = "{";
  const auto add = [&](absl::string_view name, const auto&... value) {
    const std::string quoted = nlohmann::json(std::string(name)).dump();
    absl::StrAppend(&head, separator, quoted, ":");
    absl::StrAppend(&head, value...);
    separator = ",";
  };
  if (!metadata.empty()) {
    add("__metadata__", nlohmann::ordered_json::parse(metadata.begin(), metadata.end()).dump());
  }
  int64_t offset = 0;
  for (const DeclaredTensor& tensor : tensors) {
    const int64_t end = offset + tensor.bytes();
    add(tensor.name, "{\"dtype\":\"", SafetensorsName(tensor.dtype), "\",\"shape\":[",
        absl::StrJoin(tensor.shape, ","), "],\"data_offsets\":[", offset, ",", end, "]}");
    offset = end;
  }
  head += tensors.empty() && metadata.empty() ? "{}" : "}";
  head.append((8 - head.size() % 8) % 8, ' ');
  const uint64_t length = head.size() - sizeof(length);
  std::memcpy(head.data(), &length, sizeof(length));
  return head;
}

std::string WriteTensorFile(std::span<const NamedTensor> tensors, absl::string_view metadata) {
  std::vector<DeclaredTensor> declared;
  size_t bytes = 0;
  for (const NamedTensor& named : tensors) {
    declared.push_back(
        {.name = named.name, .dtype = named.tensor.dtype, .shape = named.tensor.shape});
    bytes += named.tensor.bytes.size();
  }
  std::string file = TensorFileHead(declared, metadata);
  file.reserve(file.size() + bytes);
  for (const NamedTensor& named : tensors) file += named.tensor.bytes;
  return file;
}

absl::StatusOr<TensorFile> TensorFile::Parse(std::string bytes) {
  auto parsed = model::ParseSafetensors("stored tensors", bytes);
  if (!parsed.ok()) return Damaged(parsed.status().message());
  TensorFile file;
  for (const auto& [name, stored] : *parsed) {
    HostTensor tensor;
    tensor.dtype = stored.dtype;
    tensor.shape = stored.shape;
    tensor.bytes = std::string(stored.bytes);
    file.tensors_.push_back({.name = name, .tensor = std::move(tensor)});
  }
  return file;
}

bool TensorFile::Has(absl::string_view name) const {
  return std::any_of(tensors_.begin(), tensors_.end(),
                     [name](const NamedTensor& named) { return named.name == name; });
}

template <typename T>
absl::StatusOr<std::vector<T>> TensorFile::Read(absl::string_view name, DType dtype,
                                                int64_t size) const {
  for (const NamedTensor& named : tensors_) {
    if (named.name != name) continue;
    if (named.tensor.dtype != dtype) return Damaged(absl::StrCat(name, " has another type"));
    if (size >= 0 && named.tensor.NumElements() != size) {
      return Damaged(absl::StrCat(name, " has another size"));
    }
    std::vector<T> values(named.tensor.bytes.size() / sizeof(T));
    absl::string_view bytes = named.tensor.bytes;
    TakeNumbers(bytes, values);
    return values;
  }
  return Damaged(absl::StrCat("no tensor ", name));
}

absl::StatusOr<std::vector<int32_t>> TensorFile::Int32s(absl::string_view name,
                                                        int64_t size) const {
  return Read<int32_t>(name, DType::kInt32, size);
}

absl::StatusOr<std::vector<int64_t>> TensorFile::Int64s(absl::string_view name,
                                                        int64_t size) const {
  return Read<int64_t>(name, DType::kInt64, size);
}

absl::StatusOr<std::vector<float>> TensorFile::Floats(absl::string_view name, int64_t size) const {
  return Read<float>(name, DType::kFloat32, size);
}

absl::StatusOr<std::vector<double>> TensorFile::Doubles(absl::string_view name,
                                                        int64_t size) const {
  return Read<double>(name, DType::kFloat64, size);
}

}  // namespace valuescope::studies
