#include "studies/neuron_measures.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "analysis/inner_product.h"
#include "analysis/write_directions.h"
#include "base/error.h"
#include "base/host_tensor.h"
#include "base/number_bytes.h"
#include "base/status_macros.h"
#include "jobs/work.h"
#include "model/site.h"

namespace valuescope::studies {
namespace {

constexpr char kTestsMagic[] = "VSNTESTS";  // eight characters
constexpr size_t kTestsMagicSize = 8;
constexpr int64_t kSumsVersion = 1;
constexpr size_t kHeadSize = 7;

absl::Status WrongShape() {
  return ErrorWithReason(absl::StatusCode::kInternal, "CAPTURE_SHAPE",
                         "the engine returned a capture of another shape than asked for");
}

// `count` numbers from the front of `bytes`, which has them.
template <typename Number>
std::vector<Number> Take(size_t count, absl::string_view& bytes) {
  std::vector<Number> numbers(count);
  TakeNumbers(bytes, numbers);
  return numbers;
}

// Adds the magnitude of each element where `magnitudes`, which of a mean of magnitudes is itself.
absl::Status AddRow(const HostTensor& tensor, bool magnitudes, std::vector<double>& sums) {
  VS_ASSIGN_OR_RETURN(const std::vector<float> row, ToFloat32(tensor));
  if (sums.empty()) sums.assign(row.size(), 0.0);
  if (row.size() != sums.size()) return WrongShape();
  if (!analysis::AllFinite(row)) {
    return InvalidField("activations", "hold an element that is not finite", "NOT_FINITE");
  }
  for (size_t i = 0; i < row.size(); ++i) sums[i] += magnitudes ? std::abs(row[i]) : row[i];
  return absl::OkStatus();
}

// Of the captures that LookAt asks for.
absl::Status AddLook(const NeuronTestPasses& passes, const LabelledResponse& response,
                     const std::vector<engine::Capture>& captures, NeuronMeasures& measures) {
  const bool reference = passes.IsReference(response), likeness = passes.IsLikeness(response);
  if (captures.size() != (reference ? 1u : 0u) + (likeness ? 1u : 0u)) return WrongShape();
  if (reference) {
    VS_RETURN_IF_ERROR(AddRow(captures.front().tensor, /*magnitudes=*/false, measures.activations));
    ++measures.num_reference;
  }
  if (likeness) {
    VS_RETURN_IF_ERROR(AddRow(captures.back().tensor, /*magnitudes=*/true, measures.magnitudes));
    ++measures.num_likeness;
  }
  return absl::OkStatus();
}

}  // namespace

std::string NeuronTestSums::Serialize() const {
  const int64_t head[kHeadSize] = {kSumsVersion,
                                   measures.num_reference,
                                   measures.num_likeness,
                                   static_cast<int64_t>(measures.activations.size()),
                                   static_cast<int64_t>(measures.magnitudes.size()),
                                   static_cast<int64_t>(measures.norms.size()),
                                   static_cast<int64_t>(values.size())};
  return absl::StrCat(absl::string_view(kTestsMagic, kTestsMagicSize), BytesOfNumbers(head),
                      BytesOfNumbers(measures.activations), BytesOfNumbers(measures.magnitudes),
                      BytesOfNumbers(measures.norms), BytesOfNumbers(values));
}

absl::StatusOr<NeuronTestSums> NeuronTestSums::Parse(absl::string_view bytes, int64_t neurons) {
  int64_t head[kHeadSize];
  if (bytes.size() < kTestsMagicSize + sizeof(head) ||
      bytes.substr(0, kTestsMagicSize) != absl::string_view(kTestsMagic, kTestsMagicSize)) {
    return jobs::PartialDamaged();
  }
  bytes.remove_prefix(kTestsMagicSize);
  TakeNumbers(bytes, head);
  if (head[0] != kSumsVersion || head[1] < 0 || head[2] < 0) return jobs::PartialDamaged();
  for (const size_t list : {3, 4, 5}) {
    if (head[list] != 0 && head[list] != neurons) return jobs::PartialDamaged();
  }
  const auto most_values = static_cast<int64_t>(bytes.size() / sizeof(double));
  if (head[6] < 0 || head[6] > most_values) return jobs::PartialDamaged();
  const auto lists = std::span<const int64_t>(head).subspan(3);
  const auto size = static_cast<size_t>(lists[0] + lists[1] + lists[3]) * sizeof(double) +
                    static_cast<size_t>(lists[2]) * sizeof(float);
  if (bytes.size() != size) return jobs::PartialDamaged();
  NeuronTestSums sums;
  sums.measures.num_reference = head[1];
  sums.measures.num_likeness = head[2];
  sums.measures.activations = Take<double>(static_cast<size_t>(lists[0]), bytes);
  sums.measures.magnitudes = Take<double>(static_cast<size_t>(lists[1]), bytes);
  sums.measures.norms = Take<float>(static_cast<size_t>(lists[2]), bytes);
  sums.values = Take<double>(static_cast<size_t>(lists[3]), bytes);
  const bool finite = analysis::AllFinite(sums.measures.activations) &&
                      analysis::AllFinite(sums.measures.magnitudes) &&
                      analysis::AllFinite(sums.measures.norms) && analysis::AllFinite(sums.values);
  if (!finite) return jobs::PartialDamaged();
  return sums;
}

engine::Request LookAt(const LabelledResponse& response, const NeuronTestPlan& plan,
                       const NeuronTestPasses& passes) {
  engine::Request request;
  request.tenant = plan.tenant;
  request.background = plan.background;
  request.prompt = response.prompt;
  request.given_response = ResponseTokens(plan, response);
  engine::Tap tap{.site = model::Site::kMlpNeurons, .layers = plan.layers, .tokens = plan.tokens};
  if (passes.IsReference(response)) {
    tap.reduction = engine::Reduction::kMean;
    request.taps.push_back(tap);
  }
  if (passes.IsLikeness(response)) {
    tap.reduction = engine::Reduction::kMeanMagnitude;
    request.taps.push_back(tap);
  }
  return request;
}

absl::Status AddLooks(const NeuronTestRun& run, int64_t first, int64_t end,
                      NeuronMeasures& measures) {
  while (first < end) {
    const int64_t count = std::min(kResponsesTogether, end - first);
    const auto indices = std::span<const int64_t>(run.passes.looked_at())
                             .subspan(static_cast<size_t>(first), static_cast<size_t>(count));
    std::vector<engine::Request> requests;
    for (const int64_t index : indices) {
      requests.push_back(LookAt(run.responses[static_cast<size_t>(index)], run.plan, run.passes));
    }
    auto completions = engine::RunAll(run.engine, std::move(requests), run.cancellation);
    if (!completions.ok()) return InField("responses", completions.status());
    for (size_t i = 0; i < indices.size(); ++i) {
      engine::Completion& completion = (*completions)[i];
      VS_RETURN_IF_ERROR(AddLook(run.passes, run.responses[static_cast<size_t>(indices[i])],
                                 completion.captures, measures));
      completion.captures.clear();  // not twice in memory
      run.cached_tokens += completion.cached_prompt_tokens;
    }
    first += count;
  }
  return absl::OkStatus();
}

absl::Status MeasureNorms(const NeuronTestRun& run, NeuronMeasures& measures) {
  const model::Architecture& architecture = run.engine.architecture();
  for (const int layer : run.plan.layers) {
    VS_RETURN_IF_ERROR(CheckGoesOn(run.cancellation));
    VS_ASSIGN_OR_RETURN(const HostTensor weights, run.engine.WriteDirections(layer));
    VS_ASSIGN_OR_RETURN(const std::vector<double> squares,
                        analysis::SquaredColumnNorms({.columns = weights.As<float>(),
                                                      .hidden = architecture.hidden,
                                                      .intermediate = architecture.intermediate}));
    for (const double square : squares) {
      measures.norms.push_back(static_cast<float>(std::sqrt(square)));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<analysis::NeuronMatching> MatchingOf(const NeuronMeasures& measures,
                                                    int64_t intermediate) {
  std::vector<float> magnitudes;
  for (const double sum : measures.magnitudes) {
    magnitudes.push_back(static_cast<float>(sum / static_cast<double>(measures.num_likeness)));
  }
  const auto width = static_cast<size_t>(intermediate);
  const std::span<const float> norms(measures.norms), means(magnitudes);
  std::vector<analysis::NeuronTraits> traits;
  for (size_t first = 0; first < norms.size(); first += width) {
    traits.push_back(
        {.norms = norms.subspan(first, width), .magnitudes = means.subspan(first, width)});
  }
  return analysis::NeuronMatching::Of(traits);
}

}  // namespace valuescope::studies
