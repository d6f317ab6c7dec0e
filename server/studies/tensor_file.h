// Files of named tensors (safetensors), written so that equal tensors give equal bytes: tensors
// stand in the order given, the header has no dates and is padded with spaces to eight bytes.
#ifndef VALUESCOPE_STUDIES_TENSOR_FILE_H_
#define VALUESCOPE_STUDIES_TENSOR_FILE_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/host_tensor.h"

namespace valuescope::studies {

inline constexpr char kSafetensorsMediaType[] = "application/vnd.safetensors";

struct NamedTensor {
  std::string name;
  HostTensor tensor;
};

// One-dimensional tensors.
NamedTensor Column(std::string name, std::span<const int32_t> values);
NamedTensor Column(std::string name, std::span<const int64_t> values);
NamedTensor Column(std::string name, std::span<const double> values);

// A tensor whose bytes are elsewhere.
struct DeclaredTensor {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;

  int64_t bytes() const;
};

// What stands in a file before the bytes of its tensors, which follow in this order without gaps.
// `metadata` (a JSON object of strings, or empty) becomes its __metadata__.
std::string TensorFileHead(std::span<const DeclaredTensor> tensors,
                           absl::string_view metadata = "");

// The file.
std::string WriteTensorFile(std::span<const NamedTensor> tensors, absl::string_view metadata = "");

// A parsed file; it owns its bytes.
class TensorFile {
 public:
  // DATA_LOSS where the bytes are no such file.
  static absl::StatusOr<TensorFile> Parse(std::string bytes);

  bool Has(absl::string_view name) const;
  // DATA_LOSS where there is no tensor of that name and type, or, with size >= 0, of another size.
  absl::StatusOr<std::vector<int32_t>> Int32s(absl::string_view name, int64_t size = -1) const;
  absl::StatusOr<std::vector<int64_t>> Int64s(absl::string_view name, int64_t size = -1) const;
  absl::StatusOr<std::vector<float>> Floats(absl::string_view name, int64_t size = -1) const;
  absl::StatusOr<std::vector<double>> Doubles(absl::string_view name, int64_t size = -1) const;

 private:
  template <typename T>
  absl::StatusOr<std::vector<T>> Read(absl::string_view name, DType dtype, int64_t size) const;

  std::vector<NamedTensor> tensors_;
};

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_TENSOR_FILE_H_
