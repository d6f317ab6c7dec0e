#include "services/classification_request.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "model/site.h"
#include "services/stored_vectors.h"

namespace valuescope::services {
namespace {

// Columns of a neuron, as numbers, as they are stored, and where they are sorted.
constexpr int64_t kNeuronMemory = 64;

absl::Status CheckRange(absl::string_view field, double value, double above, double highest) {
  if (value > above && value <= highest) return absl::OkStatus();
  return InvalidField(
      field, absl::StrCat("is ", value, ", allowed are numbers above ", above, " up to ", highest),
      "OUT_OF_RANGE");
}

}  // namespace

absl::StatusOr<NamedClassification> ClassificationOf(const rpc::CallContext& context,
                                                     const v1::ClassifyNeuronsRequest& request,
                                                     const engine::ServedModel& model,
                                                     store::Store& store, store::BlobStore& blobs,
                                                     UsedResources& used) {
  NamedClassification named;
  studies::ClassificationPlan& plan = named.plan;
  if (request.has_top_percent()) plan.geometry.top_percent = request.top_percent();
  if (request.has_max_angle()) plan.geometry.max_angle_degrees = request.max_angle();
  VS_RETURN_IF_ERROR(CheckRange("top_percent", plan.geometry.top_percent, 0, 100));
  VS_RETURN_IF_ERROR(CheckRange("max_angle", plan.geometry.max_angle_degrees, 0, 45));
  plan.geometry.admit_negative_shared = request.admit_negative_shared();
  plan.geometry.rank_by_relative_norm = request.rank_by_relative_norm();
  plan.strict = request.strict();

  std::string first_field = "vectors.intrinsic", second_field = "vectors.prompted";
  std::string first_name = request.vectors().intrinsic(),
              second_name = request.vectors().prompted();
  if (request.has_axes()) {
    plan.source = studies::AxesSource::kAxes;
    first_field = "axes.shared", second_field = "axes.difference";
    first_name = request.axes().shared(), second_name = request.axes().difference();
  } else if (!request.has_vectors()) {
    return InvalidField("vectors", "or axes must be given");
  }
  plan.normalize_columns = request.vectors().normalize_columns();
  VS_ASSIGN_OR_RETURN(named.first,
                      HeldVectorOfName(context, first_field, first_name, {}, store, blobs, used));
  VS_ASSIGN_OR_RETURN(named.second,
                      HeldVectorOfName(context, second_field, second_name, {}, store, blobs, used));
  constexpr model::Site kSite = model::Site::kResidualPost;
  VS_RETURN_IF_ERROR(studies::CheckUsable(named.first, model, kSite, first_field));
  VS_RETURN_IF_ERROR(studies::CheckUsable(named.second, model, kSite, second_field));
  VS_ASSIGN_OR_RETURN(plan.layers,
                      LayersOfVectors(request.has_layers() ? &request.layers() : nullptr,
                                      {&named.first, &named.second}));
  VS_RETURN_IF_ERROR(context.Hold(static_cast<int64_t>(plan.layers.size()) *
                                  model.architecture.intermediate * kNeuronMemory));
  return named;
}

}  // namespace valuescope::services
