#include "kinds/attribution_target.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "model/site.h"
#include "services/prompt_codec.h"

namespace valuescope::kinds {
namespace {

constexpr char kProjection[] = "target.vector_projection";
constexpr char kDifference[] = "target.token_logit_difference";

absl::Status CheckIds(absl::string_view field, const google::protobuf::RepeatedField<int32_t>& ids,
                      const engine::ServedModel& model) {
  const int64_t vocabulary = model.architecture.vocabulary;
  for (int i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < vocabulary) continue;
    return OutOfRange(absl::StrCat(field, "[", i, "]"), ids[i], 0,
                      static_cast<double>(vocabulary - 1));
  }
  return absl::OkStatus();
}

absl::Status CheckDifference(const v1::TokenLogitDifferenceTarget& target,
                             const engine::ServedModel& model) {
  const std::string positive = absl::StrCat(kDifference, ".positive_token_ids");
  if (target.positive_token_ids().empty()) return InvalidField(positive, "must name a token");
  VS_RETURN_IF_ERROR(CheckIds(positive, target.positive_token_ids(), model));
  return CheckIds(absl::StrCat(kDifference, ".negative_token_ids"), target.negative_token_ids(),
                  model);
}

absl::Status ResolveContinuation(const engine::ServedModel& model,
                                 v1::ContinuationLogprobTarget& target) {
  if (!target.has_continuation()) return absl::OkStatus();
  constexpr char kField[] = "target.continuation_logprob.continuation";
  VS_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                      services::ResponseFromProto(kField, target.continuation(), model));
  if (ids.empty()) return InvalidField(kField, "must have a token");
  target.mutable_continuation()->mutable_token_ids()->mutable_ids()->Assign(ids.begin(), ids.end());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ResolvedTarget> ResolveTarget(const v1::AttributionTarget& target,
                                             const engine::ServedModel& model,
                                             const rpc::CallContext& context,
                                             const Sources& sources,
                                             services::UsedResources& used) {
  ResolvedTarget resolved{.record = target, .vector = {}, .vector_id = {}};
  switch (target.target_case()) {
    case v1::AttributionTarget::TARGET_NOT_SET:
      return InvalidField("target", "must be set");
    case v1::AttributionTarget::kTokenLogitDifference:
      VS_RETURN_IF_ERROR(CheckDifference(target.token_logit_difference(), model));
      return resolved;
    case v1::AttributionTarget::kContinuationLogprob:
      VS_RETURN_IF_ERROR(
          ResolveContinuation(model, *resolved.record.mutable_continuation_logprob()));
      return resolved;
    case v1::AttributionTarget::kVectorProjection:
      break;
  }
  const v1::VectorProjectionTarget& projection = target.vector_projection();
  if (!projection.has_layer()) {
    return InvalidField(absl::StrCat(kProjection, ".layer"), "must be set");
  }
  const std::string field = absl::StrCat(kProjection, ".vector");
  VS_ASSIGN_OR_RETURN(resolved.vector,
                      UsableVectorOfName(context, field, projection.vector(),
                                         model::Site::kResidualPost, model, sources, used));
  if (!resolved.vector->RowOfLayer(projection.layer())) {
    return InvalidField(field, absl::StrCat("has no row for layer ", projection.layer()));
  }
  VS_ASSIGN_OR_RETURN(resolved.vector_id,
                      services::IdOfName(field, "vectors", projection.vector()));
  return resolved;
}

absl::StatusOr<engine::NeuronTarget> EngineTarget(const v1::AttributionTarget& record,
                                                  const studies::StoredVector* vector,
                                                  int64_t context) {
  if (record.has_vector_projection()) {
    const v1::VectorProjectionTarget& projection = record.vector_projection();
    engine::ProjectionTarget target{.layer = projection.layer()};
    const auto row = vector->row(*vector->RowOfLayer(projection.layer()));
    target.vector = std::make_shared<const std::vector<float>>(row.begin(), row.end());
    VS_ASSIGN_OR_RETURN(
        target.tokens,
        services::TokensFromProto(absl::StrCat(kProjection, ".tokens"), projection.tokens(),
                                  context, engine::TokenKind::kResponse));
    return target;
  }
  if (!record.has_token_logit_difference()) return engine::ResponseLogprobTarget{};
  const v1::TokenLogitDifferenceTarget& difference = record.token_logit_difference();
  engine::LogitDifferenceTarget target;
  target.positive.assign(difference.positive_token_ids().begin(),
                         difference.positive_token_ids().end());
  target.negative.assign(difference.negative_token_ids().begin(),
                         difference.negative_token_ids().end());
  VS_ASSIGN_OR_RETURN(target.tokens, services::TokensFromProto(absl::StrCat(kDifference, ".tokens"),
                                                               difference.tokens(), context,
                                                               engine::TokenKind::kLastPrompt));
  return target;
}

absl::Status TargetNamedAsAsked(const v1::AttributionTarget& record, const absl::Status& status) {
  const std::string target = record.has_vector_projection() ? kProjection : kDifference;
  absl::Status named = WithFieldRenamed(status, "target.tokens", target + ".tokens");
  named = WithFieldRenamed(named, "target.positive", target + ".positive_token_ids");
  return WithFieldRenamed(named, "target.negative", target + ".negative_token_ids");
}

}  // namespace valuescope::kinds
