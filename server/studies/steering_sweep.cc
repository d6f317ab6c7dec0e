#include "studies/steering_sweep.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"

namespace valuescope::studies {
namespace {

// The best of some points by an objective.
class Best {
 public:
  explicit Best(const v1::SweepObjective& objective) : objective_(&objective) {}

  // Whether one value is at least as good as another.
  static bool IsAsGood(const v1::SweepObjective& objective, double one, double other) {
    return objective.minimise() ? one <= other : one >= other;
  }

  void Add(const v1::SweepPoint& point) {
    ++num_points;
    if (!point.passes()) return;
    ++num_passing;
    const std::optional<double> found =
        SweepValue(point, objective_->evaluation(), objective_->measure());
    if (!found || (value && IsAsGood(*objective_, *value, *found))) return;
    value = found;
    name = point.name();
  }

  std::optional<double> value;  // absent where no point passes
  std::string name;
  int64_t num_points = 0;
  int64_t num_passing = 0;

 private:
  const v1::SweepObjective* objective_;
};

v1::SweepSelection SelectionOf(const v1::SweepObjective& objective, const std::string& subject,
                               const Best& own, std::span<const Best> random) {
  v1::SweepSelection selection;
  selection.set_subject(subject);
  selection.set_num_points(own.num_points);
  selection.set_num_passing(own.num_passing);
  selection.set_num_random(static_cast<int64_t>(random.size()));
  if (own.value) {
    selection.set_point(own.name);
    selection.set_value(*own.value);
  }
  double sum = 0;
  int64_t as_good = 0;
  for (const Best& one : random) {
    if (!one.value) continue;
    selection.add_random_values(*one.value);
    sum += *one.value;
    as_good += own.value && Best::IsAsGood(objective, *one.value, *own.value);
  }
  const int passing = selection.random_values_size();
  selection.set_num_random_passing(passing);
  if (passing > 0) selection.set_random_mean(sum / passing);
  if (own.value && !random.empty()) {
    selection.set_p_value(static_cast<double>(1 + as_good) /
                          static_cast<double>(1 + random.size()));
  }
  return selection;
}

}  // namespace

std::optional<double> SweepValue(const v1::SweepPoint& point, absl::string_view evaluation,
                                 absl::string_view measure) {
  for (const v1::SweepMeasure& one : point.measures()) {
    if (one.evaluation() != evaluation || one.measure() != measure) continue;
    if (!one.has_value()) return std::nullopt;
    return one.value();
  }
  return std::nullopt;
}

void ApplyGuard(const SweepBounds& guard, const v1::SweepPoint& baseline, v1::SweepPoint& point) {
  point.clear_failed_bounds();
  for (const v1::SweepBound& bound : guard) {
    const auto value = SweepValue(point, bound.evaluation(), bound.measure());
    const auto base = SweepValue(baseline, bound.evaluation(), bound.measure());
    const auto check = [&](bool given, absl::string_view name, bool kept) {
      if (!given || kept) return;
      point.add_failed_bounds(absl::StrCat(bound.evaluation(), " ", bound.measure(), " ", name));
    };
    check(bound.has_at_least(), "at_least", value && *value >= bound.at_least());
    check(bound.has_at_most(), "at_most", value && *value <= bound.at_most());
    const bool both = value && base;
    check(bound.has_ratio_at_least(), "ratio_at_least",
          both && *value >= bound.ratio_at_least() * *base);
    check(bound.has_ratio_at_most(), "ratio_at_most",
          both && *value <= bound.ratio_at_most() * *base);
    check(bound.has_drop_at_most(), "drop_at_most", both && *base - *value <= bound.drop_at_most());
    check(bound.has_rise_at_most(), "rise_at_most", both && *value - *base <= bound.rise_at_most());
  }
  point.set_passes(point.failed_bounds().empty());
}

std::vector<v1::SweepSelection> SelectPoints(const v1::SweepObjective& objective,
                                             std::span<const std::string> subjects, int num_random,
                                             std::span<const v1::SweepPoint> points) {
  struct Bests {
    Best own;
    std::vector<Best> random;
  };
  std::map<std::string, Bests> bests;
  for (const std::string& subject : subjects) {
    bests.emplace(subject, Bests{.own = Best(objective),
                                 .random = std::vector<Best>(static_cast<size_t>(num_random),
                                                             Best(objective))});
  }
  for (const v1::SweepPoint& point : points) {
    Bests& of = bests.at(point.subject());
    (point.has_random() ? of.random[static_cast<size_t>(point.random())] : of.own).Add(point);
  }
  std::vector<v1::SweepSelection> selected;
  for (const std::string& subject : subjects) {
    const Bests& of = bests.at(subject);
    selected.push_back(SelectionOf(objective, subject, of.own, of.random));
  }
  return selected;
}

}  // namespace valuescope::studies
