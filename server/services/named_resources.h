// What the interventions of one call name: vectors and neuron sets of the store. All that is needed
// of them is told first, so that its size is known before anything is read; then each is read once,
// however many interventions name it, and only the rows that somebody needs are kept.
#ifndef VALUESCOPE_SERVICES_NAMED_RESOURCES_H_
#define VALUESCOPE_SERVICES_NAMED_RESOURCES_H_

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/served_model.h"
#include "model/site.h"
#include "services/request_codec.h"
#include "services/vector_resolver.h"

namespace valuescope::services {

// A named vector at the site where it is to act, or a class of a neuron set.
struct NamedVector {
  std::string name;
  model::Site site = model::Site::kResidualPost;
  friend auto operator<=>(const NamedVector&, const NamedVector&) = default;
};
struct NamedNeurons {
  std::string name;
  v1::NeuronClass neuron_class = v1::NEURON_CLASS_UNSPECIFIED;
  friend auto operator<=>(const NamedNeurons&, const NamedNeurons&) = default;
};

// For one call's thread.
class NamedResources {
 public:
  // All outlive this. What is read is added to `used`.
  NamedResources(std::string tenant, const engine::ServedModel& model, VectorResolver& resolver,
                 UsedResources& used)
      : tenant_(std::move(tenant)), model_(model), resolver_(resolver), used_(used) {}

  // --- Before anything is read ---

  // These rows of a vector will be asked for.
  void NeedRows(const NamedVector& vector, const std::vector<int>& layers);
  // These neurons will be asked for. Errors of VectorResolver::CountNeurons.
  absl::StatusOr<const NeuronCounts*> NeedNeurons(const NamedNeurons& neurons,
                                                  absl::string_view field);
  // Host memory that all of it takes at most, while one of them is read.
  int64_t bytes() const;

  // --- Then ---

  // [width]. INVALID_ARGUMENT naming `row_field` where the vector has no such row, and the errors
  // of VectorResolver::Resolve, naming `field`.
  absl::StatusOr<std::span<const float>> Row(const NamedVector& vector, int layer,
                                             absl::string_view field, absl::string_view row_field);
  // Errors of VectorResolver::ResolveNeurons.
  absl::StatusOr<const ResolvedNeurons*> Neurons(const NamedNeurons& neurons,
                                                 absl::string_view field);

 private:
  const std::string tenant_;
  const engine::ServedModel& model_;
  VectorResolver& resolver_;
  UsedResources& used_;
  std::map<NamedVector, std::set<int>> needed_;
  std::map<NamedNeurons, NeuronCounts> counts_;
  std::map<NamedVector, ResolvedVector> vectors_;
  std::map<NamedNeurons, ResolvedNeurons> neurons_;
};

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_NAMED_RESOURCES_H_
