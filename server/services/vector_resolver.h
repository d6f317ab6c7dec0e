// Named vectors and neuron sets as interventions need them. The conversions of requests know this
// interface alone; who stores them implements it.
#ifndef VALUESCOPE_SERVICES_VECTOR_RESOLVER_H_
#define VALUESCOPE_SERVICES_VECTOR_RESOLVER_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/request.h"
#include "engine/served_model.h"
#include "model/site.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::services {

struct ResolvedVector {
  std::string name;    // "vectors/ID"
  std::string digest;  // SHA-256 of the content, hexadecimal
  model::Site site = model::Site::kResidualPost;
  int64_t width = 0;                       // elements of a row
  std::map<int, std::vector<float>> rows;  // [width] by absolute layer; {0} at sites without
};

struct ResolvedNeurons {
  std::string name;                               // "neuronSets/ID"
  std::string digest;                             // SHA-256 of the content, hexadecimal
  std::map<int, engine::NeuronIndices> by_layer;  // indices within the layer
};

// What a neuron set's metadata says.
struct NeuronCounts {
  std::map<int, int64_t> by_layer;  // neurons; layers without any may be absent
  int64_t bytes_to_read = 0;        // of the file that holds them; 0: none has to be read
};

// Thread-safe.
class VectorResolver {
 public:
  virtual ~VectorResolver() = default;

  // The vector called `name` ("vectors/ID") of `tenant`, for use at `site` of `model`.
  // INVALID_ARGUMENT naming `field`: no such name form, another site or width. NOT_FOUND: no such
  // vector of this tenant. FAILED_PRECONDITION (WRONG_MODEL): made on other weights.
  virtual absl::StatusOr<ResolvedVector> Resolve(absl::string_view tenant, absl::string_view name,
                                                 const engine::ServedModel& model, model::Site site,
                                                 absl::string_view field) = 0;

  // How many members ResolveNeurons would give, without reading them. Its errors.
  virtual absl::StatusOr<NeuronCounts> CountNeurons(absl::string_view tenant,
                                                    absl::string_view name,
                                                    v1::NeuronClass neuron_class,
                                                    const engine::ServedModel& model,
                                                    absl::string_view field) = 0;

  // The members of the neuron set called `name` ("neuronSets/ID"); only those of `neuron_class`
  // where it is not UNSPECIFIED. Errors as above; INVALID_ARGUMENT also for a class of a set whose
  // method assigns none.
  virtual absl::StatusOr<ResolvedNeurons> ResolveNeurons(absl::string_view tenant,
                                                         absl::string_view name,
                                                         v1::NeuronClass neuron_class,
                                                         const engine::ServedModel& model,
                                                         absl::string_view field) = 0;
};

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_VECTOR_RESOLVER_H_
