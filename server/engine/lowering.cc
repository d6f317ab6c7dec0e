#include "engine/lowering.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "model/site.h"

namespace valuescope::engine {
namespace {

// --- Directions
// -----------------------------------------------------------------------------------

// A direction whose part outside the span of those before it is smaller than this, of its own
// length, is taken as dependent: as float32 cannot tell it from one.
constexpr double kDependent = 1e-6;

// An orthonormal basis of the span of `directions` [num_directions, width], by Gram-Schmidt, twice,
// in float64. nullopt: a direction is zero.
std::optional<std::vector<float>> Orthonormal(std::span<const float> directions, int64_t width) {
  std::vector<std::vector<double>> basis;
  const auto norm_of = [](const std::vector<double>& v) {
    double sum = 0;
    for (const double x : v) sum += x * x;
    return std::sqrt(sum);
  };
  for (size_t first = 0; first < directions.size(); first += static_cast<size_t>(width)) {
    const auto given = directions.subspan(first, static_cast<size_t>(width));
    std::vector<double> rest(given.begin(), given.end());
    const double length = norm_of(rest);
    if (length == 0) return std::nullopt;
    for (int round = 0; round < 2; ++round) {
      for (const std::vector<double>& each : basis) {
        double along = 0;
        for (size_t i = 0; i < rest.size(); ++i) along += rest[i] * each[i];
        for (size_t i = 0; i < rest.size(); ++i) rest[i] -= along * each[i];
      }
    }
    const double left = norm_of(rest);
    if (left <= kDependent * length) continue;
    for (double& x : rest) x /= left;
    basis.push_back(std::move(rest));
  }
  std::vector<float> result;
  for (const std::vector<double>& each : basis)
    result.insert(result.end(), each.begin(), each.end());
  return result;
}

// --- Stages
// ---------------------------------------------------------------------------------------

// Rows first .. first + count - 1 of `numbers` [..., width], which the tensor keeps.
at::Tensor RowsOf(const SharedFloats& numbers, int64_t first, int64_t count, int64_t width) {
  return at::from_blob(
      const_cast<float*>(numbers->data() + first * width), {count, width}, [numbers](void*) {},
      at::kFloat);
}

model::Stage AdditionAt(const AddVector& add, int64_t layer, int64_t width) {
  const at::Tensor row = RowsOf(add.rows, layer, 1, width);
  return model::AddStage{.active = {},
                         .rows = add.coefficient == 1 ? row : at::mul(row, add.coefficient)};
}

// The projection on `directions` becomes `kept` times what it was, plus `target`.
absl::StatusOr<model::Stage> ProjectionAt(absl::string_view field, const SharedFloats& directions,
                                          int64_t count, int64_t layer, int64_t width, float kept,
                                          float target) {
  const auto size = static_cast<size_t>(count * width);
  auto basis = Orthonormal(
      std::span<const float>(*directions).subspan(static_cast<size_t>(layer) * size, size), width);
  if (!basis) {
    return InvalidField(field, absl::StrCat("has a direction of length zero in row ", layer,
                                            "; every one must have a length"));
  }
  const auto rank = static_cast<int64_t>(basis->size()) / width;
  const auto owned = std::make_shared<const std::vector<float>>(*std::move(basis));
  return model::ProjectStage{.active = {},
                             .basis = RowsOf(owned, 0, rank, width).view({1, rank, width}),
                             .ranks = at::full({1}, rank, at::kLong),
                             .kept = at::full({1}, kept, at::kFloat),
                             .targets = at::full({1, rank}, target, at::kFloat)};
}

// `factor` for the chosen elements, or, where it is 0, their means.
model::Stage NeuronsAt(const NeuronIndices& neurons, int64_t elements, int64_t width, float factor,
                       const float* means) {
  model::ScaleOrSetStage stage{.active = {},
                               .factors = at::ones({1, width}, at::kFloat),
                               .values = at::zeros({1, width}, at::kFloat)};
  float* factors = stage.factors.mutable_data_ptr<float>();
  float* values = stage.values.mutable_data_ptr<float>();
  for (const int64_t neuron : neurons) {
    for (int64_t i = neuron * elements; i < (neuron + 1) * elements; ++i) {
      factors[i] = factor;
      if (means != nullptr) values[i] = means[i];
    }
  }
  return stage;
}

// At one layer: an index into those of the intervention.
class StageAt {
 public:
  StageAt(const Intervention& intervention, const model::Architecture& architecture, int64_t layer)
      : intervention_(intervention),
        layer_(layer),
        width_(model::WidthOf(intervention.site, architecture)),
        elements_(ElementsPerNeuron(intervention.site, architecture)) {}

  absl::StatusOr<model::Stage> operator()(const AddVector& add) const {
    return AdditionAt(add, layer_, width_);
  }
  absl::StatusOr<model::Stage> operator()(const ProjectOut& project) const {
    return ProjectionAt("project_out", project.directions, project.num_directions, layer_, width_,
                        1 - project.strength, 0);
  }
  absl::StatusOr<model::Stage> operator()(const Clamp& clamp) const {
    return ProjectionAt("clamp", clamp.rows, 1, layer_, width_, 0, clamp.value);
  }
  absl::StatusOr<model::Stage> operator()(const ScaleNeurons& scale) const {
    return NeuronsAt(Of(scale.neurons), elements_, width_, scale.factor, nullptr);
  }
  absl::StatusOr<model::Stage> operator()(const AblateNeurons& ablate) const {
    const float* means = ablate.means == nullptr ? nullptr : ablate.means->data() + layer_ * width_;
    return NeuronsAt(Of(ablate.neurons), elements_, width_, 0, means);
  }
  absl::StatusOr<model::Stage> operator()(const Replace& replace) const {
    const auto rows =
        replace.each_position ? static_cast<int64_t>(intervention_.tokens.positions.size()) : 1;
    return model::ScaleOrSetStage{.active = {},
                                  .factors = at::zeros({1, width_}, at::kFloat),
                                  .values = RowsOf(replace.rows, layer_ * rows, rows, width_)};
  }

 private:
  const NeuronIndices& Of(const ChosenNeurons& neurons) const {
    return neurons[static_cast<size_t>(layer_)];
  }

  const Intervention& intervention_;
  const int64_t layer_;
  const int64_t width_;
  const int64_t elements_;
};

// `Tensor` is const where the stage is.
template <typename Tensor, typename Stage>
std::vector<Tensor*> TablesIn(Stage& stage) {
  if (auto* add = std::get_if<model::AddStage>(&stage)) return {&add->active, &add->rows};
  if (auto* set = std::get_if<model::ScaleOrSetStage>(&stage))
    return {&set->active, &set->factors, &set->values};
  auto& project = std::get<model::ProjectStage>(stage);
  return {&project.active, &project.basis, &project.ranks, &project.kept, &project.targets};
}

}  // namespace

int64_t NumLayers(const Intervention& intervention) {
  return std::max<int64_t>(1, static_cast<int64_t>(intervention.layers.size()));
}

int64_t ElementsPerNeuron(model::Site site, const model::Architecture& architecture) {
  return site == model::Site::kAttentionHeads ? architecture.head_dim : 1;
}

absl::StatusOr<std::vector<model::Stage>> Lower(const Intervention& intervention,
                                                const model::Architecture& architecture) {
  const int activity = intervention.preserve_norm ? model::kPreservesNorm : model::kActs;
  const at::Tensor active = at::full({1}, activity, at::kByte);
  std::vector<model::Stage> stages;
  for (int64_t layer = 0; layer < NumLayers(intervention); ++layer) {
    VS_ASSIGN_OR_RETURN(model::Stage stage, std::visit(StageAt(intervention, architecture, layer),
                                                       intervention.operation));
    std::visit([&](auto& each) { each.active = active; }, stage);
    stages.push_back(std::move(stage));
  }
  return stages;
}

std::vector<at::Tensor*> TablesOf(model::Stage& stage) { return TablesIn<at::Tensor>(stage); }
std::vector<const at::Tensor*> TablesOf(const model::Stage& stage) {
  return TablesIn<const at::Tensor>(stage);
}

}  // namespace valuescope::engine
