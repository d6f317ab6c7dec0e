#include "analysis/decomposition.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "analysis/inner_product.h"
#include "analysis/vector_cosines.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::analysis {
namespace {

absl::Status CheckNonZeroVector(std::span<const float> vector, size_t width,
                                absl::string_view field) {
  VS_RETURN_IF_ERROR(CheckVector(vector, width, field));
  if (Norm(vector) == 0) return InvalidField(field, "must not be zero", "ZERO_VECTOR");
  return absl::OkStatus();
}

// x - (<x, y> / <y, y>) y.  [width]
std::vector<double> Orthogonalize(std::span<const float> x, std::span<const float> y) {
  const double along = InnerProduct(x, y) / InnerProduct(y, y);
  std::vector<double> rest(x.size());
  for (size_t i = 0; i < x.size(); ++i) rest[i] = static_cast<double>(x[i]) - along * y[i];
  // Once more: a small rest of nearly parallel vectors still holds the first pass's rounding.
  const double residual_along = InnerProduct(rest, y) / InnerProduct(y, y);
  for (size_t i = 0; i < x.size(); ++i) rest[i] -= residual_along * y[i];
  return rest;
}

std::vector<float> ToFloat(const std::vector<double>& values) {
  return std::vector<float>(values.begin(), values.end());
}

// cos * e1 + sin * e2 for orthonormal e1 and e2 [width].
std::vector<double> InPlane(const std::vector<double>& e1, const std::vector<double>& e2,
                            double cosine, double sine) {
  std::vector<double> out(e1.size());
  for (size_t i = 0; i < e1.size(); ++i) out[i] = cosine * e1[i] + sine * e2[i];
  return out;
}

void Negate(std::vector<double>& values) {
  for (double& value : values) value = -value;
}

std::vector<double> Unit(std::vector<double> values) {
  const double norm = Norm(values);
  for (double& value : values) value /= norm;
  return values;
}

// Singular vectors of two columns by a rotation within their plane. In the orthonormal basis e1
// along v_int and e2 along what v_prompt has beside it, the columns are (a, 0) and (b c, b s) with
// c, s the cosine and sine of their angle; the left singular vectors are e1, e2 turned by theta,
// tan(2 theta) = 2 b^2 c s / (a^2 + b^2 c^2 - b^2 s^2).
void DecomposeInPlane(const VectorPair& pair, const std::vector<double>& prompted_rest,
                      double intrinsic_length, double prompted_length, double sine, bool collinear,
                      Decomposition& out) {
  const double a = intrinsic_length;
  const double b = prompted_length;
  const double c = out.cosine;
  const double theta =
      0.5 * std::atan2(2 * b * b * c * sine, a * a + b * b * c * c - b * b * sine * sine);
  // The determinant a b s, over s1, keeps the digits of s2 that the difference of squares loses.
  const double discriminant = std::hypot(a * a - b * b, 2 * a * b * c);
  out.shared_singular_value = std::sqrt((a * a + b * b + discriminant) / 2);
  out.difference_singular_value = a * b * sine / out.shared_singular_value;
  const double s1_squared = out.shared_singular_value * out.shared_singular_value;
  const double s2_squared = out.difference_singular_value * out.difference_singular_value;
  out.shared_explained_share = s1_squared / (s1_squared + s2_squared);

  const std::vector<double> e1 = Unit({pair.intrinsic.begin(), pair.intrinsic.end()});
  const std::vector<double> e2 = collinear ? e1 : Unit(prompted_rest);
  // Inner products with the columns follow from the plane's coordinates.
  const double shared_on_sum =
      std::cos(theta) * (a + b * c) + (collinear ? 0 : std::sin(theta) * b * sine);
  std::vector<double> shared = collinear ? e1 : InPlane(e1, e2, std::cos(theta), std::sin(theta));
  if (shared_on_sum < 0) Negate(shared);
  out.shared = ToFloat(shared);
  if (collinear) return;

  std::vector<double> difference = InPlane(e1, e2, -std::sin(theta), std::cos(theta));
  const double difference_on_difference =
      -std::sin(theta) * (a - b * c) + std::cos(theta) * (-b * sine);
  if (difference_on_difference < 0) Negate(difference);
  out.difference = ToFloat(difference);
}

}  // namespace

absl::Status CheckVector(std::span<const float> vector, size_t width, absl::string_view field) {
  if (vector.empty() || vector.size() != width) {
    return InvalidField(field, absl::StrCat("has ", vector.size(), " elements, must have ",
                                            std::max<size_t>(width, 1)));
  }
  if (!AllFinite(vector)) return InvalidField(field, "must be finite", "NOT_FINITE");
  return absl::OkStatus();
}

absl::string_view DecompositionWarningName(DecompositionWarning warning) {
  switch (warning) {
    case DecompositionWarning::kCollinear:
      return "COLLINEAR";
    case DecompositionWarning::kSharedUndefined:
      return "SHARED_UNDEFINED";
  }
  return "UNKNOWN";
}

absl::StatusOr<Decomposition> Decompose(const VectorPair& pair,
                                        const DecompositionOptions& options) {
  VS_RETURN_IF_ERROR(CheckNonZeroVector(pair.intrinsic, pair.intrinsic.size(), "intrinsic"));
  VS_RETURN_IF_ERROR(CheckNonZeroVector(pair.prompted, pair.intrinsic.size(), "prompted"));

  Decomposition out;
  out.intrinsic_norm = Norm(pair.intrinsic);
  out.prompted_norm = Norm(pair.prompted);
  const std::vector<double> intrinsic_rest = Orthogonalize(pair.intrinsic, pair.prompted);
  const std::vector<double> prompted_rest = Orthogonalize(pair.prompted, pair.intrinsic);
  const double inner_product = InnerProduct(pair.intrinsic, pair.prompted);
  out.cosine = std::clamp(inner_product / (out.intrinsic_norm * out.prompted_norm), -1.0, 1.0);
  // sqrt(1 - c^2), without the cancellation near c = 1.
  const double sine = std::min(1.0, Norm(prompted_rest) / out.prompted_norm);
  out.retained_norm_fraction = sine;
  out.intrinsic_orthogonal = ToFloat(intrinsic_rest);
  out.prompted_orthogonal = ToFloat(prompted_rest);
  out.disattenuated_cosine =
      Disattenuated(out.cosine, options.intrinsic_reliability, options.prompted_reliability);

  const bool collinear = sine <= kCollinearSine;
  if (collinear) out.warnings.push_back(DecompositionWarning::kCollinear);
  if (inner_product <= 0) out.warnings.push_back(DecompositionWarning::kSharedUndefined);
  if (options.strict && !out.warnings.empty()) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "NO_SHARED_DIRECTION",
                           absl::StrCat(DecompositionWarningName(out.warnings.front()),
                                        ": the intrinsic and the prompted vector have cosine ",
                                        out.cosine, ", it must be above 0 and below 1"));
  }
  DecomposeInPlane(pair, prompted_rest, options.normalize_columns ? 1.0 : out.intrinsic_norm,
                   options.normalize_columns ? 1.0 : out.prompted_norm, sine, collinear, out);
  return out;
}

}  // namespace valuescope::analysis
