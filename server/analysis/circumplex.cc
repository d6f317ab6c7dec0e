#include "analysis/circumplex.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numbers>
#include <numeric>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "analysis/inner_product.h"
#include "analysis/principal_plane.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::analysis {
namespace {

constexpr std::array<absl::string_view, 4> kDomains = {"openness to change", "self-enhancement",
                                                       "conservation", "self-transcendence"};
// Of each of kSchwartzValues.
constexpr std::array<size_t, 10> kDomainOf = {0, 0, 0, 1, 1, 2, 2, 2, 3, 3};
constexpr std::array<int, 10> kNineDegrees = {0, 40, 80, 120, 160, 200, 240, 240, 280, 320};

// Points are all one, and components have one variance, where no more than this tells them apart:
// rounding of unit axes to float32 decides the rest.
constexpr double kSameVariance = 1e-12;

using Points = std::array<std::array<double, 2>, SmallMatrix::kMostRows>;

struct Target {
  Points places{};     // on the unit circle
  double centre[2]{};  // their mean
  double squares = 0;  // |T|^2 of the centred places
};

Target TargetOf(std::span<const CircumplexPlace> places) {
  const auto n = static_cast<double>(places.size());
  Target target;
  for (size_t i = 0; i < places.size(); ++i) {
    const double radians = places[i].degrees * std::numbers::pi / 180;
    target.places[i] = {std::cos(radians), std::sin(radians)};
    for (const size_t axis : {0, 1}) target.centre[axis] += target.places[i][axis] / n;
  }
  for (size_t i = 0; i < places.size(); ++i) {
    for (const size_t axis : {0, 1}) {
      const double from_centre = target.places[i][axis] - target.centre[axis];
      target.squares += from_centre * from_centre;
    }
  }
  return target;
}

struct Cross {
  double xx = 0, xy = 0, yx = 0, yy = 0;  // X^T T
};

// X is centred, so T need not be. Point i belongs at place place_of(i).
template <typename PlaceOf>
Cross CrossOf(const Points& points, size_t count, const Target& target, const PlaceOf& place_of) {
  Cross cross;
  for (size_t i = 0; i < count; ++i) {
    const auto& place = target.places[place_of(i)];
    cross.xx += points[i][0] * place[0];
    cross.xy += points[i][0] * place[1];
    cross.yx += points[i][1] * place[0];
    cross.yy += points[i][1] * place[1];
  }
  return cross;
}

// (s1 + s2)^2 = |X^T T|^2 + 2 |det X^T T|.
double SquaredSingularSum(const Cross& m) {
  return m.xx * m.xx + m.xy * m.xy + m.yx * m.yx + m.yy * m.yy +
         2 * std::fabs(m.xx * m.yy - m.xy * m.yx);
}

size_t Itself(size_t i) { return i; }

// Of points that are all one: 0, as no scale helps.
double RSquared(const PrincipalPlane& plane, size_t count, const Target& target) {
  if (plane.total_variance <= kSameVariance) return 0;
  const double squares = plane.variances[0] + plane.variances[1];
  const Cross cross = CrossOf(plane.points, count, target, Itself);
  return std::min(1.0, SquaredSingularSum(cross) / (squares * target.squares));
}

// The points after the rotation or reflection R, the scale and the shift that lay X on T: of
// rotations (cos -sin; sin cos) and reflections (cos sin; sin -cos) the kind of X^T T's determinant
// has the larger trace of R^T X^T T.
std::vector<std::array<double, 2>> Aligned(const PrincipalPlane& plane, size_t count,
                                           const Target& target) {
  const Cross m = CrossOf(plane.points, count, target, Itself);
  const bool reflects = m.xx * m.yy - m.xy * m.yx < 0;
  const double along = reflects ? m.xx - m.yy : m.xx + m.yy;
  const double across = reflects ? m.xy + m.yx : m.xy - m.yx;
  const double squares = plane.variances[0] + plane.variances[1];
  // Scale times cosine and sine: hypot(along, across) is s1 + s2, the scale (s1 + s2) / |X|^2.
  const double cosine = along / squares, sine = across / squares;
  std::vector<std::array<double, 2>> out(count);
  for (size_t i = 0; i < count; ++i) {
    const auto& [x, y] = plane.points[i];
    const double turned = reflects ? -y : y;
    out[i] = {target.centre[0] + cosine * x - sine * turned,
              target.centre[1] + sine * x + cosine * turned};
  }
  return out;
}

// Inner products of the places' points from those of the axes.
SmallMatrix Averaged(const SmallMatrix& axes, std::span<const CircumplexPlace> places) {
  SmallMatrix gram(places.size());
  for (size_t a = 0; a < places.size(); ++a) {
    for (size_t b = 0; b < places.size(); ++b) {
      double sum = 0;
      for (const size_t i : places[a].members) {
        for (const size_t j : places[b].members) sum += axes.at(i, j);
      }
      gram.at(a, b) =
          sum / static_cast<double>(places[a].members.size() * places[b].members.size());
    }
  }
  return gram;
}

// Inner products of `count` random unit vectors of `width` dimensions.
SmallMatrix RandomGram(size_t count, int64_t width, std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  SmallMatrix rows(count);  // lower triangular
  for (size_t i = 0; i < count; ++i) {
    const auto before = std::min(static_cast<int64_t>(i), width);
    double squares = 0;
    for (int64_t j = 0; j < before; ++j) {
      const double element = normal(random);
      rows.at(i, static_cast<size_t>(j)) = element;
      squares += element * element;
    }
    if (static_cast<int64_t>(i) < width) {
      const auto freedom = static_cast<double>(width - static_cast<int64_t>(i));
      const double square = std::chi_squared_distribution<double>(freedom)(random);
      rows.at(i, i) = std::sqrt(square);
      squares += square;
    }
    for (size_t j = 0; j <= i; ++j) rows.at(i, j) /= std::sqrt(squares);
  }
  SmallMatrix gram(count);
  for (size_t i = 0; i < count; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (size_t k = 0; k <= j; ++k) sum += rows.at(i, k) * rows.at(j, k);
      gram.at(i, j) = gram.at(j, i) = sum;
    }
  }
  return gram;
}

size_t NumAxes(std::span<const CircumplexPlace> places) {
  size_t count = 0;
  for (const CircumplexPlace& place : places) count += place.members.size();
  return count;
}

int DegreesBetween(const CircumplexPlace& a, const CircumplexPlace& b) {
  const int apart = std::abs(a.degrees - b.degrees);
  return std::min(apart, 360 - apart);
}

// Adds to `found` every way to complete `image`, the images of the first `next` places, to a
// permutation of all that leaves the distances between places as they are.
void CompleteSymmetries(std::span<const CircumplexPlace> places, size_t next, Assignment& image,
                        std::vector<Assignment>& found) {
  if (next == places.size()) {
    found.push_back(image);
    return;
  }
  for (size_t to = 0; to < places.size(); ++to) {
    bool keeps = true;
    for (size_t i = 0; i < next && keeps; ++i) {
      keeps = image[i] != to && DegreesBetween(places[i], places[next]) ==
                                    DegreesBetween(places[image[i]], places[to]);
    }
    if (!keeps) continue;
    image[next] = static_cast<uint8_t>(to);
    CompleteSymmetries(places, next + 1, image, found);
  }
}

// Whether no symmetry turns `assignment` into one that comes before it.
bool IsFirstOfItsKind(std::span<const uint8_t> assignment,
                      const std::vector<Assignment>& symmetries) {
  for (const Assignment& symmetry : symmetries) {
    for (const uint8_t place : assignment) {
      if (symmetry[place] != place) {
        if (symmetry[place] < place) return false;
        break;
      }
    }
  }
  return true;
}

}  // namespace

absl::StatusOr<std::vector<CircumplexPlace>> CircumplexPlaces(std::span<const std::string> values,
                                                              CircumplexAngles angles,
                                                              absl::string_view field) {
  if (values.size() < kLeastCircumplexValues) {
    return InvalidField(
        field, absl::StrCat("has ", values.size(),
                            " values, the circumplex asks "
                            "for at least ",
                            kLeastCircumplexValues, " of: ", absl::StrJoin(kSchwartzValues, ", ")));
  }
  std::array<size_t, kSchwartzValues.size()> seen{};  // 1 + index in `values`; 0: not there
  std::vector<CircumplexPlace> places, domains(kDomains.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const auto value =
        static_cast<size_t>(std::find(kSchwartzValues.begin(), kSchwartzValues.end(), values[i]) -
                            kSchwartzValues.begin());
    const std::string place = absl::StrCat(field, "[", i, "].value");
    if (value == kSchwartzValues.size()) {
      return InvalidField(place, absl::StrCat("must be one of the values of the circumplex: ",
                                              absl::StrJoin(kSchwartzValues, ", ")));
    }
    if (seen[value] != 0) {
      return InvalidField(place, absl::StrCat("is \"", values[i], "\", as is ", field, "[",
                                              seen[value] - 1, "].value"));
    }
    seen[value] = i + 1;
    const int degrees =
        angles == CircumplexAngles::kNine ? kNineDegrees[value] : static_cast<int>(36 * value);
    places.push_back({.name = values[i], .degrees = degrees, .members = {i}});
    domains[kDomainOf[value]].members.push_back(i);
  }
  if (angles != CircumplexAngles::kFourDomains) return places;
  for (size_t d = 0; d < domains.size(); ++d) {
    if (domains[d].members.empty()) {
      return InvalidField("circumplex.angles",
                          absl::StrCat("FOUR_DOMAINS asks for a value of every domain, there is "
                                       "none of ",
                                       kDomains[d]));
    }
    domains[d].name = std::string(kDomains[d]);
    domains[d].degrees = static_cast<int>(90 * d);
  }
  return domains;
}

std::vector<Assignment> DistinctAssignments(std::span<const CircumplexPlace> places) {
  VS_CHECK(places.size() <= kSchwartzValues.size());
  std::vector<Assignment> symmetries, distinct;
  Assignment assignment{};
  CompleteSymmetries(places, 0, assignment, symmetries);
  const std::span<uint8_t> used = std::span(assignment).first(places.size());
  std::iota(used.begin(), used.end(), uint8_t{0});
  do {
    if (IsFirstOfItsKind(used, symmetries)) distinct.push_back(assignment);
  } while (std::next_permutation(used.begin(), used.end()));
  return distinct;
}

absl::StatusOr<std::vector<double>> SimulateCircumplexNull(std::span<const CircumplexPlace> places,
                                                           const CircumplexNullOptions& options,
                                                           const Cancellation& cancellation) {
  constexpr int kSamplesBetweenLooks = 256;
  const Target target = TargetOf(places);
  const size_t num_axes = NumAxes(places);
  std::mt19937_64 random(options.seed);
  std::vector<double> r_squared(static_cast<size_t>(options.samples));
  for (int i = 0; i < options.samples; ++i) {
    if (i % kSamplesBetweenLooks == 0) VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
    SmallMatrix gram = Averaged(RandomGram(num_axes, options.width, random), places);
    Centre(gram);
    r_squared[static_cast<size_t>(i)] = RSquared(PrincipalPlaneOf(gram), places.size(), target);
  }
  std::sort(r_squared.begin(), r_squared.end());
  return r_squared;
}

CircumplexFitter::CircumplexFitter(std::vector<CircumplexPlace> places)
    : places_(std::move(places)), assignments_(DistinctAssignments(places_)) {}

std::optional<CircumplexFit> CircumplexFitter::Fit(
    std::span<const std::span<const float>> axes) const {
  VS_CHECK(axes.size() == NumAxes(places_));
  SmallMatrix inner_products(axes.size());
  for (size_t i = 0; i < axes.size(); ++i) {
    for (size_t j = 0; j <= i; ++j) {
      inner_products.at(i, j) = inner_products.at(j, i) = InnerProduct(axes[i], axes[j]);
    }
  }
  SmallMatrix gram = Averaged(inner_products, places_);
  Centre(gram);
  const PrincipalPlane plane = PrincipalPlaneOf(gram);
  if (plane.total_variance <= kSameVariance) return std::nullopt;

  const Target target = TargetOf(places_);
  CircumplexFit fit;
  fit.r_squared = RSquared(plane, places_.size(), target);
  fit.plane_variance = (plane.variances[0] + plane.variances[1]) / plane.total_variance;
  fit.plane_determined = plane.variances[1] - plane.variances[2] > kSameVariance;
  fit.points = Aligned(plane, places_.size(), target);
  // Assignments that a symmetry of the points makes equal differ by rounding.
  constexpr double kTie = 1e-12;
  const double squares = (plane.variances[0] + plane.variances[1]) * target.squares;
  int64_t as_good = 0;
  for (size_t a = 1; a < assignments_.size(); ++a) {
    const Cross cross =
        CrossOf(plane.points, places_.size(), target, [&](size_t i) { return assignments_[a][i]; });
    as_good += SquaredSingularSum(cross) / squares >= fit.r_squared - kTie;
  }
  fit.permutation_p_value =
      static_cast<double>(1 + as_good) / static_cast<double>(assignments_.size());
  return fit;
}

}  // namespace valuescope::analysis
