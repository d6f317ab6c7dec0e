// What the intrinsic and the prompted vector of one value share, and what each has alone (Han et
// al., arXiv 2509.24319), at one layer.
//
// SVD of the [width, 2] matrix [v_int, v_prompt]: the first left singular vector is the shared
// axis, oriented by <u_shared, v_int + v_prompt> > 0; the second is their difference, oriented by
// <u_diff, v_int - v_prompt> > 0, with u_int = u_diff and u_prompt = -u_diff. Two columns have a
// closed form: with A = |v_int|^2, B = |v_prompt|^2, C = <v_int, v_prompt> the squared singular
// values are (A + B +- sqrt((A - B)^2 + 4 C^2)) / 2.
//
// Orthogonalised parts: each vector minus its projection on the other.
#ifndef VALUESCOPE_ANALYSIS_DECOMPOSITION_H_
#define VALUESCOPE_ANALYSIS_DECOMPOSITION_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace valuescope::analysis {

// One value at one layer.
struct VectorPair {
  std::span<const float> intrinsic;  // [width]
  std::span<const float> prompted;   // [width]
};

// INVALID_ARGUMENT naming `field` unless `vector` has `width` > 0 elements, all finite.
absl::Status CheckVector(std::span<const float> vector, size_t width, absl::string_view field);

struct DecompositionOptions {
  // Scales both columns to unit norm before the SVD.
  bool normalize_columns = false;
  // Refuses where a warning would be given.
  bool strict = false;
  // Spearman-Brown reliabilities of the two vectors, for the disattenuated cosine.
  std::optional<double> intrinsic_reliability = std::nullopt;
  std::optional<double> prompted_reliability = std::nullopt;
};

enum class DecompositionWarning : uint8_t {
  // The sine of the angle between the vectors is at most kCollinearSine: u_diff does not exist.
  kCollinear,
  // <v_int, v_prompt> <= 0: no direction raises the value under both conditions, the first singular
  // vector is not a shared axis.
  kSharedUndefined,
};

// Below this sine, float32 rounding of the inputs decides where u_diff points.
inline constexpr double kCollinearSine = 1e-6;

// "COLLINEAR", "SHARED_UNDEFINED".
absl::string_view DecompositionWarningName(DecompositionWarning warning);

struct Decomposition {
  double intrinsic_norm = 0;
  double prompted_norm = 0;
  double cosine = 0;
  // cosine / sqrt(R_int R_prompt); absent unless both reliabilities are given and positive. May
  // exceed 1.
  std::optional<double> disattenuated_cosine;
  // sqrt(1 - cosine^2): the part of either norm that orthogonalising leaves.
  double retained_norm_fraction = 0;
  // s1 >= s2 >= 0, of the normalised columns where asked for.
  double shared_singular_value = 0;
  double difference_singular_value = 0;
  // s1^2 / (s1^2 + s2^2), .5 .. 1.
  double shared_explained_share = 0;
  std::vector<float> intrinsic_orthogonal;  // [width] v_int - projection on v_prompt
  std::vector<float> prompted_orthogonal;   // [width] v_prompt - projection on v_int
  std::vector<float> shared;                // [width] u_shared, unit
  std::vector<float> difference;  // [width] u_diff = u_int = -u_prompt, unit; empty if collinear
  std::vector<DecompositionWarning> warnings;
};

// INVALID_ARGUMENT: lengths differ or are 0, an element is not finite, a vector is zero.
// FAILED_PRECONDITION, reason NO_SHARED_DIRECTION: strict, and a warning applies.
absl::StatusOr<Decomposition> Decompose(const VectorPair& pair,
                                        const DecompositionOptions& options = {});

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_DECOMPOSITION_H_
