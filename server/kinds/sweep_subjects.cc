#include "kinds/sweep_subjects.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "analysis/inner_product.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/response_work.h"
#include "services/classification_request.h"
#include "services/stored_neuron_sets.h"
#include "services/stored_vectors.h"
#include "studies/classify_neurons.h"
#include "studies/stored_neuron_set.h"

namespace valuescope::kinds {
namespace {

// "shared" of NEURON_CLASS_SHARED.
std::string ClassWord(v1::NeuronClass neuron_class) {
  return absl::AsciiStrToLower(
      absl::StripPrefix(v1::NeuronClass_Name(neuron_class), "NEURON_CLASS_"));
}

class SubjectReader {
 public:
  SubjectReader(const v1::SteeringSweepSpec& spec, const engine::ServedModel& model,
                const rpc::CallContext& context, const Sources& sources,
                services::UsedResources& used, SavedSweep& sweep)
      : spec_(spec),
        model_(model),
        context_(context),
        sources_(sources),
        used_(used),
        sweep_(sweep) {}

  absl::Status ReadVectors() {
    std::vector<studies::StoredVector> vectors;
    std::vector<const studies::StoredVector*> all;
    for (int i = 0; i < spec_.vectors_size(); ++i) {
      VS_RETURN_IF_ERROR(context_.Why());
      const std::string field = absl::StrCat("vectors[", i, "]");
      VS_ASSIGN_OR_RETURN(vectors.emplace_back(),
                          UsableVectorOfName(context_, field, spec_.vectors(i),
                                             model::Site::kResidualPost, model_, sources_, used_));
    }
    for (const studies::StoredVector& vector : vectors) all.push_back(&vector);
    VS_RETURN_IF_ERROR(ReadLayers(all));
    for (int i = 0; i < spec_.vectors_size(); ++i) {
      VS_ASSIGN_OR_RETURN(SavedSweepSubject* const subject,
                          AddSubject(absl::StrCat("vectors[", i, "]"), spec_.vectors(i)));
      subject->set_vector(spec_.vectors(i));
      const studies::StoredVector& vector = vectors[static_cast<size_t>(i)];
      for (const int layer : sweep_.layers()) {
        subject->add_norms(analysis::Norm(vector.row(*vector.RowOfLayer(layer))));
      }
    }
    return absl::OkStatus();
  }

  absl::Status ReadNeuronSets() {
    for (int i = 0; i < spec_.neuron_sets_size(); ++i) {
      VS_RETURN_IF_ERROR(context_.Why());
      const v1::NeuronSetFilter& filter = spec_.neuron_sets(i);
      const std::string field = absl::StrCat("neuron_sets[", i, "]");
      VS_ASSIGN_OR_RETURN(const services::NamedNeuronSet named,
                          services::NeuronSetOfName(context_, absl::StrCat(field, ".neuron_set"),
                                                    filter.neuron_set(), *sources_.store, used_));
      if (named.set.model_digest() != model_.weights_digest) {
        return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "WRONG_MODEL",
                               absl::StrCat("`", field, "` is a set of another model"));
      }
      VS_RETURN_IF_ERROR(services::CheckFilter(field, filter, named.set));
      VS_ASSIGN_OR_RETURN(const studies::NeuronsByLayer neurons,
                          services::HeldNeurons(context_, filter, named, *sources_.blobs));
      std::string name = filter.neuron_set();
      if (filter.class_() != v1::NEURON_CLASS_UNSPECIFIED) {
        absl::StrAppend(&name, "=", ClassWord(filter.class_()));
      }
      if (filter.top_per_layer() > 0) absl::StrAppend(&name, ":top", filter.top_per_layer());
      VS_ASSIGN_OR_RETURN(SavedSweepSubject* const subject, AddSubject(field, name));
      AddNeurons(neurons, *subject->add_neurons());
      if (subject->neurons(0).layers().empty()) {
        return InvalidField(field, "has no neurons in `layers`");
      }
    }
    return absl::OkStatus();
  }

  absl::Status ReadClasses() {
    for (int i = 0; i < spec_.classes_size(); ++i) {
      const std::string field = absl::StrCat("classes[", i, "]");
      VS_ASSIGN_OR_RETURN(SavedSweepSubject* const subject, AddSubject(field, field));
      const v1::SweptClasses& swept = spec_.classes(i);
      v1::ClassifyNeuronsRequest request = swept.classification();
      request.mutable_layers()->mutable_list()->mutable_layers()->Assign(sweep_.layers().begin(),
                                                                         sweep_.layers().end());
      for (int k = 0; k < std::max(1, swept.top_percents_size()); ++k) {
        if (!swept.top_percents().empty()) request.set_top_percent(swept.top_percents(k));
        for (int angle = 0; angle < std::max(1, swept.max_angles_size()); ++angle) {
          if (!swept.max_angles().empty()) request.set_max_angle(swept.max_angles(angle));
          VS_RETURN_IF_ERROR(AddClass(field, request, swept.class_(), *subject));
        }
      }
      const auto& found = subject->neurons();
      if (std::all_of(found.begin(), found.end(),
                      [](const SavedNeurons& neurons) { return neurons.layers().empty(); })) {
        return InvalidField(absl::StrCat(field, ".class"),
                            "has no neurons in `layers`, whatever k and angle");
      }
    }
    return absl::OkStatus();
  }

 private:
  // Those that all vectors have, or of neurons alone those of the model.
  absl::Status ReadLayers(const std::vector<const studies::StoredVector*>& vectors) {
    const v1::Layers* const given = spec_.has_layers() ? &spec_.layers() : nullptr;
    std::vector<int> layers;
    if (vectors.empty()) {
      VS_ASSIGN_OR_RETURN(layers,
                          services::LayersFromProto("layers", given,
                                                    {.site = model::Site::kMlpNeurons,
                                                     .num_layers = model_.architecture.num_layers,
                                                     .all_by_default = true}));
    } else {
      VS_ASSIGN_OR_RETURN(layers, services::LayersOfVectors(given, vectors));
    }
    sweep_.mutable_layers()->Assign(layers.begin(), layers.end());
    return absl::OkStatus();
  }

  absl::StatusOr<SavedSweepSubject*> AddSubject(const std::string& field, const std::string& name) {
    if (!names_.insert(name).second) {
      return InvalidField(field, absl::StrCat("is `", name, "`, as another subject is"));
    }
    SavedSweepSubject* const subject = sweep_.add_subjects();
    subject->set_name(name);
    return subject;
  }

  // At one k and angle, which are told with their defaults.
  absl::Status AddClass(const std::string& field, const v1::ClassifyNeuronsRequest& request,
                        v1::NeuronClass neuron_class, SavedSweepSubject& subject) {
    VS_RETURN_IF_ERROR(context_.Why());
    const std::string prefix = absl::StrCat(field, ".classification");
    const auto named = services::ClassificationOf(context_, request, model_, *sources_.store,
                                                  *sources_.blobs, used_);
    if (!named.ok()) return AsAsked(field, named.status());
    const auto found = studies::ClassifyNeurons(*model_.engine, named->first, named->second,
                                                named->plan, context_.cancellation);
    if (!found.ok()) return InField(prefix, found.status());
    SavedNeurons& neurons = *subject.add_neurons();
    neurons.set_top_percent(named->plan.geometry.top_percent);
    neurons.set_max_angle(named->plan.geometry.max_angle_degrees);
    AddNeurons(studies::MembersByLayer(found->columns, /*top_k=*/0, neuron_class), neurons);
    if (subject.neurons_size() > 1) return absl::OkStatus();
    for (const std::string& warning : found->warnings) {
      sweep_.add_warnings(absl::StrCat(field, ": ", warning));
    }
    return absl::OkStatus();
  }

  // k and angle stand in lists of their own, and layers are the sweep's.
  static absl::Status AsAsked(const std::string& field, const absl::Status& status) {
    const std::string wrong = DetailsOf(status).field;
    if (wrong == "layers") return status;
    for (const auto& [in_request, in_sweep] :
         {std::pair("top_percent", "top_percents"), std::pair("max_angle", "max_angles")}) {
      if (wrong == in_request) {
        return InField(field, WithFieldRenamed(status, in_request, in_sweep));
      }
    }
    return InField(absl::StrCat(field, ".classification"), status);
  }

  // Those in the sweep's layers.
  void AddNeurons(const studies::NeuronsByLayer& by_layer, SavedNeurons& neurons) const {
    for (const auto& [layer, indices] : by_layer) {
      const auto& layers = sweep_.layers();
      if (indices.empty() || !std::binary_search(layers.begin(), layers.end(), layer)) continue;
      SavedLayerNeurons& of = *neurons.add_layers();
      of.set_layer(layer);
      for (const int64_t index : indices) of.add_indices(static_cast<int32_t>(index));
      std::sort(of.mutable_indices()->begin(), of.mutable_indices()->end());
    }
  }

  const v1::SteeringSweepSpec& spec_;
  const engine::ServedModel& model_;
  const rpc::CallContext& context_;
  const Sources& sources_;
  services::UsedResources& used_;
  SavedSweep& sweep_;
  std::set<std::string> names_;
};

}  // namespace

absl::Status ResolveSubjects(const v1::SteeringSweepSpec& spec, const engine::ServedModel& model,
                             const rpc::CallContext& context, const Sources& sources,
                             services::UsedResources& used, SavedSweep& sweep) {
  SubjectReader reader(spec, model, context, sources, used, sweep);
  VS_RETURN_IF_ERROR(reader.ReadVectors());
  VS_RETURN_IF_ERROR(reader.ReadNeuronSets());
  return reader.ReadClasses();
}

}  // namespace valuescope::kinds
