#include "kinds/saved_model.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/error.h"
#include "jobs/job_kind.h"
#include "studies/provenance.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::kinds {
namespace {

absl::Status WrongModel(absl::string_view id, bool can_wait, absl::string_view why) {
  if (can_wait) return jobs::NotReady(absl::StrCat("`models/", id, "` ", why));
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "WRONG_MODEL",
                         absl::StrCat("models/", id, " ", why));
}

// For people: "FLOAT32, bitwise on cpu float32, x86_64 avx2".
std::string WayOf(const v1::Provenance& provenance) {
  absl::string_view dtype = v1::DataType_Name(provenance.compute_dtype());
  absl::ConsumePrefix(&dtype, "DATA_TYPE_");
  return absl::StrCat(dtype, ", ", provenance.determinism(), ", ", provenance.hardware_class());
}

}  // namespace

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
  if ((*model)->weights_digest != then.digest()) {
    return WrongModel(then.id(), can_wait, "has other weights than when the job was created");
  }
  // Numbers of two kinds would be mixed in one result, and its record would tell of one.
  const v1::Provenance now = studies::ProvenanceOf(**model, /*rendered_chat=*/false);
  const v1::Provenance& before = then.provenance();
  if (now.compute_dtype() == before.compute_dtype() && now.determinism() == before.determinism() &&
      now.hardware_class() == before.hardware_class()) {
    return model;
  }
  return WrongModel(then.id(), can_wait,
                    absl::StrCat("computes in another way (", WayOf(now),
                                 ") than when the job was created (", WayOf(before), ")"));
}

}  // namespace valuescope::kinds
