#include "analysis/decomposition.h"

#include <cmath>

#include "analysis/inner_product.h"
#include "base/error.h"
#include "tests/analysis/expected_values.h"

namespace valuescope::analysis {
namespace {

Decomposition MustDecompose(const std::vector<float>& intrinsic, const std::vector<float>& prompted,
                            const DecompositionOptions& options = {}) {
  auto result = Decompose({intrinsic, prompted}, options);
  EXPECT_TRUE(result.ok()) << result.status();
  return *std::move(result);
}

TEST(Decompose, EqualsNumpysSvdWithTheOrientationRule) {
  for (const nlohmann::json& expected : ExpectedValues()["decompositions"]) {
    const Decomposition result = MustDecompose(expected["intrinsic"], expected["prompted"],
                                               {.normalize_columns = expected["normalize"]});
    EXPECT_TRUE(result.warnings.empty());
    EXPECT_NEAR(result.shared_singular_value, expected["singular_values"][0], 1e-12);
    EXPECT_NEAR(result.difference_singular_value, expected["singular_values"][1], 1e-12);
    EXPECT_NEAR(result.shared_explained_share, expected["explained_share"], 1e-12);
    EXPECT_NEAR(result.cosine, expected["cosine"], 1e-12);
    EXPECT_NEAR(result.retained_norm_fraction, expected["retained"], 1e-12);
    const auto rows = [&](const char* name) { return expected[name].get<std::vector<double>>(); };
    ExpectAllNear(result.shared, rows("shared"), 1e-6);
    ExpectAllNear(result.difference, rows("difference"), 1e-6);
    ExpectAllNear(result.intrinsic_orthogonal, rows("intrinsic_orthogonal"), 1e-6);
    ExpectAllNear(result.prompted_orthogonal, rows("prompted_orthogonal"), 1e-6);
  }
}

TEST(Decompose, ClosedFormOfTheSingularValuesAndTheSharedAxis) {
  const std::vector<float> v_int = {3, 1, 0, 2};
  const std::vector<float> v_prompt = {1, 2, -1, 4};
  const double a = 14, b = 22, c = 13;
  const double root = std::sqrt((a - b) * (a - b) + 4 * c * c);
  const Decomposition result = MustDecompose(v_int, v_prompt);
  EXPECT_NEAR(std::pow(result.shared_singular_value, 2), (a + b + root) / 2, 1e-12);
  EXPECT_NEAR(std::pow(result.difference_singular_value, 2), (a + b - root) / 2, 1e-12);
  const double phi = std::atan2(2 * c, a - b) / 2;
  for (size_t i = 0; i < v_int.size(); ++i) {
    EXPECT_NEAR(
        result.shared[i],
        (std::cos(phi) * v_int[i] + std::sin(phi) * v_prompt[i]) / result.shared_singular_value,
        1e-6);
  }
}

TEST(Decompose, OrthogonalisedPartsAreOrthogonalAndIdempotent) {
  const std::vector<float> v_int = RandomNormal(64, 1);
  std::vector<float> v_prompt = RandomNormal(64, 2);
  for (size_t i = 0; i < v_int.size(); ++i) v_prompt[i] += 2 * v_int[i];
  const Decomposition once = MustDecompose(v_int, v_prompt);
  EXPECT_NEAR(InnerProduct(once.intrinsic_orthogonal, v_prompt), 0, 1e-5);
  EXPECT_NEAR(InnerProduct(once.prompted_orthogonal, v_int), 0, 1e-5);
  EXPECT_NEAR(Norm(once.intrinsic_orthogonal) / Norm(v_int), once.retained_norm_fraction, 1e-6);
  const Decomposition again = MustDecompose(once.intrinsic_orthogonal, v_prompt);
  ExpectAllNear(again.intrinsic_orthogonal, once.intrinsic_orthogonal, 1e-6);
}

TEST(Decompose, AxesAreOrthonormalAndSwapWithTheConditions) {
  const std::vector<float> v_int = {2, 1, 0.5};
  const std::vector<float> v_prompt = {1, 2, -0.5};
  const Decomposition result = MustDecompose(v_int, v_prompt);
  const Decomposition swapped = MustDecompose(v_prompt, v_int);
  EXPECT_NEAR(Norm(result.shared), 1, 1e-6);
  EXPECT_NEAR(Norm(result.difference), 1, 1e-6);
  EXPECT_NEAR(InnerProduct(result.shared, result.difference), 0, 1e-6);
  EXPECT_GT(InnerProduct(result.difference, v_int), 0);
  EXPECT_LT(InnerProduct(result.difference, v_prompt), 0);
  ExpectAllNear(swapped.shared, result.shared, 1e-6);
  std::vector<float> negated = result.difference;
  for (float& x : negated) x = -x;
  ExpectAllNear(swapped.difference, negated, 1e-6);
}

TEST(Decompose, RotationLeavesCosineAndSingularValuesUnchanged) {
  const std::vector<float> v_int = {2, 1, 0.5, 0, 1};
  const std::vector<float> v_prompt = {1, 2, -0.5, 1, 0};
  const Decomposition a = MustDecompose(v_int, v_prompt);
  const Decomposition b = MustDecompose(ToFloats(Rotate(v_int, 5)), ToFloats(Rotate(v_prompt, 5)));
  EXPECT_NEAR(a.cosine, b.cosine, 1e-6);
  EXPECT_NEAR(a.shared_singular_value, b.shared_singular_value, 1e-6);
  EXPECT_NEAR(a.difference_singular_value, b.difference_singular_value, 1e-6);
  ExpectAllNear(b.shared, Rotate(a.shared, 5), 1e-6);
}

TEST(Decompose, SmallSecondSingularValueKeepsItsDigits) {
  // The squares of the closed form lose s2 = 1e-5 / sqrt(2) to cancellation; the result must not.
  const Decomposition result = MustDecompose({1, 0}, {1, 1e-5f});
  EXPECT_TRUE(result.warnings.empty());
  EXPECT_NEAR(result.difference_singular_value / (1e-5 / std::sqrt(2.0)), 1.0, 1e-7);
  ExpectAllNear(result.difference, std::vector<double>{0, -1}, 1e-4);
}

TEST(Decompose, CollinearVectorsHaveNoDifferenceAxis) {
  const Decomposition result = MustDecompose({1, 2, 2}, {2, 4, 4});
  ASSERT_EQ(result.warnings.size(), 1u);
  EXPECT_EQ(result.warnings[0], DecompositionWarning::kCollinear);
  EXPECT_EQ(DecompositionWarningName(result.warnings[0]), "COLLINEAR");
  EXPECT_TRUE(result.difference.empty());
  EXPECT_NEAR(result.difference_singular_value, 0, 1e-12);
  EXPECT_NEAR(result.shared_singular_value, std::sqrt(45.0), 1e-12);
  ExpectAllNear(result.shared, std::vector<double>{1.0 / 3, 2.0 / 3, 2.0 / 3}, 1e-6);
}

TEST(Decompose, OppositeOrOrthogonalVectorsShareNothing) {
  for (const std::vector<float>& prompted : {std::vector<float>{-1, 1}, {0, 2}}) {
    const Decomposition result = MustDecompose({1, 0}, prompted);
    ASSERT_EQ(result.warnings.size(), 1u);
    EXPECT_EQ(DecompositionWarningName(result.warnings[0]), "SHARED_UNDEFINED");
  }
}

TEST(Decompose, StrictnessRefusesWhatWouldWarn) {
  const std::vector<float> v = {1, 2};
  const std::vector<float> opposite = {-1, -1};
  for (const std::vector<float>& prompted : {opposite, v}) {
    const auto result = Decompose({v, prompted}, {.strict = true});
    EXPECT_EQ(result.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(DetailsOf(result.status()).reason, "NO_SHARED_DIRECTION");
  }
  const std::vector<float> other = {2, 1};
  EXPECT_TRUE(Decompose({v, other}, {.strict = true}).ok());
}

TEST(Decompose, DisattenuatedCosineNeedsBothReliabilities) {
  const std::vector<float> v_int = {1, 0};
  const std::vector<float> v_prompt = {3, 4};
  EXPECT_NEAR(
      *MustDecompose(v_int, v_prompt, {.intrinsic_reliability = 0.5, .prompted_reliability = 0.8})
           .disattenuated_cosine,
      0.6 / std::sqrt(0.4), 1e-12);
  EXPECT_FALSE(MustDecompose(v_int, v_prompt, {.intrinsic_reliability = 0.5})
                   .disattenuated_cosine.has_value());
  EXPECT_FALSE(
      MustDecompose(v_int, v_prompt, {.intrinsic_reliability = 0.5, .prompted_reliability = -0.1})
          .disattenuated_cosine.has_value());
}

TEST(Decompose, BadInputIsRefusedByName) {
  const auto error_field = [](const std::vector<float>& a, const std::vector<float>& b) {
    return DetailsOf(Decompose({a, b}).status()).field;
  };
  EXPECT_EQ(error_field({}, {}), "intrinsic");
  EXPECT_EQ(error_field({1, 2}, {1}), "prompted");
  EXPECT_EQ(error_field({0, 0}, {1, 2}), "intrinsic");
  EXPECT_EQ(error_field({1, 2}, {1, INFINITY}), "prompted");
}

}  // namespace
}  // namespace valuescope::analysis
