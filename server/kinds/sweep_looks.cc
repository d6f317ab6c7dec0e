#include "kinds/sweep_looks.h"

#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/generated_responses.h"
#include "studies/labelled_responses.h"
#include "studies/neuron_measures.h"
#include "studies/neuron_test_plan.h"

namespace valuescope::kinds {
namespace {

int64_t NeuronsOf(const SavedSweep& sweep, int64_t intermediate) {
  return sweep.layers_size() * intermediate;
}

// Of the responses of some units those that have a token.
std::vector<studies::LabelledResponse> LookedAt(const ResponseInputs& inputs,
                                                const SavedResponses& responses,
                                                const jobs::UnitRange& units) {
  const std::vector<SavedResponse> of(responses.responses().begin() + units.first,
                                      responses.responses().begin() + units.end);
  studies::ResponseSet set = SetOf(*inputs.generation, units.first, of);
  for (studies::LabelledResponse& response : set.responses) response.expresses = true;
  return std::move(set.responses);
}

}  // namespace

absl::Status AddSweepLooks(const ResponseInputs& inputs, const SavedSweep& sweep,
                           const SavedResponses& responses, const jobs::UnitRange& units,
                           const Cancellation& cancellation, std::string& looks) {
  if (responses.responses_size() != inputs.generation->units()) return jobs::PartialDamaged();
  VS_ASSIGN_OR_RETURN(const auto model, inputs.Model());
  const int64_t neurons = NeuronsOf(sweep, model->architecture.intermediate);
  studies::NeuronTestSums sums;
  if (!looks.empty()) {
    VS_ASSIGN_OR_RETURN(sums, studies::NeuronTestSums::Parse(looks, neurons));
  }
  const std::vector<studies::LabelledResponse> looked_at = LookedAt(inputs, responses, units);
  const studies::NeuronTestPlan plan{
      .tenant = inputs.tenant,
      .background = inputs.background(),
      .layers = {sweep.layers().begin(), sweep.layers().end()},
      .test = v1::NEURON_TEST_SCALE,
      .tokens = {.kind = engine::TokenKind::kAllButFirst, .positions = {}},
      .random_sets = 1};
  const studies::NeuronTestPasses passes(plan, looked_at);
  int64_t cached_tokens = 0;
  const studies::NeuronTestRun run = {.engine = *model->engine,
                                      .responses = looked_at,
                                      .plan = plan,
                                      .passes = passes,
                                      .cancellation = cancellation,
                                      .cached_tokens = cached_tokens};
  VS_RETURN_IF_ERROR(
      studies::AddLooks(run, 0, static_cast<int64_t>(looked_at.size()), sums.measures));
  if (units.end == responses.responses_size()) {
    if (sums.measures.num_likeness == 0) {
      return ErrorWithReason(
          absl::StatusCode::kFailedPrecondition, "EMPTY_RESPONSES",
          "every response of the baseline is empty: no neuron is active in them");
    }
    VS_RETURN_IF_ERROR(studies::MeasureNorms(run, sums.measures));
  }
  looks = sums.Serialize();
  return absl::OkStatus();
}

absl::StatusOr<analysis::NeuronMatching> MatchingOf(const SavedSweep& sweep,
                                                    absl::string_view looks, int64_t intermediate) {
  VS_ASSIGN_OR_RETURN(const studies::NeuronTestSums sums,
                      studies::NeuronTestSums::Parse(looks, NeuronsOf(sweep, intermediate)));
  if (sums.measures.num_likeness == 0 || sums.measures.norms.empty()) {
    return jobs::PartialDamaged();
  }
  return studies::MatchingOf(sums.measures, intermediate);
}

}  // namespace valuescope::kinds
