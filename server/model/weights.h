// The weights of a model, declared once as a table of names and shapes. Loading, checking and tying
// read this table, so a tensor that is unknown, missing or of another shape is named before
// anything is computed.
#ifndef VALUESCOPE_MODEL_WEIGHTS_H_
#define VALUESCOPE_MODEL_WEIGHTS_H_

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/architecture.h"
#include "model/safetensors.h"

namespace valuescope::model {

inline constexpr char kEmbeddingWeight[] = "model.embed_tokens.weight";
inline constexpr char kUnembeddingWeight[] = "lm_head.weight";
inline constexpr char kFinalNormWeight[] = "model.norm.weight";

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
  // this object, and changes with the file. `name` is in the table.
  at::Tensor Get(const std::string& name, c10::ScalarType dtype) const;

  // FAILED_PRECONDITION, reason MODEL_FILES_CHANGED, where a file was written to since it was
  // opened.
  absl::Status CheckUnchanged() const;

  // Reads a tensor, the first time that anybody looks at its bytes: notes their digest.
  // INVALID_ARGUMENT, naming it, where a weight is NaN or infinite; where it is an embedding to
  // which the unembedding is tied, also where a copy of it for the unembedding differs.
  absl::Status Read(const std::string& name);

  // The part of all bytes that was read, 0 .. 1.
  double fraction_read() const;

  // Gives the memory of a tensor's file back to the system, once all that is needed was copied.
  void Release(const std::string& name) const;

  // SHA-256 over `config_json` and, in name order, each tensor's name, type, shape and own SHA-256:
  // how the tensors are spread over files does not matter. Every tensor was read.
  std::string Digest(absl::string_view config_json) const;

 private:
  std::vector<std::unique_ptr<MappedFile>> files_;
  std::map<std::string, StoredTensor> tensors_;
  std::map<std::string, std::string> digests_;  // of the tensors that were read
  size_t total_bytes_ = 0, read_bytes_ = 0;     // of the table's tensors
  bool tied_ = false;
};

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_WEIGHTS_H_
