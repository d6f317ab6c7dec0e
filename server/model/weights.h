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

// A tensor that was not read.
struct TensorInFile {
  TensorPlace place;
  const ModelFile* file = nullptr;
};

// A folder's weight files, with every tensor of the table present in the right shape and type, and
// nothing else in them but what is known to lie beside language models (tables of rotations, masks,
// heads of classifiers and rewards), which is ignored and logged. Names may lack or double the
// prefix "model."; a tied embedding may be stored as the unembedding. Tensors are read one by one
// into memory of their own.
class StoredWeights {
 public:
  static absl::StatusOr<std::unique_ptr<StoredWeights>> Open(const std::string& folder,
                                                             const Architecture& architecture);

  // FAILED_PRECONDITION, reason MODEL_FILES_CHANGED, where a file was written to since it was
  // opened.
  absl::Status CheckUnchanged() const;

  // Reads a tensor, notes its digest and holds it until Release. `name` is in the table.
  // INVALID_ARGUMENT, naming it, where a weight is NaN or infinite; where it is an embedding to
  // which the unembedding is tied, also where a copy of it for the unembedding differs.
  // FAILED_PRECONDITION, reason MODEL_FILES_CHANGED, where its file was cut short.
  absl::Status Read(const std::string& name);

  // A tensor that is held, in `dtype`: without a copy where the file has that type.
  at::Tensor Get(const std::string& name, c10::ScalarType dtype) const;

  // Lets go of it.
  void Release(const std::string& name);

  // A tensor in `dtype`, read anew. Errors of Read without what it looks for in the numbers.
  // Thread-safe.
  absl::StatusOr<at::Tensor> ReadAgain(const std::string& name, c10::ScalarType dtype) const;

  // Rows first .. first + count - 1 of a matrix, which has them, in `dtype`, read anew without the
  // others. As ReadAgain.
  absl::StatusOr<at::Tensor> ReadRowsAgain(const std::string& name, int64_t first, int64_t count,
                                           c10::ScalarType dtype) const;

  // The part of all bytes that was read, 0 .. 1.
  double fraction_read() const;

  // SHA-256 over `config_json` and, in name order, each tensor's name, type, shape and own SHA-256:
  // how the tensors are spread over files does not matter. Every tensor was read.
  std::string Digest(absl::string_view config_json) const;

 private:
  absl::StatusOr<at::Tensor> ReadTensor(const std::string& name) const;

  std::vector<std::unique_ptr<ModelFile>> files_;
  std::map<std::string, TensorInFile> tensors_;  // by their names in the table
  std::map<std::string, at::Tensor> held_;       // as stored
  std::map<std::string, std::string> digests_;   // of the tensors that were read
  int64_t total_bytes_ = 0, read_bytes_ = 0;     // of the table's tensors
  bool tied_ = false;
};

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_WEIGHTS_H_
