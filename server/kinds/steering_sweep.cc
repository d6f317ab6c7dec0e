// The kind "steering_sweep": a grid of ways to steer, measured at every point by other kinds of
// work (sweep_work.h), guarded, and selected from beside random directions
// (studies/steering_sweep.h). There is no call that does so.
//
// Left by a job: "points", JSON Lines of SweepPoint, the baseline first; "responses", JSON Lines of
// LabelledResponse, point by point, where there are such; "summary", JSON of SteeringSweepResult,
// nothing of time or place.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "google/protobuf/empty.pb.h"
#include "kinds/evaluation_work.h"
#include "kinds/kinds.h"
#include "kinds/response_work.h"
#include "kinds/sweep_request.h"
#include "kinds/sweep_work.h"
#include "services/study_codec.h"
#include "studies/message_json.h"
#include "studies/provenance.h"
#include "valuescope/v1/jobs.pb.h"

namespace valuescope::kinds {
namespace {

using Spec = v1::SteeringSweepSpec;

constexpr char kName[] = "steering_sweep";

// Work of one condition.
bool IsWhole(const SavedWork& work) {
  if (work.has_generate_responses() != work.has_generation() || work.num_responses() < 1) {
    return false;
  }
  return work.has_generation() ? work.generation().conditions_size() == 1
                               : work.evaluation().conditions_size() == 1;
}

bool IsWhole(const SavedSweep& sweep) {
  if (sweep.layers().empty() || sweep.scopes().empty() || sweep.subjects().empty() ||
      sweep.evaluations().empty() || sweep.num_random() < 0) {
    return false;
  }
  bool any_neurons = false, any_responses = false;
  for (const SavedSweepSubject& subject : sweep.subjects()) {
    any_neurons |= subject.vector().empty();
    const bool whole = subject.vector().empty() ? !subject.neurons().empty()
                                                : subject.norms_size() == sweep.layers_size();
    if (!whole) return false;
    for (const SavedNeurons& neurons : subject.neurons()) {
      for (const SavedLayerNeurons& of : neurons.layers()) {
        const auto& layers = sweep.layers();
        if (std::find(layers.begin(), layers.end(), of.layer()) == layers.end()) return false;
      }
    }
  }
  for (const SavedSweepEvaluation& evaluation : sweep.evaluations()) {
    if (!IsWhole(evaluation.work())) return false;
    any_responses |= evaluation.work().has_generate_responses();
  }
  // By which random sets are drawn.
  return any_responses || !any_neurons || sweep.num_random() == 0;
}

class SteeringSweepKind
    : public services::KindOf<Spec, google::protobuf::Empty, SweepWork, SweepOutcome> {
 public:
  explicit SteeringSweepKind(const Sources& sources) : sources_(sources), kinds_(sources) {}

  absl::string_view Name() const override { return kName; }
  absl::string_view Unit() const override { return "measurements"; }

  absl::Status Readiness(absl::string_view needs) const override {
    return services::CheckNeeds(*sources_.models, needs);
  }

  absl::StatusOr<std::unique_ptr<jobs::Work>> Open(absl::string_view tenant,
                                                   absl::string_view spec) override {
    VS_ASSIGN_OR_RETURN(SavedWork record, ParseSavedWork(spec));
    VS_RETURN_IF_ERROR(CheckRecord(record, SavedWork::kSteeringSweep));
    if (!IsWhole(record.steering_sweep())) return SpecDamaged();
    VS_ASSIGN_OR_RETURN(const auto model, ModelOfRecord(record, *sources_.models));
    return std::make_unique<SweepWork>(sources_, kinds_, std::string(tenant), std::move(record),
                                       *model, std::vector<std::unique_ptr<jobs::Work>>());
  }

 protected:
  absl::StatusOr<services::ResolvedWork> Resolved(
      const Spec& spec, const rpc::CallContext& context,
      const services::ResolveOptions& options) override {
    VS_ASSIGN_OR_RETURN(const auto model,
                        services::ModelOfName("model", spec.model(), *sources_.models));
    VS_RETURN_IF_ERROR(CheckSweepSize(spec, model->architecture.num_layers));
    VS_ASSIGN_OR_RETURN(ResolvedSweep sweep,
                        ResolveSweep(spec, *model, context, options, sources_, kinds_));
    services::ResolvedWork resolved;
    resolved.used = std::move(sweep.used);
    resolved.needs = std::move(sweep.needs);
    SavedWork record = RecordOf(*model, /*display_name=*/"", options);
    *record.mutable_provenance() = ProvenanceOfSweep(spec, *model, resolved.used);
    // Of each evaluation so many units as its work has: the rest of it is stored with the job.
    for (size_t e = 0; e < sweep.drafts.size(); ++e) {
      SavedWork& work = *sweep.record.mutable_evaluations(static_cast<int>(e))->mutable_work();
      work.set_num_responses(sweep.drafts[e]->extent().units);
      if (spec.evaluations(static_cast<int>(e)).has_responses()) {
        work.mutable_generate_responses();
      }
    }
    *record.mutable_steering_sweep() = std::move(sweep.record);
    record.set_responses_per_shard(1);
    record.set_num_responses(1);
    VS_RETURN_IF_ERROR(CheckRecordSize(record));
    auto work = std::make_unique<SweepWork>(sources_, kinds_, context.tenant, std::move(record),
                                            *model, std::move(sweep.drafts));
    // What has no room at the end is told now.
    VS_RETURN_IF_ERROR(
        KeptFor(*model->engine, work->BytesOf(work->extent().units), /*can_wait=*/true).status());
    resolved.estimate = EstimateOfPoints(sweep.estimate, 1 + work->num_points());
    resolved.work = std::move(work);
    return resolved;
  }

  // There is no call.
  void Answered(const Spec&, const services::ResolvedWork&, const SweepWork&, const SweepOutcome&,
                const std::vector<store::Resource>&, google::protobuf::Empty&) const override {
    VS_CHECK(false);
  }
  absl::Status Replayed(const store::Resource&, google::protobuf::Empty&) const override {
    VS_CHECK(false);
  }

 private:
  static v1::Provenance ProvenanceOfSweep(const Spec& spec, const engine::ServedModel& model,
                                          const services::UsedResources& used) {
    v1::Provenance provenance = studies::ProvenanceOf(model, /*rendered_chat=*/true);
    services::UsedResources named;
    for (const auto& [name, digest] : used) {
      if (!absl::StartsWith(name, "artifacts/")) named[name] = digest;  // goes by its content
    }
    *provenance.mutable_inputs() = services::InputsOf(named);
    provenance.set_options(studies::RecordOfRequest(spec, {"model", "seed"}));
    provenance.add_seeds(spec.seed());
    return provenance;
  }

  static services::WorkEstimate EstimateOfPoints(const services::WorkEstimate& of_one,
                                                 int64_t points) {
    return {.tokens = points * of_one.tokens,
            .forwards = points * of_one.forwards,
            .bytes = points * of_one.bytes,
            .time = static_cast<double>(points) * of_one.time};
  }

  const Sources sources_;
  const SweepKinds kinds_;
};

}  // namespace

std::unique_ptr<services::Kind> SteeringSweep(const Sources& sources) {
  return std::make_unique<SteeringSweepKind>(sources);
}

}  // namespace valuescope::kinds
