// Expected values beside a golden model: tensors of a safetensors file by name.
#ifndef VALUESCOPE_TESTS_MODEL_GOLDEN_VALUES_H_
#define VALUESCOPE_TESTS_MODEL_GOLDEN_VALUES_H_

#include <ATen/ATen.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/check.h"
#include "model/safetensors.h"
#include "tests/model/model_folder.h"

namespace valuescope::model {

class GoldenValues {
 public:
  explicit GoldenValues(const std::filesystem::path& file) : bytes_(ReadFile(file)) {
    auto parsed = ParseSafetensors(file.filename().string(), bytes_);
    VS_CHECK(parsed.ok());
    tensors_ = *std::move(parsed);
  }

  bool Has(const std::string& name) const { return tensors_.contains(name); }

  // A copy, float32 or int64.
  at::Tensor Get(const std::string& name) const {
    const StoredTensor& stored = tensors_.at(name);
    at::Tensor tensor = at::empty(
        stored.shape, stored.dtype == DType::kInt64 ? at::kLong : at::ScalarType(at::kFloat));
    std::memcpy(tensor.data_ptr(), stored.bytes.data(), stored.bytes.size());
    return tensor;
  }

  std::vector<int64_t> Tokens(const std::string& name) const {
    const at::Tensor tensor = Get(name);
    return {tensor.const_data_ptr<int64_t>(), tensor.const_data_ptr<int64_t>() + tensor.numel()};
  }

 private:
  std::string bytes_;
  std::map<std::string, StoredTensor> tensors_;
};

}  // namespace valuescope::model

#endif  // VALUESCOPE_TESTS_MODEL_GOLDEN_VALUES_H_
