// Tensors between the wire and the host: bytes from outside are checked against their shape before
// anything is allocated for them, and results leave in pieces that fit a message.
#ifndef VALUESCOPE_SERVICES_TENSOR_CODEC_H_
#define VALUESCOPE_SERVICES_TENSOR_CODEC_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/host_tensor.h"
#include "engine/request.h"
#include "studies/contract_enums.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::services {

// Largest tensor of one chunk, bytes, unless a single row is larger.
inline constexpr int64_t kMaxChunkBytes = int64_t{1} << 20;

using studies::DataTypeToProto;

// INVALID_ARGUMENT naming `field` for an unknown value or none.
absl::StatusOr<DType> DataTypeFromProto(absl::string_view field, v1::DataType dtype);

// INVALID_ARGUMENT naming `field`: no dtype, a negative extent, data whose length does not follow
// from the shape, an element that is not finite.
absl::StatusOr<HostTensor> TensorFromProto(absl::string_view field, const v1::Tensor& tensor);

// Hands a tap's result to `use` in pieces of at most kMaxChunkBytes, made one at a time; the rows
// of one layer stay in order. At least one chunk, also for a tap that met no token. Ends with the
// first error of `use`.
absl::Status ForEachChunk(const engine::Capture& capture, int32_t input_index,
                          const std::function<absl::Status(v1::CaptureChunk)>& use);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_TENSOR_CODEC_H_
