#include "studies/test_neurons.h"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <variant>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "analysis/causal_effect.h"
#include "analysis/statistics.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "model/site.h"
#include "studies/measured_target.h"

namespace valuescope::studies {
namespace {

// Of a neuron in a condition that is made ready: its index, its mean, factor and value of its row.
constexpr int64_t kBytesOfChange = 24;
// Conditions are made ready together as long as they take no more; one always is.
constexpr int64_t kMostReadyBytes = int64_t{16} << 20;
// Of a neuron: two sums and a norm, in memory and as stored; traits and reference.
constexpr int64_t kBytesOfMeasures = 2 * (2 * 8 + 4) + 4 * 4 + 4;
// Of a pass: its value, of a shard, of all and as stored.
constexpr int64_t kBytesOfPass = 3 * 8;
// Fewer random sets have no percentiles.
constexpr int64_t kFewestForPercentiles = 20;
constexpr int64_t kFewResponses = 10;

int64_t ConditionsTogether(int64_t neurons) {
  return std::max<int64_t>(1, kMostReadyBytes / (neurons * kBytesOfChange));
}

engine::Intervention Ablation(const NeuronTestPlan& plan, engine::ChosenNeurons neurons,
                              engine::SharedFloats means) {
  return {
      .site = model::Site::kMlpNeurons,
      .layers = plan.layers,
      .tokens = plan.tokens,
      .operation = engine::AblateNeurons{.neurons = std::move(neurons), .means = std::move(means)}};
}

engine::NeuronIndices AllNeurons(int64_t intermediate) {
  std::vector<int64_t> all(static_cast<size_t>(intermediate));
  std::iota(all.begin(), all.end(), int64_t{0});
  return all;
}

engine::Request PassOf(const LabelledResponse& response, const NeuronTestPlan& plan,
                       std::shared_ptr<const engine::PreparedInterventions> prepared) {
  engine::Request request;
  request.tenant = plan.tenant;
  request.background = plan.background;
  request.prompt = response.prompt;
  request.given_response = ResponseTokens(plan, response);
  request.prepared = std::move(prepared);
  AskForTarget(plan.target, request);
  return request;
}

// Null where the condition changes nothing.
absl::StatusOr<std::shared_ptr<const engine::PreparedInterventions>> Ready(
    const engine::Engine& engine, std::vector<engine::Intervention> interventions) {
  if (interventions.empty()) return nullptr;
  return engine.Prepare(std::move(interventions));
}

// What the engine says of response `index` in words of the request. `tap` is what the only kind of
// taps there is in the engine's request reads.
absl::Status InWordsOfRequest(const absl::Status& status, size_t index, absl::string_view tap) {
  absl::Status named = WithFieldRenamed(status, "interventions[0].tokens", "tokens");
  for (const absl::string_view each : {"taps[0].tokens", "taps[1].tokens"}) {
    named = WithFieldRenamed(named, each, tap);
  }
  const std::string field = DetailsOf(named).field;
  const bool of_response = absl::StartsWith(field, "prompt") || absl::StartsWith(field, "given");
  return of_response ? InField(absl::StrCat("responses[", index, "]"), named) : named;
}

double Mean(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// How the random sets of a size compare with the ranking's first, whose effect is `effect`.
void AddRandomSets(const NeuronTestPlan& plan, const NeuronTestPasses& passes,
                   std::span<const double> values, size_t size, double effect,
                   v1::NeuronTestPoint& point) {
  const std::vector<double> full = passes.OfCondition(values, NeuronTestPasses::kFull);
  std::vector<double> effects, targets;
  for (int64_t set = 1; set <= plan.random_sets; ++set) {
    const std::vector<double> random =
        passes.OfCondition(values, passes.ConditionOf({.size = size, .set = set}));
    effects.push_back(analysis::EffectOf(full, random).mean);
    targets.push_back(Mean(random));
  }
  point.set_random_mean(Mean(targets));
  if (plan.random_sets >= kFewestForPercentiles) {
    point.set_random_lower(*analysis::Quantile(targets, .025));
    point.set_random_upper(*analysis::Quantile(targets, .975));
  }
  point.set_p_value(*(plan.test == v1::NEURON_TEST_KEEP_ONLY
                          ? analysis::ShareAsSmall(effect, effects)
                          : analysis::ShareAsLarge(effect, effects)));
}

v1::NeuronTestPoint PointOf(const NeuronTestPlan& plan, const NeuronTestPasses& passes,
                            std::span<const double> values, size_t size) {
  const auto of = [&](int64_t condition) { return passes.OfCondition(values, condition); };
  const std::vector<double> full = of(NeuronTestPasses::kFull);
  const std::vector<double> ranked = of(passes.ConditionOf({.size = size, .set = 0}));
  const analysis::PairedEffect effect = analysis::EffectOf(full, ranked);
  v1::NeuronTestPoint point;
  point.set_size(plan.sizes[size].size);
  point.set_target(Mean(ranked));
  if (effect.standard_error) point.set_standard_error(*effect.standard_error);
  if (plan.test == v1::NEURON_TEST_KEEP_ONLY) {
    const std::vector<double> empty = of(NeuronTestPasses::kEmpty);
    const analysis::PairedEffect whole = analysis::EffectOf(empty, full);
    if (!whole.WithinNoise()) {
      point.set_faithfulness(analysis::EffectOf(empty, ranked).mean / whole.mean);
    }
  }
  if (plan.random_sets > 0) AddRandomSets(plan, passes, values, size, effect.mean, point);
  return point;
}

// Of a ranking, those in blocks that the target does not hear of.
int64_t NumBehindTarget(const NeuronTestPlan& plan, const TestedRanking& ranking) {
  const auto* projection = std::get_if<engine::ProjectionTarget>(&plan.target);
  if (projection == nullptr) return 0;
  return std::count_if(ranking.neurons.begin(), ranking.neurons.end(),
                       [&](const analysis::PlacedNeuron& neuron) {
                         return plan.layers[neuron.block] > projection->layer;
                       });
}

void WarnOfAll(const NeuronTestPlan& plan, const v1::NeuronTestPoint& point,
               v1::TestNeuronsResponse& response) {
  if (response.num_responses() < kFewResponses) {
    response.add_warnings(
        absl::StrCat("only ", response.num_responses(), " responses: the effects are noisy"));
  }
  if (plan.test == v1::NEURON_TEST_KEEP_ONLY && !point.has_faithfulness()) {
    response.add_warnings(
        "the target with all neurons and with none differ by no more than noise, so faithfulness "
        "is unset");
  }
}

using Points = google::protobuf::RepeatedPtrField<v1::NeuronTestPoint>;

void WarnOf(const NeuronTestPlan& plan, const TestedRanking& ranking, const Points& points,
            v1::TestNeuronsResponse& response) {
  const std::string of = ranking.label.empty() ? "" : absl::StrCat(ranking.label, ": ");
  if (const int64_t unread = NumBehindTarget(plan, ranking); unread > 0) {
    response.add_warnings(absl::StrCat(of, unread,
                                       " of the neurons stand in blocks behind the one "
                                       "where the target is read, and can change nothing of it"));
  }
  for (const v1::NeuronTestPoint& point : points) {
    if (point.num_unmatched() == 0) continue;
    response.add_warnings(absl::StrCat(of, "of the first ", point.size(), " neurons ",
                                       point.num_unmatched(),
                                       " have too few others like them, so random sets of this "
                                       "size are not quite like these neurons"));
  }
}

}  // namespace

absl::StatusOr<NeuronConditions> NeuronConditions::Of(const NeuronTestPlan& plan,
                                                      const NeuronTestPasses& passes,
                                                      const NeuronMeasures& measures,
                                                      int64_t intermediate) {
  NeuronConditions conditions;
  conditions.plan_ = &plan;
  conditions.passes_ = &passes;
  conditions.all_ = AllNeurons(intermediate);
  if (plan.to_mean) conditions.reference_ = plan.reference;
  if (measures.num_reference > 0) {
    std::vector<float> means;
    for (const double sum : measures.activations) {
      means.push_back(static_cast<float>(sum / static_cast<double>(measures.num_reference)));
    }
    conditions.reference_ = std::make_shared<const std::vector<float>>(std::move(means));
  }
  if (plan.random_sets == 0) return conditions;
  VS_ASSIGN_OR_RETURN(conditions.matching_, MatchingOf(measures, intermediate));
  return conditions;
}

analysis::MatchedSet NeuronConditions::RandomSet(const NeuronTestPasses::SizeAndSet& set) const {
  // The draw is that of the ranking alone: beside others its random sets are the same.
  const auto size = static_cast<uint64_t>(plan_->sizes[set.size].size);
  return matching_->Draw(
      plan_->First(set.size),
      {.seed = plan_->seed, .draw = size << 32 | static_cast<uint64_t>(set.set)});
}

NeuronConditions::ByLayer NeuronConditions::NeuronsOf(
    const NeuronTestPasses::SizeAndSet& set) const {
  std::vector<analysis::PlacedNeuron> neurons;
  if (set.set > 0) {
    neurons = RandomSet(set).neurons;
  } else {
    const auto first = plan_->First(set.size);
    neurons.assign(first.begin(), first.end());
  }
  ByLayer by_layer(plan_->layers.size());
  for (const analysis::PlacedNeuron& neuron : neurons) {
    by_layer[static_cast<size_t>(neuron.block)].push_back(neuron.index);
  }
  for (std::vector<int64_t>& indices : by_layer) std::sort(indices.begin(), indices.end());
  return by_layer;
}

engine::NeuronIndices NeuronConditions::AllBut(const std::vector<int64_t>& neurons) const {
  if (neurons.empty()) return all_;
  std::vector<int64_t> others;
  std::set_difference(all_.begin(), all_.end(), neurons.begin(), neurons.end(),
                      std::back_inserter(others));
  return others;
}

std::vector<engine::Intervention> NeuronConditions::InterventionsOf(int64_t condition) const {
  if (condition == NeuronTestPasses::kFull) return {};
  if (passes_->has_empty() && condition == NeuronTestPasses::kEmpty) {
    return {Ablation(*plan_, engine::ChosenNeurons(plan_->layers.size(), all_), reference_)};
  }
  engine::ChosenNeurons changed;
  bool any = false;
  for (std::vector<int64_t>& neurons : NeuronsOf(passes_->SetOf(condition))) {
    changed.push_back(plan_->test == v1::NEURON_TEST_KEEP_ONLY
                          ? AllBut(neurons)
                          : engine::NeuronIndices(std::move(neurons)));
    any = any || !changed.back().empty();
  }
  if (!any) return {};  // all are kept
  engine::Intervention intervention = Ablation(*plan_, std::move(changed), reference_);
  if (plan_->test == v1::NEURON_TEST_SCALE) {
    auto& ablated = std::get<engine::AblateNeurons>(intervention.operation);
    intervention.operation =
        engine::ScaleNeurons{.neurons = std::move(ablated.neurons), .factor = plan_->factor};
  }
  return {std::move(intervention)};
}

absl::StatusOr<int64_t> NeuronConditions::NumUnmatched(size_t size,
                                                       const Cancellation& cancellation) const {
  int64_t most = 0;
  for (int64_t set = 1; set <= plan_->random_sets; ++set) {
    VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
    most = std::max(most, RandomSet({.size = size, .set = set}).num_unmatched);
  }
  return most;
}

absl::Status CheckNeuronTest(engine::Engine& engine, std::span<const LabelledResponse> responses,
                             const NeuronTestPlan& plan, const NeuronTestPasses& passes,
                             const Cancellation& cancellation) {
  const int64_t width = engine.architecture().intermediate;
  const int64_t neurons = static_cast<int64_t>(plan.layers.size()) * width;
  VS_RETURN_IF_ERROR(
      engine.CheckInterventionBytes(neurons * 2 * static_cast<int64_t>(sizeof(float))));
  // No condition changes more than all neurons.
  VS_ASSIGN_OR_RETURN(auto memory, engine.TakeRequestMemory(neurons * kBytesOfChange));
  VS_ASSIGN_OR_RETURN(
      const auto prepared,
      engine.Prepare({Ablation(plan, engine::ChosenNeurons(plan.layers.size(), AllNeurons(width)),
                               /*means=*/nullptr)},
                     std::move(memory)));
  // But for the ids, which are tokens of the model by now, all depends on the lengths.
  std::set<std::tuple<size_t, size_t, bool>> checked;
  for (size_t i = 0; i < responses.size(); ++i) {
    VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
    const LabelledResponse& response = responses[i];
    const size_t length = ResponseTokens(plan, response).size();
    if (!checked.emplace(response.prompt.size(), length, response.expresses).second) continue;
    if (passes.IsReference(response) || passes.IsLikeness(response)) {
      VS_RETURN_IF_ERROR(
          InWordsOfRequest(engine.Check(LookAt(response, plan, passes)), i, "tokens"));
    }
    if (!response.expresses) continue;
    VS_RETURN_IF_ERROR(
        InWordsOfRequest(engine.Check(PassOf(response, plan, prepared)), i, "target.tokens"));
  }
  return absl::OkStatus();
}

absl::Status AddPasses(const NeuronTestRun& run, const NeuronConditions& conditions, int64_t first,
                       int64_t end, std::vector<double>& values) {
  const auto layers = static_cast<int64_t>(run.plan.layers.size());
  const int64_t most = ConditionsTogether(layers * run.engine.architecture().intermediate);
  while (first < end) {
    VS_RETURN_IF_ERROR(CheckGoesOn(run.cancellation));
    std::vector<engine::Request> requests;
    std::shared_ptr<const engine::PreparedInterventions> prepared;
    int64_t condition = -1, ready = 0;
    for (; first < end; ++first) {
      const NeuronTestPasses::Pass pass = run.passes.At(first);
      if (pass.condition != condition) {
        if (ready == most) break;
        condition = pass.condition;
        VS_ASSIGN_OR_RETURN(prepared, Ready(run.engine, conditions.InterventionsOf(condition)));
        ++ready;
      }
      const int64_t response = run.passes.measured()[static_cast<size_t>(pass.response)];
      requests.push_back(PassOf(run.responses[static_cast<size_t>(response)], run.plan, prepared));
    }
    auto completions = engine::RunAll(run.engine, std::move(requests), run.cancellation);
    if (!completions.ok()) return InField("responses", completions.status());
    for (const engine::Completion& completion : *completions) {
      VS_ASSIGN_OR_RETURN(const double value, TargetIn(run.plan.target, completion));
      values.push_back(value);
      run.cached_tokens += completion.cached_prompt_tokens;
    }
  }
  return absl::OkStatus();
}

int64_t NeuronTestBytes(const NeuronTestPasses& passes, int64_t neurons) {
  return (passes.looked_at().empty() ? 0 : neurons * kBytesOfMeasures) +
         passes.num_passes() * kBytesOfPass +
         std::min(ConditionsTogether(neurons), passes.num_conditions()) * neurons * kBytesOfChange;
}

absl::StatusOr<v1::TestNeuronsResponse> SummariseNeuronTest(const NeuronTestPlan& plan,
                                                            const NeuronTestPasses& passes,
                                                            const NeuronConditions& conditions,
                                                            std::span<const double> values,
                                                            const Cancellation& cancellation) {
  const auto mean_of = [&](int64_t condition) {
    return Mean(passes.OfCondition(values, condition));
  };
  v1::TestNeuronsResponse response;
  response.set_full(mean_of(NeuronTestPasses::kFull));
  if (passes.has_empty()) response.set_empty(mean_of(NeuronTestPasses::kEmpty));
  response.set_num_responses(static_cast<int64_t>(passes.measured().size()));
  std::vector<Points> points(plan.rankings.size());
  for (size_t size = 0; size < plan.sizes.size(); ++size) {
    v1::NeuronTestPoint& point = *points[plan.sizes[size].ranking].Add();
    point = PointOf(plan, passes, values, size);
    VS_ASSIGN_OR_RETURN(const int64_t unmatched, conditions.NumUnmatched(size, cancellation));
    point.set_num_unmatched(static_cast<int32_t>(unmatched));
  }
  WarnOfAll(plan, points[0][0], response);
  for (size_t i = 0; i < points.size(); ++i) {
    const TestedRanking& ranking = plan.rankings[i];
    WarnOf(plan, ranking, points[i], response);
    if (ranking.label.empty()) {
      *response.mutable_points() = std::move(points[i]);
      continue;
    }
    v1::RankingTest& told = *response.add_rankings();
    told.set_label(ranking.label);
    *told.mutable_points() = std::move(points[i]);
  }
  return response;
}

}  // namespace valuescope::studies
