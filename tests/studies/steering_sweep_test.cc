// Guard, selection and null of sweeps, against what their definitions say, written out here.
#include "studies/steering_sweep.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <string>
#include <vector>

namespace valuescope::studies {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

v1::SweepPoint PointWith(std::optional<double> value, const std::string& subject = "a") {
  v1::SweepPoint point;
  point.set_subject(subject);
  v1::SweepMeasure& measure = *point.add_measures();
  measure.set_evaluation("e");
  measure.set_measure("m");
  if (value) measure.set_value(*value);
  // Of other evaluations.
  v1::SweepMeasure& other = *point.add_measures();
  other.set_evaluation("other");
  other.set_measure("m");
  other.set_value(-1e9);
  return point;
}

v1::SweepBound Bound() {
  v1::SweepBound bound;
  bound.set_evaluation("e");
  bound.set_measure("m");
  return bound;
}

std::vector<std::string> Broken(const v1::SweepBound& bound, std::optional<double> value,
                                std::optional<double> base) {
  SweepBounds guard;
  *guard.Add() = bound;
  v1::SweepPoint point = PointWith(value);
  point.add_failed_bounds("of before");
  ApplyGuard(guard, PointWith(base), point);
  EXPECT_EQ(point.passes(), point.failed_bounds().empty());
  return {point.failed_bounds().begin(), point.failed_bounds().end()};
}

TEST(SweepGuard, EachBoundHoldsUpToItsNumberAndNamesItselfBeyond) {
  v1::SweepBound bound = Bound();
  bound.set_at_least(.5);
  EXPECT_THAT(Broken(bound, .5, 1), IsEmpty());
  EXPECT_THAT(Broken(bound, .49, 1), ElementsAre("e m at_least"));
  bound = Bound();
  bound.set_at_most(.5);
  EXPECT_THAT(Broken(bound, .5, 1), IsEmpty());
  EXPECT_THAT(Broken(bound, .51, 1), ElementsAre("e m at_most"));
  bound = Bound();
  bound.set_ratio_at_least(.5);
  EXPECT_THAT(Broken(bound, 2, 4), IsEmpty());
  EXPECT_THAT(Broken(bound, 1.9, 4), ElementsAre("e m ratio_at_least"));
  bound = Bound();
  bound.set_ratio_at_most(1.5);
  EXPECT_THAT(Broken(bound, 6, 4), IsEmpty());
  EXPECT_THAT(Broken(bound, 6.1, 4), ElementsAre("e m ratio_at_most"));
  bound = Bound();
  bound.set_drop_at_most(.25);
  EXPECT_THAT(Broken(bound, .5, .75), IsEmpty());
  EXPECT_THAT(Broken(bound, 2, .75), IsEmpty());
  EXPECT_THAT(Broken(bound, .49, .75), ElementsAre("e m drop_at_most"));
  bound = Bound();
  bound.set_rise_at_most(.25);
  EXPECT_THAT(Broken(bound, 1, .75), IsEmpty());
  EXPECT_THAT(Broken(bound, 1.1, .75), ElementsAre("e m rise_at_most"));
}

TEST(SweepGuard, BoundsOfZeroCount) {
  v1::SweepBound bound = Bound();
  bound.set_drop_at_most(0);
  bound.set_at_least(0);
  EXPECT_THAT(Broken(bound, .5, .5), IsEmpty());
  EXPECT_THAT(Broken(bound, -.1, .5), ElementsAre("e m at_least", "e m drop_at_most"));
}

TEST(SweepGuard, WhatCannotBeToldBreaksEveryBoundOnIt) {
  v1::SweepBound bound = Bound();
  bound.set_at_most(5);
  bound.set_ratio_at_most(9);
  EXPECT_THAT(Broken(bound, std::nullopt, 1), ElementsAre("e m at_most", "e m ratio_at_most"));
  // Without a baseline only what is relative to it.
  EXPECT_THAT(Broken(bound, 1, std::nullopt), ElementsAre("e m ratio_at_most"));
}

TEST(SweepGuard, WithoutBoundsEveryPointPasses) {
  v1::SweepPoint point = PointWith(std::nullopt);
  ApplyGuard({}, PointWith(1), point);
  EXPECT_TRUE(point.passes());
}

// --- Selection -----------------------------------------------------------------------------------

struct Drawn {
  std::vector<v1::SweepPoint> points;
  std::vector<std::string> subjects;
  int num_random = 0;
};

// Values of few kinds, so that some are equal; some unknown, many that do not pass.
Drawn DrawPoints(uint64_t seed) {
  std::mt19937_64 random(seed);
  Drawn drawn{.points = {}, .subjects = {"b", "a"}, .num_random = static_cast<int>(random() % 5)};
  for (const std::string& subject : drawn.subjects) {
    for (int r = -1; r < drawn.num_random; ++r) {
      for (int i = 0; i < 4; ++i) {
        std::optional<double> value;
        if (random() % 5 != 0) value = static_cast<double>(random() % 6) / 4;
        v1::SweepPoint& point = drawn.points.emplace_back(PointWith(value, subject));
        point.set_name(subject + std::to_string(r) + "/" + std::to_string(i));
        point.set_passes(random() % 3 != 0);
        if (r >= 0) point.set_random(r);
      }
    }
  }
  return drawn;
}

// The best of a subject's own points (r = -1) or of a random one's, by looking at all.
const v1::SweepPoint* BestOf(const Drawn& drawn, const std::string& subject, int r, bool minimise) {
  const v1::SweepPoint* best = nullptr;
  for (const v1::SweepPoint& point : drawn.points) {
    const bool here = point.subject() == subject && (point.has_random() ? point.random() : -1) == r;
    if (!here || !point.passes() || !point.measures(0).has_value()) continue;
    const double value = point.measures(0).value();
    if (best == nullptr ||
        (minimise ? value < best->measures(0).value() : value > best->measures(0).value())) {
      best = &point;
    }
  }
  return best;
}

TEST(SweepSelection, IsTheBestPassingPointBesideTheBestsOfRandomOnes) {
  int64_t none = 0, some_random = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    const Drawn drawn = DrawPoints(seed);
    v1::SweepObjective objective;
    objective.set_evaluation("e");
    objective.set_measure("m");
    objective.set_minimise(seed % 2 == 1);
    const auto selected = SelectPoints(objective, drawn.subjects, drawn.num_random, drawn.points);
    ASSERT_EQ(selected.size(), 2u);
    for (size_t s = 0; s < 2; ++s) {
      const std::string& subject = drawn.subjects[s];
      const v1::SweepSelection& one = selected[s];
      EXPECT_EQ(one.subject(), subject);
      EXPECT_EQ(one.num_points(), 4);
      const v1::SweepPoint* own = BestOf(drawn, subject, -1, objective.minimise());
      ASSERT_EQ(one.has_point(), own != nullptr);
      ASSERT_EQ(one.has_value(), own != nullptr);
      none += own == nullptr;
      if (own != nullptr) {
        EXPECT_EQ(one.point(), own->name());
        EXPECT_EQ(one.value(), own->measures(0).value());
      }
      std::vector<double> bests;
      for (int r = 0; r < drawn.num_random; ++r) {
        const v1::SweepPoint* best = BestOf(drawn, subject, r, objective.minimise());
        if (best != nullptr) bests.push_back(best->measures(0).value());
      }
      EXPECT_EQ(std::vector<double>(one.random_values().begin(), one.random_values().end()), bests);
      EXPECT_EQ(one.num_random(), drawn.num_random);
      EXPECT_EQ(one.num_random_passing(), bests.size());
      EXPECT_EQ(one.has_random_mean(), !bests.empty());
      ASSERT_EQ(one.has_p_value(), own != nullptr && drawn.num_random > 0);
      if (!one.has_p_value()) continue;
      ++some_random;
      int as_good = 0;
      for (const double best : bests) {
        as_good += objective.minimise() ? best <= one.value() : best >= one.value();
      }
      EXPECT_EQ(one.p_value(), (1. + as_good) / (1. + drawn.num_random));
    }
  }
  EXPECT_GT(none, 5);
  EXPECT_GT(some_random, 300);
}

}  // namespace
}  // namespace valuescope::studies
