// Whether values lie on a circle in the order that Schwartz's theory gives them (Han et al., arXiv
// 2509.24319), at one layer: the values' shared axes go through principal component analysis to a
// plane, and the plane is laid on the unit circle, each value's point as near as it goes to the
// place at the value's angle. With X the centred points [n, 2] and T the centred places [n, 2], the
// best rotation or reflection, scale and shift leave the part 1 - R^2 of |T|^2, where
//
//   R^2 = (s1 + s2)^2 / (|X|^2 |T|^2),  s1, s2 the singular values of X^T T (Procrustes).
//
// Few points fit a circle by chance, so the fit stands beside two nulls:
//
//   random directions   As many, of the same width, through the same pipeline. Their inner products
//                       are those of the rows of a triangular matrix with normal elements below a
//                       diagonal of chi variates (Bartlett's decomposition of a Wishart matrix), so
//                       that no vector of that width is drawn. They know nothing of the layer: one
//                       simulation serves all.
//   permutations        All other assignments of the points to the places, one of each set that
//                       symmetry of the places makes equal: rotations and reflections of four
//                       places at right angles leave 3 of the 24.
#ifndef VALUESCOPE_ANALYSIS_CIRCUMPLEX_H_
#define VALUESCOPE_ANALYSIS_CIRCUMPLEX_H_

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/cancellation.h"

namespace valuescope::analysis {

// In the order of the circle.
inline constexpr std::array<absl::string_view, 10> kSchwartzValues = {
    "self-direction", "stimulation", "hedonism",  "achievement", "power",
    "security",       "conformity",  "tradition", "benevolence", "universalism"};
inline constexpr size_t kLeastCircumplexValues = 4;

enum class CircumplexAngles : uint8_t {
  kTen,          // 36 degrees each, in the order of kSchwartzValues
  kNine,         // 40 degrees each, conformity and tradition at one place
  kFourDomains,  // 90 degrees each; the axes of a domain's values are averaged
};

struct CircumplexPlace {
  std::string name;             // of the value or the domain
  int degrees = 0;              // 0 .. 359
  std::vector<size_t> members;  // axes that are averaged, ascending
};

// Where points belong: one place a value in the order of `values`, or one a domain in the order of
// the circle. `field`: the list whose elements have the values. INVALID_ARGUMENT: "FIELD" where
// there are fewer than four values; "FIELD[i].value" for one that is not of kSchwartzValues or is
// there twice; "circumplex.angles" for a domain without a value.
absl::StatusOr<std::vector<CircumplexPlace>> CircumplexPlaces(std::span<const std::string> values,
                                                              CircumplexAngles angles,
                                                              absl::string_view field = "pairs");

// The place of each point; elements behind the last point are 0.
using Assignment = std::array<uint8_t, kSchwartzValues.size()>;

// Ways to assign points to places, one of each set that symmetry of the places makes equal; the
// first puts every point at its own.
std::vector<Assignment> DistinctAssignments(std::span<const CircumplexPlace> places);

struct CircumplexNullOptions {
  int64_t width = 0;  // dimensions of the axes, at least 1
  int samples = 1000;
  uint64_t seed = 0;
};

// R^2 of random directions, ascending. [samples] CANCELLED.
absl::StatusOr<std::vector<double>> SimulateCircumplexNull(std::span<const CircumplexPlace> places,
                                                           const CircumplexNullOptions& options,
                                                           const Cancellation& cancellation);

struct CircumplexFit {
  double r_squared = 0;           // 0 .. 1
  double plane_variance = 0;      // part of the points' variance that the plane has, 0 .. 1
  bool plane_determined = false;  // whether the third component has less variance than the second
  // The points on the circle, by place.
  std::vector<std::array<double, 2>> points;
  double permutation_p_value = 0;  // (1 + #{others >= observed}) / (1 + others)
};

// The places with what is the same for all layers.
class CircumplexFitter {
 public:
  explicit CircumplexFitter(std::vector<CircumplexPlace> places);

  const std::vector<CircumplexPlace>& places() const { return places_; }
  int64_t distinct_permutations() const { return static_cast<int64_t>(assignments_.size()); }

  // `axes`: one unit vector [width] a value, in the order that the places' members count. Absent
  // where the points are all one, but for rounding.
  std::optional<CircumplexFit> Fit(std::span<const std::span<const float>> axes) const;

 private:
  std::vector<CircumplexPlace> places_;
  std::vector<Assignment> assignments_;
};

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_CIRCUMPLEX_H_
