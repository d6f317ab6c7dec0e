// What kinds of EvaluationWork have in common beside the work: how they are found again, and what
// they leave. Left by a job: "summary", JSON of the response with the provenance, nothing of time
// or place; the job's own summary is the same without the list that has an entry for every item.
#ifndef VALUESCOPE_KINDS_EVALUATION_KIND_H_
#define VALUESCOPE_KINDS_EVALUATION_KIND_H_

#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/check.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "kinds/evaluation_request.h"
#include "kinds/evaluation_work.h"
#include "kinds/response_work.h"
#include "kinds/sources.h"
#include "nlohmann/json.hpp"
#include "services/idempotency.h"
#include "services/kind.h"
#include "services/model_needs.h"
#include "services/result_codec.h"
#include "services/study_codec.h"
#include "studies/json_fields.h"
#include "studies/message_json.h"
#include "studies/provenance.h"

namespace valuescope::kinds {

template <typename Response>
class EvaluationOutcome : public jobs::Outcome {
 public:
  // `per_item` is the field of each of the results that has an entry for every item.
  EvaluationOutcome(Response found, const char* per_item)
      : result(std::move(found)), per_item_(per_item) {}

  absl::StatusOr<std::vector<store::Resource>> Resources(store::BlobStore&) const override {
    return std::vector<store::Resource>();
  }

  absl::StatusOr<std::vector<jobs::ArtifactDraft>> Artifacts(
      store::BlobStore& blobs) const override {
    std::vector<jobs::ArtifactDraft> artifacts;
    VS_ASSIGN_OR_RETURN(artifacts.emplace_back(),
                        MakeSummary(blobs, Described(), result.provenance()));
    return artifacts;
  }

  std::string Summary(const std::vector<store::Resource>&) const override {
    nlohmann::json head = Described();
    for (nlohmann::json& one : head["results"]) one.erase(per_item_);
    return studies::DumpJson(head);
  }

  const Response result;  // with its provenance; without what it cost, and digests

 private:
  nlohmann::json Described() const {
    Response without = result;
    without.clear_provenance();
    nlohmann::json described = studies::MessageToJson(without);
    described["format_version"] = 1;
    return described;
  }

  const char* const per_item_;
};

template <typename Request, typename Response, typename Work>
class EvaluationKind
    : public services::KindOf<Request, Response, Work, EvaluationOutcome<Response>> {
 public:
  EvaluationKind(const Sources& sources, SavedWork::KindCase kind)
      : sources_(sources), kind_(kind) {}

  absl::Status Readiness(absl::string_view needs) const final {
    return services::CheckNeeds(*sources_.models, needs);
  }

  absl::StatusOr<std::unique_ptr<jobs::Work>> Open(absl::string_view tenant,
                                                   absl::string_view spec) final {
    VS_ASSIGN_OR_RETURN(EvaluationInputs inputs,
                        EvaluationInputs::Open(sources_, tenant, spec, kind_));
    VS_ASSIGN_OR_RETURN(const auto model, inputs.Model());
    VS_ASSIGN_OR_RETURN(engine::KeptCaptures memory,
                        MemoryFor(inputs, *model->engine, /*can_wait=*/false));
    return WorkOf(std::move(inputs), *model, std::move(memory));
  }

 protected:
  virtual absl::StatusOr<std::unique_ptr<Work>> WorkOf(EvaluationInputs inputs,
                                                       const engine::ServedModel& model,
                                                       engine::KeptCaptures memory) const = 0;

  // Work over what was written, whose record has the kind's own field. `items` is the field of the
  // request that holds them inline.
  absl::StatusOr<services::ResolvedWork> ResolvedOf(const Request& request,
                                                    EvaluationWriter::Written written,
                                                    absl::string_view items,
                                                    services::UsedResources used) const {
    services::ResolvedWork resolved;
    EvaluationInputs& inputs = written.inputs;
    const auto model = inputs.held;
    v1::Provenance& provenance = *inputs.record.mutable_provenance();
    provenance = studies::ProvenanceOf(*model, /*rendered_chat=*/true);
    *provenance.mutable_inputs() = services::InputsOf(used, request.artifact());
    v1::ResourceDigest& digest = *provenance.add_inputs();
    digest.set_name(std::string(items));
    digest.set_digest(Sha256Hex(services::DeterministicBytes(inputs.items)));
    provenance.set_options(
        studies::RecordOfRequest(request, {"model", items, "artifact", "display_name"}));
    resolved.used = std::move(used);
    resolved.estimate = written.estimate;
    resolved.needs = services::NeedOfModel(*model);
    VS_ASSIGN_OR_RETURN(resolved.work,
                        WorkOf(std::move(inputs), *model, std::move(written.memory)));
    return resolved;
  }

  void Answered(const Request&, const services::ResolvedWork& resolved, const Work& work,
                const EvaluationOutcome<Response>& outcome, const std::vector<store::Resource>&,
                Response& response) const final {
    response = outcome.result;
    *response.mutable_usage() = work.usage();
    services::AddDigests(*work.inputs().held, resolved.used, response.mutable_digests());
  }

  // Nothing is left of which a second answer could be made, and requests have no request_id.
  absl::Status Replayed(const store::Resource&, Response&) const final { VS_CHECK(false); }

  const Sources sources_;

 private:
  const SavedWork::KindCase kind_;
};

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_EVALUATION_KIND_H_
