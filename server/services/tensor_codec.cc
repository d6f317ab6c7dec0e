#include "services/tensor_codec.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "studies/contract_enums.h"

namespace valuescope::services {
namespace {

bool IsInteger(DType dtype) { return dtype == DType::kInt32 || dtype == DType::kInt64; }

absl::Status CheckFinite(absl::string_view field, const HostTensor& tensor) {
  const auto refuse = [&] { return InvalidField(field, "must hold finite numbers only"); };
  if (tensor.dtype == DType::kFloat64) {
    // Judged as it is: a large double is finite although its float is not.
    for (const double element : tensor.As<double>()) {
      if (!std::isfinite(element)) return refuse();
    }
    return absl::OkStatus();
  }
  VS_ASSIGN_OR_RETURN(const std::vector<float> elements, ToFloat32(tensor));
  for (const float element : elements) {
    if (!std::isfinite(element)) return refuse();
  }
  return absl::OkStatus();
}

// Rows [first_layer, first_layer + layers) x [first_token, first_token + tokens) of a capture.
struct Block {
  int64_t first_layer = 0;
  int64_t layers = 0;
  int64_t first_token = 0;
  int64_t tokens = 0;
};

v1::CaptureChunk ChunkOf(const engine::Capture& capture, int32_t input_index, const Block& block) {
  const HostTensor& tensor = capture.tensor;  // [layers, tokens, width]
  const int64_t all_tokens = tensor.shape[1];
  const int64_t row_bytes = tensor.shape[2] * SizeOf(tensor.dtype);
  v1::CaptureChunk chunk;
  chunk.set_input_index(input_index);
  chunk.set_tap_index(capture.tap_index);
  if (!capture.layers.empty()) {
    const auto first = capture.layers.begin() + block.first_layer;
    chunk.mutable_layers()->Assign(first, first + block.layers);
  }
  const bool reduced = static_cast<int64_t>(capture.positions.size()) != all_tokens;
  const auto first = capture.positions.begin() + (reduced ? 0 : block.first_token);
  const auto last = reduced ? capture.positions.end() : first + block.tokens;
  chunk.mutable_positions()->Assign(first, last);
  v1::Tensor& out = *chunk.mutable_tensor();
  out.set_dtype(DataTypeToProto(tensor.dtype));
  out.add_shape(block.layers);
  out.add_shape(block.tokens);
  out.add_shape(tensor.shape[2]);
  for (const int64_t column : capture.columns) {
    v1::NeuronId& neuron = *chunk.add_neurons();
    neuron.set_layer(capture.layers.front());
    neuron.set_index(static_cast<int32_t>(column));
  }
  std::string& data = *out.mutable_data();
  data.reserve(static_cast<size_t>(block.layers * block.tokens * row_bytes));
  for (int64_t layer = block.first_layer; layer < block.first_layer + block.layers; ++layer) {
    const int64_t offset = (layer * all_tokens + block.first_token) * row_bytes;
    data.append(tensor.bytes, static_cast<size_t>(offset),
                static_cast<size_t>(block.tokens * row_bytes));
  }
  return chunk;
}

}  // namespace

absl::StatusOr<DType> DataTypeFromProto(absl::string_view field, v1::DataType dtype) {
  if (const std::optional<DType> ours = studies::DataTypeOf(dtype)) return *ours;
  return InvalidField(
      field, "must be FLOAT32, FLOAT16, BFLOAT16, FLOAT64, INT32 or INT64 (DATA_TYPE_...)");
}

absl::StatusOr<HostTensor> TensorFromProto(absl::string_view field, const v1::Tensor& tensor) {
  HostTensor host;
  VS_ASSIGN_OR_RETURN(host.dtype, DataTypeFromProto(absl::StrCat(field, ".dtype"), tensor.dtype()));
  host.shape.assign(tensor.shape().begin(), tensor.shape().end());
  const absl::StatusOr<int64_t> bytes = CheckedByteSize(host.dtype, host.shape);
  if (!bytes.ok()) {
    return InvalidField(absl::StrCat(field, ".shape"),
                        "must have extents >= 0 whose product fits the data");
  }
  if (*bytes != static_cast<int64_t>(tensor.data().size())) {
    return InvalidField(
        absl::StrCat(field, ".data"),
        absl::StrCat("has ", tensor.data().size(), " bytes, but dtype and shape say ", *bytes));
  }
  host.bytes = tensor.data();
  if (!IsInteger(host.dtype)) VS_RETURN_IF_ERROR(CheckFinite(field, host));
  return host;
}

absl::Status ForEachChunk(const engine::Capture& capture, int32_t input_index,
                          const std::function<absl::Status(v1::CaptureChunk)>& use) {
  const int64_t layers = capture.tensor.shape[0];
  const int64_t tokens = capture.tensor.shape[1];
  const int64_t row_bytes =
      std::max<int64_t>(1, capture.tensor.shape[2] * SizeOf(capture.tensor.dtype));
  const int64_t rows_a_chunk = std::max<int64_t>(1, kMaxChunkBytes / row_bytes);
  const int64_t tokens_a_chunk = std::min(std::max<int64_t>(1, tokens), rows_a_chunk);
  const int64_t layers_a_chunk =
      tokens_a_chunk < tokens ? 1 : std::max<int64_t>(1, rows_a_chunk / tokens_a_chunk);
  for (int64_t layer = 0; layer < layers; layer += layers_a_chunk) {
    Block block{.first_layer = layer, .layers = std::min(layers_a_chunk, layers - layer)};
    do {
      block.tokens = std::min(tokens_a_chunk, tokens - block.first_token);
      VS_RETURN_IF_ERROR(use(ChunkOf(capture, input_index, block)));
      block.first_token += block.tokens;
    } while (block.first_token < tokens);
  }
  return absl::OkStatus();
}

}  // namespace valuescope::services
