// An intervention but for its operation, and what converting that needs to know of its
// surroundings.
#ifndef VALUESCOPE_SERVICES_INTERVENTION_CONTEXT_H_
#define VALUESCOPE_SERVICES_INTERVENTION_CONTEXT_H_

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "engine/request.h"
#include "model/architecture.h"
#include "model/site.h"
#include "services/intervention_codec.h"
#include "services/named_resources.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::services {

// An intervention before its operation is converted.
struct Outline {
  std::string field;  // of the operation: "interventions[2].add"
  engine::Intervention intervention;
};

// INVALID_ARGUMENT naming a field beneath `field`: no operation, another site than it can have,
// layers or tokens that do not exist.
absl::StatusOr<Outline> OutlineFromProto(const std::string& field, const v1::Intervention& proto,
                                         const model::Architecture& architecture);

// A vector's rows for some layers, of which all interventions that take them have one copy.
using RowsKey = std::tuple<NamedVector, std::optional<int>, std::vector<int>>;

struct InterventionContext {
  const std::string& field;  // of the operation: "interventions[2].add"
  const engine::Intervention& intervention;
  const InterventionScope& scope;
  NamedResources& names;
  std::map<RowsKey, engine::SharedFloats>& rows;  // made so far

  std::string Field(absl::string_view name) const { return absl::StrCat(field, ".", name); }
  int64_t num_layers() const {
    return std::max<int64_t>(1, static_cast<int64_t>(intervention.layers.size()));
  }
  int64_t width() const { return model::WidthOf(intervention.site, scope.model.architecture); }
};

// The layers whose rows of a named vector the intervention takes. At a site without layers a vector
// has one row, kept under 0.
inline std::vector<int> SourceLayers(const engine::Intervention& intervention,
                                     std::optional<int> source_layer) {
  if (source_layer) return {*source_layer};
  return intervention.layers.empty() ? std::vector<int>{0} : intervention.layers;
}

template <typename Proto>
std::optional<int> SourceLayer(const Proto& proto) {
  return proto.has_source_layer() ? std::optional<int>(proto.source_layer()) : std::nullopt;
}

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_INTERVENTION_CONTEXT_H_
