// Long because all of it decides one thing, which interventions act on a token and with which bits:
// checks, bases, sets and digests follow the same cases by operation.
#include "engine/compiled_interventions.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "engine/lowering.h"
#include "model/site.h"

namespace valuescope::engine {

static_assert(kMostDirections <= model::kMostDirections);

namespace {

using model::Site;

// Of a position that a scope names, here and in the sets that are made of it.
constexpr int64_t kPositionBytes = 64;

template <typename... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <typename... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;

// --- Checks
// ---------------------------------------------------------------------------------------

absl::Status TouchesNothing(absl::string_view field, absl::string_view why) {
  return InvalidField(field, why, "INTERVENTION_TOUCHES_NOTHING");
}

// That there are `count` finite numbers in rows of `width`.
absl::Status CheckNumbers(absl::string_view field, const SharedFloats& numbers, int64_t count,
                          int64_t width) {
  if (numbers == nullptr || static_cast<int64_t>(numbers->size()) != count * width) {
    return InvalidField(field, absl::StrCat("must have ", count, " rows of ", width, " elements"));
  }
  for (const float element : *numbers) {
    if (!std::isfinite(element)) return InvalidField(field, "must hold finite numbers only");
  }
  return absl::OkStatus();
}

absl::Status CheckFinite(absl::string_view field, float number) {
  return std::isfinite(number) ? absl::OkStatus() : InvalidField(field, "must be finite");
}

absl::Status CheckNeurons(absl::string_view field, const ChosenNeurons& neurons,
                          const Intervention& intervention,
                          const model::Architecture& architecture) {
  if (intervention.site != Site::kMlpNeurons && intervention.site != Site::kAttentionHeads) {
    return InvalidField("site", "must be MLP_NEURONS or ATTENTION_HEADS for this operation");
  }
  if (neurons.size() != intervention.layers.size()) {
    return InvalidField(field, "must be given for each layer");
  }
  const int64_t count = model::WidthOf(intervention.site, architecture) /
                        ElementsPerNeuron(intervention.site, architecture);
  bool any = false;
  for (const NeuronIndices& of_layer : neurons) {
    for (size_t i = 0; i < of_layer.size(); ++i) {
      if (of_layer[i] < 0 || of_layer[i] >= count) {
        return OutOfRange(field, static_cast<double>(of_layer[i]), 0,
                          static_cast<double>(count - 1));
      }
      if (i > 0 && of_layer[i] <= of_layer[i - 1]) {
        return InvalidField(field, "must be ascending within a layer, each once");
      }
    }
    any = any || !of_layer.empty();
  }
  if (any) return absl::OkStatus();
  return TouchesNothing(field, "are in none of the chosen layers, so nothing would be touched");
}

absl::Status CheckOperation(const Intervention& intervention,
                            const model::Architecture& architecture) {
  const int64_t layers = NumLayers(intervention);
  const int64_t width = model::WidthOf(intervention.site, architecture);
  return std::visit(
      Overloaded{
          [&](const AddVector& add) -> absl::Status {
            VS_RETURN_IF_ERROR(CheckFinite("add.coefficient", add.coefficient));
            VS_RETURN_IF_ERROR(CheckNumbers("add.tensor", add.rows, layers, width));
            for (const float element : *add.rows) {
              if (std::isfinite(element * add.coefficient)) continue;
              return InvalidField("add.coefficient",
                                  "is too large for the vector: their product is beyond float32");
            }
            return absl::OkStatus();
          },
          [&](const ProjectOut& project) -> absl::Status {
            if (!(project.strength >= 0 && project.strength <= 1)) {
              return OutOfRange("project_out.strength", project.strength, 0, 1);
            }
            if (project.num_directions < 1 || project.num_directions > kMostDirections) {
              return OutOfRange("project_out.tensor", static_cast<double>(project.num_directions),
                                1, kMostDirections);
            }
            return CheckNumbers("project_out.tensor", project.directions,
                                layers * project.num_directions, width);
          },
          [&](const Clamp& clamp) -> absl::Status {
            VS_RETURN_IF_ERROR(CheckFinite("clamp.value", clamp.value));
            return CheckNumbers("clamp.tensor", clamp.rows, layers, width);
          },
          [&](const ScaleNeurons& scale) -> absl::Status {
            VS_RETURN_IF_ERROR(CheckFinite("scale_neurons.factor", scale.factor));
            return CheckNeurons("scale_neurons.neurons", scale.neurons, intervention, architecture);
          },
          [&](const AblateNeurons& ablate) -> absl::Status {
            VS_RETURN_IF_ERROR(
                CheckNeurons("ablate_neurons.neurons", ablate.neurons, intervention, architecture));
            if (ablate.means == nullptr) return absl::OkStatus();
            return CheckNumbers("ablate_neurons.reference", ablate.means, layers, width);
          },
          [&](const Replace& replace) -> absl::Status {
            const auto& positions = intervention.tokens.positions;
            if (replace.each_position &&
                (intervention.tokens.kind != TokenKind::kPositions || positions.empty())) {
              return InvalidField("replace.tensor",
                                  "has rows for positions, so `tokens` must name these positions");
            }
            const int64_t rows = replace.each_position ? static_cast<int64_t>(positions.size()) : 1;
            return CheckNumbers("replace.tensor", replace.rows, layers * rows, width);
          },
      },
      intervention.operation);
}

// --- Normal form
// ----------------------------------------------------------------------------------

// Takes the layers out of a neuron operation that own no chosen neuron.
void DropLayersWithoutNeurons(Intervention& intervention, int64_t width) {
  ChosenNeurons* neurons = nullptr;
  SharedFloats* means = nullptr;
  if (auto* scale = std::get_if<ScaleNeurons>(&intervention.operation)) neurons = &scale->neurons;
  if (auto* ablate = std::get_if<AblateNeurons>(&intervention.operation)) {
    neurons = &ablate->neurons;
    if (ablate->means != nullptr) means = &ablate->means;
  }
  if (neurons == nullptr) return;
  std::vector<int> layers;
  ChosenNeurons kept;
  std::vector<float> kept_means;
  for (size_t l = 0; l < neurons->size(); ++l) {
    if ((*neurons)[l].empty()) continue;
    layers.push_back(intervention.layers[l]);
    kept.push_back(std::move((*neurons)[l]));
    if (means == nullptr) continue;
    const auto row = (*means)->begin() + static_cast<std::ptrdiff_t>(l) * width;
    kept_means.insert(kept_means.end(), row, row + width);
  }
  intervention.layers = std::move(layers);
  *neurons = std::move(kept);
  if (means != nullptr) *means = std::make_shared<const std::vector<float>>(std::move(kept_means));
}

// Takes the numbers out of an operation that its stages hold.
void DropNumbers(Operation& operation) {
  std::visit(Overloaded{[](AddVector& add) { add.rows = nullptr; },
                        [](ProjectOut& project) { project.directions = nullptr; },
                        [](Clamp& clamp) { clamp.rows = nullptr; },
                        [](ScaleNeurons& scale) { scale.neurons = {}; },
                        [](AblateNeurons& ablate) {
                          ablate.neurons = {};
                          ablate.means = nullptr;
                        },
                        [](Replace& replace) { replace.rows = nullptr; }},
             operation);
}

bool ChangesNothing(const Operation& operation) {
  if (const auto* add = std::get_if<AddVector>(&operation)) return add->coefficient == 0;
  if (const auto* project = std::get_if<ProjectOut>(&operation)) return project->strength == 0;
  if (const auto* scale = std::get_if<ScaleNeurons>(&operation)) return scale->factor == 1;
  return false;
}

// Lowers on the caller's thread, where nothing may be thrown.
absl::StatusOr<std::vector<model::Stage>> LowerSafely(const Intervention& intervention,
                                                      const model::Architecture& architecture) {
  try {
    return Lower(intervention, architecture);
  } catch (const std::exception&) {
    return NeverFits("HOST_OUT_OF_MEMORY", "there was no memory for its rows");
  }
}

// --- Digests
// --------------------------------------------------------------------------------------

// Writes numbers so that no two contents are written alike: every part says its length first.
class Writer {
 public:
  template <typename Number>
  void Put(Number number) {
    sha_.Update(absl::string_view(reinterpret_cast<const char*>(&number), sizeof(number)));
  }
  template <typename Number>
  void PutAll(const std::vector<Number>& numbers) {
    Put(static_cast<uint64_t>(numbers.size()));
    sha_.Update(absl::string_view(reinterpret_cast<const char*>(numbers.data()),
                                  numbers.size() * sizeof(Number)));
  }
  void PutAll(const ChosenNeurons& neurons) {
    Put(static_cast<uint64_t>(neurons.size()));
    for (const NeuronIndices& of_layer : neurons) PutAll(of_layer.values());
  }
  void PutAll(const SharedFloats& numbers) {
    Put(static_cast<uint8_t>(numbers != nullptr));
    if (numbers != nullptr) PutAll(*numbers);
  }
  std::string Digest() { return sha_.HexDigest(); }

 private:
  Sha256 sha_;
};

std::string DigestOf(const Intervention& intervention) {
  Writer writer;
  writer.Put(static_cast<int32_t>(intervention.site));
  writer.PutAll(intervention.layers);
  writer.Put(static_cast<uint8_t>(intervention.preserve_norm));
  writer.Put(static_cast<uint64_t>(intervention.operation.index()));
  std::visit(Overloaded{
                 [&](const AddVector& add) {
                   writer.Put(add.coefficient);
                   writer.PutAll(add.rows);
                 },
                 [&](const ProjectOut& project) {
                   writer.Put(project.strength);
                   writer.Put(project.num_directions);
                   writer.PutAll(project.directions);
                 },
                 [&](const Clamp& clamp) {
                   writer.Put(clamp.value);
                   writer.PutAll(clamp.rows);
                 },
                 [&](const ScaleNeurons& scale) {
                   writer.Put(scale.factor);
                   writer.PutAll(scale.neurons);
                 },
                 [&](const AblateNeurons& ablate) {
                   writer.PutAll(ablate.neurons);
                   writer.PutAll(ablate.means);
                 },
                 [&](const Replace& replace) {
                   writer.Put(static_cast<uint8_t>(replace.each_position));
                   writer.PutAll(replace.rows);
                 },
             },
             intervention.operation);
  return writer.Digest();
}

}  // namespace

absl::string_view NameOfOperation(size_t index) {
  constexpr absl::string_view kNames[kNumOperations] = {
      "add", "project_out", "clamp", "scale_neurons", "ablate_neurons", "replace"};
  return kNames[index];
}

// --- What a call's requests share
// ---------------------------------------------------------------

absl::StatusOr<std::shared_ptr<const PreparedInterventions>> PreparedInterventions::Prepare(
    std::vector<Intervention> interventions, const model::Architecture& architecture,
    std::shared_ptr<MemoryLedger::Lease> memory) {
  if (interventions.size() > static_cast<size_t>(kMostInterventions)) {
    return InvalidField(
        "interventions",
        absl::StrCat("are ", interventions.size(), ", allowed are at most ", kMostInterventions));
  }
  auto prepared = std::make_shared<PreparedInterventions>();
  prepared->architecture_ = architecture;
  for (size_t i = 0; i < interventions.size(); ++i) {
    const std::string field = absl::StrCat("interventions[", i, "]");
    Intervention& one = interventions[i];
    if (absl::Status s = model::CheckLayers(one.site, one.layers, architecture); !s.ok())
      return InField(field, s);
    if (absl::Status s = CheckOperation(one, architecture); !s.ok()) return InField(field, s);
    DropLayersWithoutNeurons(one, model::WidthOf(one.site, architecture));
    auto stages = LowerSafely(one, architecture);
    if (!stages.ok()) return InField(field, stages.status());
    prepared->stages_.push_back(*std::move(stages));
    prepared->digests_.push_back(DigestOf(one));
    DropNumbers(one.operation);
  }
  prepared->interventions_ = std::move(interventions);
  if (memory != nullptr) memory->ShrinkTo(prepared->bytes());
  prepared->memory_ = std::move(memory);
  return prepared;
}

absl::StatusOr<std::shared_ptr<const CompiledInterventions>> PreparedInterventions::For(
    const SequenceExtent& extent) const {
  const Extent key{extent.prompt, extent.most, extent.generates};
  {
    absl::MutexLock lock(&mutex_);
    const auto found = compiled_.find(key);
    if (found != compiled_.end()) {
      if (auto compiled = found->second.lock()) return compiled;
    }
  }
  VS_ASSIGN_OR_RETURN(auto made, CompiledInterventions::Compile(shared_from_this(), extent));
  auto compiled = std::make_shared<const CompiledInterventions>(std::move(made));
  absl::MutexLock lock(&mutex_);
  std::erase_if(compiled_, [](const auto& each) { return each.second.expired(); });
  compiled_.insert_or_assign(key, compiled);
  return compiled;
}

int64_t PreparedInterventions::bytes() const {
  int64_t bytes = 0;
  for (const Intervention& one : interventions_) {
    bytes += static_cast<int64_t>(one.tokens.positions.size()) * kPositionBytes;
  }
  std::set<const void*> seen;  // interventions may share numbers
  for (const std::vector<model::Stage>& of_intervention : stages_) {
    for (const model::Stage& stage : of_intervention) {
      for (const at::Tensor* table : TablesOf(stage)) {
        if (seen.insert(table->const_data_ptr()).second) {
          bytes += static_cast<int64_t>(table->nbytes());
        }
      }
    }
  }
  return bytes;
}

// --- What depends on the tokens
// -----------------------------------------------------------------

absl::StatusOr<CompiledInterventions> CompiledInterventions::Compile(
    std::shared_ptr<const PreparedInterventions> prepared, const SequenceExtent& extent) {
  CompiledInterventions compiled;
  compiled.prepared_ = std::move(prepared);
  if (compiled.empty()) return compiled;
  const std::vector<Intervention>& interventions = compiled.interventions();
  for (size_t i = 0; i < interventions.size(); ++i) {
    auto scope = TokenScope::Resolve(interventions[i].tokens, extent, /*for_tap=*/false);
    if (!scope.ok()) {
      return InField(absl::StrCat("interventions[", i, "].tokens"), scope.status());
    }
    compiled.scopes_.push_back(*std::move(scope));
  }
  VS_RETURN_IF_ERROR(compiled.EnumerateSets(extent));
  VS_RETURN_IF_ERROR(compiled.CheckEdits());
  compiled.MakeDigests();
  return compiled;
}

absl::StatusOr<CompiledInterventions> CompiledInterventions::Compile(
    std::vector<Intervention> interventions, const SequenceExtent& extent,
    const model::Architecture& architecture) {
  VS_ASSIGN_OR_RETURN(auto prepared,
                      PreparedInterventions::Prepare(std::move(interventions), architecture));
  return Compile(std::move(prepared), extent);
}

const std::vector<Intervention>& CompiledInterventions::interventions() const {
  static const std::vector<Intervention> none;
  return prepared_ == nullptr ? none : prepared_->interventions();
}

absl::Status CompiledInterventions::EnumerateSets(const SequenceExtent& extent) {
  // Of replacements of single positions: which row a position takes.
  std::vector<std::map<int64_t, int>> rows(interventions().size());
  for (size_t i = 0; i < interventions().size(); ++i) {
    const auto* replace = std::get_if<Replace>(&interventions()[i].operation);
    if (replace == nullptr || !replace->each_position) continue;
    const std::vector<int64_t>& positions = interventions()[i].tokens.positions;
    for (size_t p = 0; p < positions.size(); ++p) {
      rows[i].emplace(AbsolutePosition(positions[p], extent), static_cast<int>(p));
    }
  }
  variants_.assign(1, std::vector<int>(interventions().size(), kAbsent));
  std::map<std::vector<int>, uint16_t> known{{variants_.front(), uint16_t{0}}};
  // One more than can be fed: what follows is as this one.
  for (int64_t position = 0; position <= extent.most; ++position) {
    std::vector<int> set(interventions().size(), kAbsent);
    for (size_t i = 0; i < scopes_.size(); ++i) {
      if (!scopes_[i].Contains(position)) continue;
      const auto row = rows[i].find(position);
      set[i] = row == rows[i].end() ? 0 : row->second;
    }
    const auto [found, fresh] = known.try_emplace(set, static_cast<uint16_t>(variants_.size()));
    if (fresh) variants_.push_back(std::move(set));
    if (static_cast<int64_t>(variants_.size()) > kMostSetsPerRequest + 1) {
      return InvalidField("interventions",
                          absl::StrCat("act in more than ", kMostSetsPerRequest,
                                       " different ways over the tokens (a replacement of single "
                                       "positions in one for each); split the request"));
    }
    set_of_position_.push_back(found->second);
  }
  return absl::OkStatus();
}

absl::Status CompiledInterventions::CheckEdits() const {
  int64_t edits = 0;
  for (size_t set = 1; set < variants_.size(); ++set) {
    for (const int64_t layers : LayersTouched(set)) edits += layers;
  }
  if (edits <= kMostEditsPerRequest) return absl::OkStatus();
  return InvalidField(
      "interventions",
      absl::StrCat("act in ", variants_.size() - 1, " different ways over the tokens, which makes ",
                   edits, " edits of single layers, allowed are at most ", kMostEditsPerRequest,
                   "; use fewer positions, interventions or layers, or split the request"));
}

void CompiledInterventions::MakeDigests() {
  const std::vector<std::string>& each = prepared_->digests();
  digests_.assign(variants_.size(), "");
  for (size_t set = 1; set < variants_.size(); ++set) {
    std::string content;
    for (size_t i = 0; i < each.size(); ++i) {
      if (!Changes(set, i)) continue;
      absl::StrAppend(&content, each[i], ":", variants_[set][i], ";");
    }
    if (!content.empty()) digests_[set] = Sha256Hex(content);
  }
}

uint64_t CompiledInterventions::ActiveAt(int64_t position) const {
  if (set_of_position_.empty()) return 0;
  const auto last = static_cast<int64_t>(set_of_position_.size()) - 1;
  return set_of_position_[static_cast<size_t>(std::min(position, last))];
}

bool CompiledInterventions::Changes(uint64_t active, size_t index) const {
  return Acts(active, index) && !ChangesNothing(interventions()[index].operation);
}

std::vector<WireEdit> CompiledInterventions::EditsOf(uint64_t active) const {
  std::vector<WireEdit> edits;
  for (size_t i = 0; i < interventions().size(); ++i) {
    if (!Changes(active, i)) continue;
    const Intervention& one = interventions()[i];
    const std::vector<model::Stage>& stages = prepared_->stages()[i];
    for (size_t l = 0; l < stages.size(); ++l) {
      const model::Wire wire =
          model::Normalised({one.site, one.layers.empty() ? 0 : one.layers[l]});
      edits.push_back({.wire = model::WireIndex(wire, prepared_->architecture()),
                       .row = variants_[active][i],
                       .stage = &stages[l]});
    }
  }
  return edits;
}

std::array<int64_t, kNumOperations> CompiledInterventions::LayersTouched(uint64_t active) const {
  std::array<int64_t, kNumOperations> touched{};
  for (size_t i = 0; i < interventions().size(); ++i) {
    const Intervention& one = interventions()[i];
    if (!Changes(active, i)) continue;
    touched[one.operation.index()] += NumLayers(one);
  }
  return touched;
}

}  // namespace valuescope::engine
