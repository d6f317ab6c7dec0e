#include "kinds/saved_model.h"

#include "base/error.h"
#include "jobs/job_kind.h"
#include "services/model_needs.h"
#include "studies/provenance.h"

namespace valuescope::kinds {

SavedModel SavedModelOf(const engine::ServedModel& model) {
  SavedModel saved;
  saved.set_id(model.id);
  saved.set_digest(model.weights_digest);
  *saved.mutable_provenance() = studies::ProvenanceOf(model, /*rendered_chat=*/false);
  return saved;
}

absl::StatusOr<std::shared_ptr<const engine::ServedModel>> ModelAsThen(
    const engine::ModelRegistry& models, const SavedModel& then, bool can_wait) {
  auto model = models.Get(then.id());
  if (!model.ok()) return jobs::NotReady(model.status().message());
  // Numbers of two kinds would be mixed in one result, and its record would tell of one.
  const absl::Status same = services::CheckNeed(
      **model, services::NeedOfModel(then.id(), then.digest(), then.provenance()));
  if (same.ok()) return model;
  if (can_wait) return same;
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "WRONG_MODEL", same.message());
}

}  // namespace valuescope::kinds
