#include "kinds/saved_neuron_test.h"

#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "kinds/attribution_target.h"
#include "services/request_codec.h"
#include "services/response_sets.h"

namespace valuescope::kinds {
namespace {

constexpr int kDefaultRandomSets = 100;
constexpr int kMostRandomSets = 1000;

absl::Status CheckAblation(const v1::TestNeuronsRequest& request) {
  if (!v1::AblationMode_IsValid(request.mode())) {
    return InvalidField("mode", "must be a value of AblationMode");
  }
  const bool scales = request.test() == v1::NEURON_TEST_SCALE;
  if (scales && request.mode() != v1::ABLATION_MODE_UNSPECIFIED) {
    return InvalidField("mode", "has no meaning for SCALE");
  }
  if (request.reference().empty()) return absl::OkStatus();
  if (!scales && request.mode() != v1::ABLATION_MODE_ZERO) return absl::OkStatus();
  return InvalidField("reference", "goes only with ABLATION_MODE_MEAN");
}

// The rows of all layers, [layers, width]. INVALID_ARGUMENT naming "reference".
absl::StatusOr<engine::SharedFloats> RowsOf(const studies::StoredVector& vector,
                                            const std::vector<int>& layers) {
  std::vector<float> rows;
  for (const int layer : layers) {
    const std::optional<int64_t> row = vector.RowOfLayer(layer);
    if (!row) return InvalidField("reference", absl::StrCat("has no row for layer ", layer));
    const auto numbers = vector.row(*row);
    rows.insert(rows.end(), numbers.begin(), numbers.end());
  }
  return std::make_shared<const std::vector<float>>(std::move(rows));
}

bool IsComplete(const SavedRanking& ranking) {
  const int ranked = ranking.ranked_blocks_size();
  return ranking.sizes_size() > 0 && ranked == ranking.ranked_indices_size() &&
         ranked == ranking.sizes(ranking.sizes_size() - 1);
}

}  // namespace

absl::Status CheckNeuronTestOptions(const v1::TestNeuronsRequest& request) {
  if (!v1::NeuronTest_IsValid(request.test())) {
    return InvalidField("test", "must be a value of NeuronTest");
  }
  const bool scales = request.test() == v1::NEURON_TEST_SCALE;
  if (scales != request.has_factor()) {
    return InvalidField("factor", scales ? "must be set for SCALE" : "goes only with SCALE");
  }
  if (!std::isfinite(static_cast<float>(request.factor()))) {
    return InvalidField("factor", "must be a finite float32 number", "OUT_OF_RANGE");
  }
  VS_RETURN_IF_ERROR(CheckAblation(request));
  if (request.random_sets() < 0 || request.random_sets() > kMostRandomSets) {
    return OutOfRange("random_sets", request.random_sets(), 0, kMostRandomSets);
  }
  VS_RETURN_IF_ERROR(CheckDisplayName("display_name", request.display_name()));
  return services::CheckJudge(request);
}

SavedNeuronTest ChoicesOf(const v1::TestNeuronsRequest& request) {
  SavedNeuronTest record;
  record.set_test(request.test() == v1::NEURON_TEST_UNSPECIFIED ? v1::NEURON_TEST_REMOVE
                                                                : request.test());
  record.set_factor(request.factor());
  if (record.test() != v1::NEURON_TEST_SCALE) {
    record.set_mode(request.mode() == v1::ABLATION_MODE_UNSPECIFIED ? v1::ABLATION_MODE_MEAN
                                                                    : request.mode());
  }
  if (request.has_tokens()) *record.mutable_tokens() = request.tokens();
  record.set_random_sets(request.has_random_sets() ? request.random_sets() : kDefaultRandomSets);
  record.set_seed(request.seed());
  return record;
}

std::vector<SavedRanking> RankingsOf(const SavedNeuronTest& record) {
  if (record.rankings_size() > 0) return {record.rankings().begin(), record.rankings().end()};
  SavedRanking only;
  *only.mutable_ranked_blocks() = record.ranked_blocks();
  *only.mutable_ranked_indices() = record.ranked_indices();
  *only.mutable_sizes() = record.sizes();
  return {std::move(only)};
}

void PutRankings(std::vector<SavedRanking> rankings, SavedNeuronTest& record) {
  if (!rankings[0].label().empty()) {
    record.mutable_rankings()->Assign(rankings.begin(), rankings.end());
    return;
  }
  *record.mutable_ranked_blocks() = rankings[0].ranked_blocks();
  *record.mutable_ranked_indices() = rankings[0].ranked_indices();
  *record.mutable_sizes() = rankings[0].sizes();
}

absl::Status CheckComplete(const SavedNeuronTest& record) {
  const std::vector<SavedRanking> rankings = RankingsOf(record);
  const bool complete = record.layers_size() > 0 && record.passes_per_shard() > 0 &&
                        absl::c_all_of(rankings, IsComplete) &&
                        record.target().target_case() != v1::AttributionTarget::TARGET_NOT_SET &&
                        record.target().has_vector_projection() == !record.vector().empty();
  if (complete) return absl::OkStatus();
  return ErrorWithReason(absl::StatusCode::kDataLoss, "METADATA_DAMAGED",
                         "the stored spec of a job is damaged");
}

absl::StatusOr<studies::NeuronTestPlan> PlanOf(const SavedNeuronTest& record,
                                               const NamedVectors& vectors,
                                               const engine::ServedModel& model) {
  const int64_t context = model.architecture.max_positions;
  studies::NeuronTestPlan plan{.layers = {record.layers().begin(), record.layers().end()},
                               .test = record.test(),
                               .factor = static_cast<float>(record.factor()),
                               .to_mean = record.mode() == v1::ABLATION_MODE_MEAN,
                               .random_sets = record.random_sets(),
                               .seed = record.seed()};
  for (const SavedRanking& saved : RankingsOf(record)) {
    for (const int32_t size : saved.sizes()) {
      plan.sizes.push_back({.ranking = plan.rankings.size(), .size = size});
    }
    studies::TestedRanking& ranking = plan.rankings.emplace_back();
    ranking.label = saved.label();
    for (int i = 0; i < saved.ranked_blocks_size(); ++i) {
      ranking.neurons.push_back(
          {.block = saved.ranked_blocks(i), .index = saved.ranked_indices(i)});
    }
  }
  if (vectors.reference) {
    VS_ASSIGN_OR_RETURN(plan.reference, RowsOf(*vectors.reference, plan.layers));
  }
  VS_ASSIGN_OR_RETURN(plan.tokens, services::TokensFromProto("tokens", record.tokens(), context,
                                                             engine::TokenKind::kAllButFirst));
  VS_ASSIGN_OR_RETURN(
      plan.target,
      EngineTarget(record.target(), vectors.target ? &*vectors.target : nullptr, context));
  const auto& ids = record.target().continuation_logprob().continuation().token_ids().ids();
  plan.continuation.assign(ids.begin(), ids.end());
  return plan;
}

}  // namespace valuescope::kinds
