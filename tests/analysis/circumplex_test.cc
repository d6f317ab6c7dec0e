#include "analysis/circumplex.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "analysis/statistics.h"
#include "base/error.h"
#include "tests/analysis/expected_values.h"

namespace valuescope::analysis {
namespace {

using ::testing::HasSubstr;

const std::vector<std::string> kTenValues(kSchwartzValues.begin(), kSchwartzValues.end());
// One of each domain.
const std::vector<std::string> kFourValues = {"hedonism", "power", "security", "universalism"};

std::vector<CircumplexPlace> MustPlace(const std::vector<std::string>& values,
                                       CircumplexAngles angles) {
  auto places = CircumplexPlaces(values, angles);
  EXPECT_TRUE(places.ok()) << places.status();
  return *std::move(places);
}

// One unit vector of three elements a value, at `degrees` of a plane.
std::vector<float> OnACircle(const std::vector<int>& degrees) {
  std::vector<float> axes;
  for (const int angle : degrees) {
    const double radians = angle * std::numbers::pi / 180;
    for (const double element : {0.6 * std::cos(radians), 0.8, 0.6 * std::sin(radians)}) {
      axes.push_back(static_cast<float>(element));
    }
  }
  return axes;
}

std::vector<std::span<const float>> RowsOf(const std::vector<float>& axes, size_t width) {
  std::vector<std::span<const float>> rows;
  for (size_t i = 0; i < axes.size(); i += width) rows.push_back(std::span(axes).subspan(i, width));
  return rows;
}

std::vector<double> MustSimulate(const std::vector<CircumplexPlace>& places,
                                 const CircumplexNullOptions& options) {
  auto null = SimulateCircumplexNull(places, options, Cancellation());
  EXPECT_TRUE(null.ok()) << null.status();
  return *std::move(null);
}

double MeanOf(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

TEST(Circumplex, EqualsNumpy) {
  for (const nlohmann::json& expected : ExpectedValues()["circumplexes"]) {
    const auto axes = expected["axes"].get<std::vector<float>>();
    const CircumplexFitter fitter(
        MustPlace(expected["values"], static_cast<CircumplexAngles>(expected["angles"])));
    const auto fit = fitter.Fit(RowsOf(axes, expected["width"]));
    ASSERT_TRUE(fit.has_value());
    const double r_squared = expected["r_squared"], share = expected["share"];
    EXPECT_NEAR(fit->r_squared / r_squared, 1, 1e-9);
    EXPECT_NEAR(fit->plane_variance / share, 1, 1e-9);
    EXPECT_TRUE(fit->plane_determined);
    EXPECT_NEAR(fit->permutation_p_value, expected["permutation_p_value"], 1e-12);
    std::vector<double> points;
    for (const auto& point : fit->points) points.insert(points.end(), point.begin(), point.end());
    ExpectAllNear(points, expected["points"].get<std::vector<double>>(), 1e-9);
  }
}

// numpy draws whole vectors, the server only what their inner products need.
TEST(CircumplexNull, IsThatOfRandomDirectionsOfTheWidth) {
  for (const nlohmann::json& expected : ExpectedValues()["circumplexes"]) {
    const auto places =
        MustPlace(expected["values"], static_cast<CircumplexAngles>(expected["angles"]));
    constexpr int kSamples = 20000;
    const std::vector<double> null =
        MustSimulate(places, {.width = expected["width"], .samples = kSamples, .seed = 1});
    // numpy's error with 4000 samples, ours with five times as many.
    const double error = static_cast<double>(expected["null_mean_error"]) * std::sqrt(1.2);
    EXPECT_NEAR(MeanOf(null), expected["null_mean"], 4 * error);
    const double percentile = *Quantile(null, 0.95);
    EXPECT_GT(percentile, expected["null_below_95th"]);
    EXPECT_LT(percentile, expected["null_above_95th"]);
  }
}

// Directions of one dimension are 1 or -1: points that are all one fit nothing, one apart 1/3, two
// neighbours apart 1/2, two opposite ones nothing.
TEST(CircumplexNull, OfOneDimensionIsANumber) {
  const auto places = MustPlace(kFourValues, CircumplexAngles::kFourDomains);
  for (const double r_squared : MustSimulate(places, {.width = 1, .samples = 400, .seed = 1})) {
    const double nearest = r_squared < 0.2 ? 0 : r_squared < 0.4 ? 1.0 / 3 : 0.5;
    EXPECT_NEAR(r_squared, nearest, 1e-12);
  }
}

TEST(CircumplexNull, FollowsFromTheSeedAlone) {
  const auto places = MustPlace(kTenValues, CircumplexAngles::kNine);
  const CircumplexNullOptions options = {.width = 64, .samples = 300, .seed = 5};
  const std::vector<double> null = MustSimulate(places, options);
  EXPECT_EQ(null.size(), 300u);
  EXPECT_TRUE(std::is_sorted(null.begin(), null.end()));
  EXPECT_EQ(null, MustSimulate(places, options));
  EXPECT_NE(null, MustSimulate(places, {.width = 64, .samples = 300, .seed = 6}));
}

TEST(CircumplexNull, EndsWhenTheWorkIsCancelled) {
  Cancellation cancellation;
  cancellation.Cancel();
  const auto null = SimulateCircumplexNull(MustPlace(kTenValues, CircumplexAngles::kTen),
                                           {.width = 8}, cancellation);
  EXPECT_EQ(null.status().code(), absl::StatusCode::kCancelled);
}

TEST(Circumplex, ACircleInOrderFitsWholly) {
  const std::vector<int> ten = {0, 36, 72, 108, 144, 180, 216, 252, 288, 324};
  const std::vector<int> nine = {0, 40, 80, 120, 160, 200, 240, 240, 280, 320};
  for (const auto& [angles, degrees] :
       {std::pair(CircumplexAngles::kTen, ten), std::pair(CircumplexAngles::kNine, nine)}) {
    std::vector<int> turned_and_reflected;
    for (const int angle : degrees) turned_and_reflected.push_back(77 - angle);
    for (const std::vector<int>& at : {degrees, turned_and_reflected}) {
      const CircumplexFitter fitter(MustPlace(kTenValues, angles));
      const std::vector<float> axes = OnACircle(at);
      const auto fit = fitter.Fit(RowsOf(axes, 3));
      ASSERT_TRUE(fit.has_value());
      EXPECT_NEAR(fit->r_squared, 1, 1e-6);
      EXPECT_NEAR(fit->plane_variance, 1, 1e-6);
      EXPECT_DOUBLE_EQ(fit->permutation_p_value,
                       1 / static_cast<double>(fitter.distinct_permutations()));
      for (size_t i = 0; i < degrees.size(); ++i) {
        const double radians = degrees[i] * std::numbers::pi / 180;
        EXPECT_NEAR(fit->points[i][0], std::cos(radians), 1e-6);
        EXPECT_NEAR(fit->points[i][1], std::sin(radians), 1e-6);
      }
    }
  }
}

// A noise-free circle at unequal angles: least squares is on the true ones, spacing is not assumed.
TEST(Circumplex, SomeOfTheValuesFitAtTheirOwnAngles) {
  const CircumplexFitter fitter(MustPlace(
      {"self-direction", "stimulation", "achievement", "security"}, CircumplexAngles::kTen));
  const std::vector<float> axes = OnACircle({0, 36, 108, 180});
  const auto fit = fitter.Fit(RowsOf(axes, 3));
  ASSERT_TRUE(fit.has_value());
  EXPECT_NEAR(fit->r_squared, 1, 1e-6);
  EXPECT_EQ(fitter.distinct_permutations(), 24);
  EXPECT_DOUBLE_EQ(fit->permutation_p_value, 1.0 / 24);
}

// The square 0, 1, 3, 2: of the two singular values 2 of X^T T one is left, R^2 = 2^2 / (4 * 4).
TEST(Circumplex, TwoOfFourExchangedLeaveOneQuarter) {
  const CircumplexFitter fitter(MustPlace(kFourValues, CircumplexAngles::kFourDomains));
  const std::vector<float> axes = OnACircle({0, 90, 270, 180});
  const auto fit = fitter.Fit(RowsOf(axes, 3));
  ASSERT_TRUE(fit.has_value());
  EXPECT_NEAR(fit->r_squared, 0.25, 1e-6);
  // Itself and the other wrong order are as good; the right one is better.
  EXPECT_DOUBLE_EQ(fit->permutation_p_value, 1);
}

TEST(Circumplex, ValuesOfADomainAreAveraged) {
  const auto places = MustPlace(kTenValues, CircumplexAngles::kFourDomains);
  ASSERT_EQ(places.size(), 4u);
  EXPECT_EQ(places[0].name, "openness to change");
  EXPECT_EQ(places[2].degrees, 180);
  EXPECT_EQ(places[2].members, (std::vector<size_t>{5, 6, 7}));
  // Each domain's values around its own angle.
  const std::vector<float> axes = OnACircle({-20, 0, 20, 80, 100, 160, 180, 200, 265, 275});
  const CircumplexFitter fitter(places);
  const auto fit = fitter.Fit(RowsOf(axes, 3));
  ASSERT_TRUE(fit.has_value());
  EXPECT_GT(fit->r_squared, 0.99);
  EXPECT_DOUBLE_EQ(fit->permutation_p_value, 1.0 / 3);
}

TEST(Circumplex, RotationLeavesTheFitUnchanged) {
  std::vector<float> axes = RandomNormal(10 * 16, 9);
  for (size_t i = 0; i < axes.size(); i += 16) {
    double squares = 0;
    for (size_t k = 0; k < 16; ++k) squares += static_cast<double>(axes[i + k]) * axes[i + k];
    for (size_t k = 0; k < 16; ++k) axes[i + k] /= static_cast<float>(std::sqrt(squares));
  }
  const std::vector<float> turned = ToFloats(Rotate(axes, 16));
  const CircumplexFitter fitter(MustPlace(kTenValues, CircumplexAngles::kTen));
  const auto straight = fitter.Fit(RowsOf(axes, 16)), rotated = fitter.Fit(RowsOf(turned, 16));
  ASSERT_TRUE(straight.has_value() && rotated.has_value());
  EXPECT_NEAR(rotated->r_squared, straight->r_squared, 1e-5);
  EXPECT_NEAR(rotated->plane_variance, straight->plane_variance, 1e-5);
  EXPECT_NEAR(rotated->permutation_p_value, straight->permutation_p_value, 1e-3);
}

TEST(Circumplex, PointsThatAreAllOneHaveNoFit) {
  const CircumplexFitter fitter(MustPlace(kFourValues, CircumplexAngles::kTen));
  const std::vector<float> axes = OnACircle({50, 50, 50, 50});
  EXPECT_FALSE(fitter.Fit(RowsOf(axes, 3)).has_value());
}

TEST(Circumplex, ALineOfPointsIsFittedAndEquallyFarPointsAreSaidToHaveManyPlanes) {
  const CircumplexFitter fitter(MustPlace(kFourValues, CircumplexAngles::kFourDomains));
  const std::vector<float> line = OnACircle({0, 0, 180, 180});
  const auto of_line = fitter.Fit(RowsOf(line, 3));
  ASSERT_TRUE(of_line.has_value());
  EXPECT_NEAR(of_line->r_squared, 0.5, 1e-6);
  EXPECT_FALSE(of_line->plane_determined);
  const std::vector<float> simplex = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
  const auto of_simplex = fitter.Fit(RowsOf(simplex, 4));
  ASSERT_TRUE(of_simplex.has_value());
  EXPECT_FALSE(of_simplex->plane_determined);
  EXPECT_NEAR(of_simplex->plane_variance, 2.0 / 3, 1e-12);
}

TEST(DistinctAssignments, LeaveOutWhatSymmetryMakesEqual) {
  const auto count = [](const std::vector<std::string>& values, CircumplexAngles angles) {
    return DistinctAssignments(MustPlace(values, angles)).size();
  };
  EXPECT_EQ(count(kFourValues, CircumplexAngles::kFourDomains), 3u);
  EXPECT_EQ(count(kTenValues, CircumplexAngles::kTen), 181440u);  // 10! / 20
  // Only the exchange of conformity and tradition and the mirror image that keeps their place.
  EXPECT_EQ(count(kTenValues, CircumplexAngles::kNine), 907200u);  // 10! / 4
  // 0, 36, 72 and 108 degrees: only the mirror image is equal.
  EXPECT_EQ(
      count({"self-direction", "stimulation", "hedonism", "achievement"}, CircumplexAngles::kTen),
      12u);
  const auto four = DistinctAssignments(MustPlace(kFourValues, CircumplexAngles::kFourDomains));
  EXPECT_EQ(four.front(), (Assignment{0, 1, 2, 3}));
}

TEST(CircumplexPlaces, RefusesByNameWhatIsNotOnTheCircle) {
  const auto refusal = [](const std::vector<std::string>& values, CircumplexAngles angles) {
    return CircumplexPlaces(values, angles).status();
  };
  const absl::Status few = refusal({"power", "security", "hedonism"}, CircumplexAngles::kTen);
  EXPECT_EQ(DetailsOf(few).field, "pairs");
  EXPECT_THAT(few.message(), HasSubstr("universalism"));
  const absl::Status unknown =
      refusal({"power", "Security", "hedonism", "tradition"}, CircumplexAngles::kTen);
  EXPECT_EQ(DetailsOf(unknown).field, "pairs[1].value");
  EXPECT_THAT(unknown.message(), HasSubstr("self-direction, stimulation, hedonism"));
  const absl::Status twice =
      refusal({"power", "security", "hedonism", "power"}, CircumplexAngles::kTen);
  EXPECT_EQ(DetailsOf(twice).field, "pairs[3].value");
  EXPECT_THAT(twice.message(), HasSubstr("pairs[0].value"));
  const absl::Status empty =
      refusal({"power", "security", "hedonism", "tradition"}, CircumplexAngles::kFourDomains);
  EXPECT_EQ(DetailsOf(empty).field, "circumplex.angles");
  EXPECT_THAT(empty.message(), HasSubstr("self-transcendence"));
}

}  // namespace
}  // namespace valuescope::analysis
