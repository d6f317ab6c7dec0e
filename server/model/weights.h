// The weights of a model, declared once as a table of names and shapes. Loading, checking and tying
// read this table, so a tensor that is unknown, missing or of another shape is named before
// anything is computed.
#ifndef VALUESCOPE_MODEL_WEIGHTS_H_
#define VALUESCOPE_MODEL_WEIGHTS_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/architecture.h"
#include "model/safetensors.h"

namespace valuescope::model {

struct WeightSpec {
  std::string name;            // as Hugging Face spells it
  std::vector<int64_t> shape;  // [out, in] for projections
};

// Every weight that a model of this architecture has, in the order of the forward pass. A tied
// unembedding is not listed.
std::vector<WeightSpec> WeightTable(const Architecture& architecture);

// A folder's weight files, mapped, with every tensor of the table present in the right shape and
// type and nothing else in them.
class StoredWeights {
 public:
  static absl::StatusOr<std::unique_ptr<StoredWeights>> Open(const std::string& folder,
                                                             const Architecture& architecture);

  // The tensor in `dtype`, without a copy where the file has that type: it then lives as long as
  // this object. `name` is in the table.
  at::Tensor Get(const std::string& name, c10::ScalarType dtype) const;

  // SHA-256 over `config_json` and the weight files in name order; `progress` hears the fraction of
  // bytes read. INVALID_ARGUMENT, naming the tensor, where a weight is NaN or infinite. Every byte
  // is read, in one walk over the files.
  absl::StatusOr<std::string> Verify(absl::string_view config_json,
                                     const std::function<void(double)>& progress) const;

 private:
  using Named = std::map<std::string, StoredTensor>::value_type;

  // The tensors within a file, in the order of their bytes.
  std::vector<const Named*> TensorsOf(const MappedFile& file) const;

  std::vector<std::unique_ptr<MappedFile>> files_;
  std::map<std::string, StoredTensor> tensors_;
};

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_WEIGHTS_H_
