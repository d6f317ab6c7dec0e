#include "studies/neuron_test_plan.h"

#include <algorithm>

#include "base/check.h"

namespace valuescope::studies {

NeuronTestPasses::NeuronTestPasses(const NeuronTestPlan& plan,
                                   std::span<const LabelledResponse> responses)
    : has_empty_(plan.test != v1::NEURON_TEST_SCALE),
      needs_likeness_(plan.random_sets > 0),
      needs_reference_(has_empty_ && plan.to_mean && plan.reference == nullptr),
      has_others_(std::any_of(responses.begin(), responses.end(),
                              [](const LabelledResponse& each) { return !each.expresses; })),
      sets_per_size_(1 + plan.random_sets),
      num_conditions_((has_empty_ ? 2 : 1) +
                      static_cast<int64_t>(plan.sizes.size()) * sets_per_size_) {
  for (size_t i = 0; i < responses.size(); ++i) {
    const LabelledResponse& response = responses[i];
    const auto index = static_cast<int64_t>(i);
    const auto tokens =
        static_cast<int64_t>(response.prompt.size() + ResponseTokens(plan, response).size());
    if (response.expresses) {
      measured_.push_back(index);
      num_tokens_ += num_conditions_ * tokens;
    }
    if (IsReference(response) || IsLikeness(response)) {
      looked_at_.push_back(index);
      num_tokens_ += tokens;
    }
  }
  VS_CHECK(!measured_.empty());
}

bool NeuronTestPasses::IsReference(const LabelledResponse& response) const {
  return needs_reference_ && response.expresses != has_others_;
}

bool NeuronTestPasses::IsLikeness(const LabelledResponse& response) const {
  return needs_likeness_ && response.expresses;
}

int64_t NeuronTestPasses::num_passes() const {
  return num_conditions_ * static_cast<int64_t>(measured_.size());
}

int64_t NeuronTestPasses::ConditionOf(const SizeAndSet& set) const {
  return (has_empty_ ? 2 : 1) + static_cast<int64_t>(set.size) * sets_per_size_ + set.set;
}

NeuronTestPasses::SizeAndSet NeuronTestPasses::SetOf(int64_t condition) const {
  const int64_t among_sets = condition - (has_empty_ ? 2 : 1);
  return {.size = static_cast<size_t>(among_sets / sets_per_size_),
          .set = among_sets % sets_per_size_};
}

int64_t NeuronTestPasses::TogetherFrom(int64_t first) const {
  return std::min(kResponsesTogether, static_cast<int64_t>(measured_.size()) - first);
}

NeuronTestPasses::Pass NeuronTestPasses::At(int64_t pass) const {
  const int64_t first = pass / (num_conditions_ * kResponsesTogether) * kResponsesTogether;
  const int64_t together = TogetherFrom(first), within = pass - num_conditions_ * first;
  return {.condition = within / together, .response = first + within % together};
}

std::vector<double> NeuronTestPasses::OfCondition(std::span<const double> values,
                                                  int64_t condition) const {
  std::vector<double> own;
  const auto count = static_cast<int64_t>(measured_.size());
  for (int64_t first = 0; first < count; first += kResponsesTogether) {
    const int64_t together = TogetherFrom(first);
    const auto of_these =
        values.subspan(static_cast<size_t>(num_conditions_ * first + condition * together),
                       static_cast<size_t>(together));
    own.insert(own.end(), of_these.begin(), of_these.end());
  }
  return own;
}

const std::vector<int32_t>& ResponseTokens(const NeuronTestPlan& plan,
                                           const LabelledResponse& response) {
  const bool replaced = response.expresses && !plan.continuation.empty();
  return replaced ? plan.continuation : response.response;
}

}  // namespace valuescope::studies
