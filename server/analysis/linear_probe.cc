#include "analysis/linear_probe.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "analysis/inner_product.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::analysis {
namespace {

constexpr double kSettled = 1e-10;  // gradient relative to the first
// Newton's steps double the digits once they are near, and the line search brings them there.
constexpr int kMostSteps = 200;
constexpr double kLeastStep = 0x1p-40;
constexpr double kEnoughDescent = 1e-4;         // of what the slope promises (Armijo)
constexpr double kRoundingOfObjective = 1e-13;  // relative
constexpr double kRounding = 1e-28;             // of a square, relative
// Rows of the system between looks at the cancellation.
constexpr int64_t kRowsBetweenLooks = 64;

// Sums in lanes that a compiler can keep in vector registers; always in the same order.
double LaneProduct(const double* a, const double* b, int64_t size) {
  constexpr int kLanes = 8;
  std::array<double, kLanes> sums = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  }
  for (; i < size; ++i) sums[i % kLanes] += a[i] * b[i];
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

// A square matrix, row-major.
struct Square {
  int64_t size = 0;
  std::vector<double> numbers;

  explicit Square(int64_t n) : size(n), numbers(n * n, 0.0) {}
  double* row(int64_t i) { return numbers.data() + i * size; }
  const double* row(int64_t i) const { return numbers.data() + i * size; }
};

std::vector<double> Times(const Square& matrix, const std::vector<double>& x) {
  std::vector<double> out(matrix.size);
  for (int64_t i = 0; i < matrix.size; ++i) {
    out[i] = LaneProduct(matrix.row(i), x.data(), matrix.size);
  }
  return out;
}

// Overwrites the lower triangle of a matrix without eigenvalues below 1 with its Cholesky factor.
// No pivot is below 1 then, unless by rounding.
absl::Status Factorise(Square& matrix, const Cancellation& cancellation) {
  for (int64_t i = 0; i < matrix.size; ++i) {
    if (i % kRowsBetweenLooks == 0 && cancellation.cancelled()) return ExtractionCancelled();
    double* row = matrix.row(i);
    for (int64_t j = 0; j < i; ++j) {
      row[j] = (row[j] - LaneProduct(row, matrix.row(j), j)) / matrix.row(j)[j];
    }
    row[i] = std::sqrt(std::max(row[i] - LaneProduct(row, row, i), 1.0));
  }
  return absl::OkStatus();
}

// Solves L L' x = y.
std::vector<double> Solve(const Square& factor, std::vector<double> y) {
  for (int64_t i = 0; i < factor.size; ++i) {
    y[i] = (y[i] - LaneProduct(factor.row(i), y.data(), i)) / factor.row(i)[i];
  }
  for (int64_t i = factor.size; i-- > 0;) {
    y[i] /= factor.row(i)[i];
    for (int64_t j = 0; j < i; ++j) y[j] -= factor.row(i)[j] * y[i];
  }
  return y;
}

// log(1 + exp(-margin)).
double LossOf(double margin) {
  return margin > 0 ? std::log1p(std::exp(-margin)) : std::log1p(std::exp(margin)) - margin;
}

// 1 / (1 + exp(-score)).
double ProbabilityOf(double score) {
  return score > 0 ? 1 / (1 + std::exp(-score)) : std::exp(score) / (1 + std::exp(score));
}

// A Newton step: of the weights, and of b.
struct NewtonStep {
  std::vector<double> weights;
  double intercept = 0;
};

// Weights w as coordinates, for more responses than coordinates.
class ByCoordinate {
 public:
  // `rows` [responses, width].
  ByCoordinate(std::vector<double> rows, int64_t width) : rows_(std::move(rows)), width_(width) {}

  int64_t size() const { return width_; }
  // <w, a(r)>, [responses].
  std::vector<double> Scores(const std::vector<double>& w) const {
    std::vector<double> scores(rows_.size() / width_);
    for (size_t r = 0; r < scores.size(); ++r) scores[r] = LaneProduct(row(r), w.data(), width_);
    return scores;
  }
  // sum_r c_r a(r).
  std::vector<double> Combined(const std::vector<double>& c) const {
    std::vector<double> w(width_, 0.0);
    for (size_t r = 0; r < c.size(); ++r) AddScaled({row(r), w.size()}, c[r], w);
    return w;
  }
  double Product(const std::vector<double>& a, const std::vector<double>& b) const {
    return InnerProduct(a, b);
  }
  // With the intercept eliminated, the curvature is 1 + sum_r curvature_r (a(r) - m)(a(r) - m)', m
  // the mean that weighs responses so.
  absl::StatusOr<NewtonStep> Step(const std::vector<double>& gradient, double of_intercept,
                                  const std::vector<double>& curvature,
                                  const Cancellation& cancellation) const {
    const double total = std::accumulate(curvature.begin(), curvature.end(), 0.0);
    std::vector<double> mean = Combined(curvature);
    for (double& element : mean) element /= total;
    Square system(width_);
    for (int64_t i = 0; i < width_; ++i) system.row(i)[i] = 1;
    for (size_t r = 0; r < curvature.size(); ++r) {
      if (r % kRowsBetweenLooks == 0 && cancellation.cancelled()) return ExtractionCancelled();
      std::vector<double> deviation(row(r), row(r) + width_);
      AddScaled(mean, -1, deviation);
      for (int64_t i = 0; i < width_; ++i) {
        const double factor = curvature[r] * deviation[i];
        double* of_row = system.row(i);
        for (int64_t j = 0; j <= i; ++j) of_row[j] += factor * deviation[j];
      }
    }
    VS_RETURN_IF_ERROR(Factorise(system, cancellation));
    std::vector<double> right(width_, 0.0);
    AddScaled(gradient, -1, right);
    AddScaled(mean, of_intercept, right);
    NewtonStep step = {.weights = Solve(system, std::move(right))};
    step.intercept = -of_intercept / total - InnerProduct(mean, step.weights);
    return step;
  }

 private:
  const double* row(size_t r) const { return rows_.data() + r * width_; }

  const std::vector<double> rows_;
  const int64_t width_;
};

// Weights w = sum_r alpha_r a(r) as alpha, for as many coordinates as responses or more.
class ByResponse {
 public:
  // `products` are the inner products of the responses.
  explicit ByResponse(Square products) : products_(std::move(products)) {}

  int64_t size() const { return products_.size; }
  std::vector<double> Scores(const std::vector<double>& alpha) const {
    return Times(products_, alpha);
  }
  std::vector<double> Combined(const std::vector<double>& c) const { return c; }
  double Product(const std::vector<double>& a, const std::vector<double>& b) const {
    return InnerProduct(a, Times(products_, b));
  }
  // With S the roots of the curvature and f the scores, u = S delta f solves
  //   (I + S K S) u = S (delta b - K gradient),  <S, u> = - gradient of b
  // and delta alpha = - gradient - S u.
  absl::StatusOr<NewtonStep> Step(const std::vector<double>& gradient, double of_intercept,
                                  const std::vector<double>& curvature,
                                  const Cancellation& cancellation) const {
    std::vector<double> root(curvature);
    for (double& element : root) element = std::sqrt(element);
    Square system(size());
    for (int64_t i = 0; i < size(); ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        system.row(i)[j] = root[i] * products_.row(i)[j] * root[j] + (i == j ? 1 : 0);
      }
    }
    VS_RETURN_IF_ERROR(Factorise(system, cancellation));
    const std::vector<double> by_intercept = Solve(system, root);
    std::vector<double> u = Times(products_, gradient);
    for (int64_t r = 0; r < size(); ++r) u[r] *= -root[r];
    u = Solve(system, std::move(u));
    NewtonStep step = {.weights = std::vector<double>(size(), 0.0)};
    step.intercept = (-of_intercept - InnerProduct(root, u)) / InnerProduct(root, by_intercept);
    AddScaled(by_intercept, step.intercept, u);
    for (int64_t r = 0; r < size(); ++r) step.weights[r] = -gradient[r] - root[r] * u[r];
    return step;
  }

 private:
  const Square products_;
};

// The search over weights, in either form, and b.
template <typename Form>
class Search {
 public:
  Search(Form form, std::vector<bool> expresses, double inverse_regularization)
      : form_(std::move(form)), expresses_(std::move(expresses)), c_(inverse_regularization) {}

  struct Optimum {
    std::vector<double> weights;
    double intercept = 0;
    bool settled = false;
  };

  absl::StatusOr<Optimum> Run(const Cancellation& cancellation) const {
    const auto all = static_cast<double>(expresses_.size());
    const auto expressing =
        static_cast<double>(std::count(expresses_.begin(), expresses_.end(), true));
    // The best without weights.
    Point at =
        PointAt(std::vector<double>(form_.size(), 0.0), std::log(expressing / (all - expressing)));
    const double wanted = kSettled * at.gradient_norm;
    for (int step = 0; step < kMostSteps && at.gradient_norm > wanted; ++step) {
      VS_ASSIGN_OR_RETURN(const NewtonStep newton,
                          form_.Step(at.gradient, at.of_intercept, at.curvature, cancellation));
      std::optional<Point> next = Along(at, newton);
      if (!next) break;
      at = *std::move(next);
    }
    return Optimum{.weights = std::move(at.weights),
                   .intercept = at.intercept,
                   .settled = at.gradient_norm <= wanted};
  }

 private:
  struct Point {
    std::vector<double> weights;
    double intercept = 0;
    double objective = 0;
    std::vector<double> gradient;  // with respect to the weights
    double of_intercept = 0;       // with respect to b
    double gradient_norm = 0;
    std::vector<double> curvature;  // [responses] C p (1 - p)
  };

  Point PointAt(std::vector<double> weights, double intercept) const {
    Point point = {.weights = std::move(weights), .intercept = intercept};
    const std::vector<double> scores = form_.Scores(point.weights);
    std::vector<double> left(scores.size());  // C (t - p)
    point.curvature.resize(scores.size());
    double loss = 0;
    for (size_t r = 0; r < scores.size(); ++r) {
      const double score = scores[r] + intercept;
      const double p = ProbabilityOf(score);
      loss += LossOf(expresses_[r] ? score : -score);
      left[r] = c_ * (expresses_[r] ? ProbabilityOf(-score) : -p);
      point.curvature[r] = c_ * p * ProbabilityOf(-score);
    }
    point.objective = form_.Product(point.weights, point.weights) / 2 + c_ * loss;
    point.gradient = point.weights;
    AddScaled(form_.Combined(left), -1, point.gradient);
    point.of_intercept = -std::accumulate(left.begin(), left.end(), 0.0);
    point.gradient_norm = std::sqrt(std::max(form_.Product(point.gradient, point.gradient), 0.0) +
                                    point.of_intercept * point.of_intercept);
    return point;
  }

  // The first place on the way that descends enough; none where rounding leaves none.
  std::optional<Point> Along(const Point& at, const NewtonStep& step) const {
    const double slope =
        form_.Product(at.gradient, step.weights) + at.of_intercept * step.intercept;
    for (double length = 1; length >= kLeastStep; length /= 2) {
      std::vector<double> weights = at.weights;
      AddScaled(step.weights, length, weights);
      Point next = PointAt(std::move(weights), at.intercept + length * step.intercept);
      const double allowed = at.objective + kEnoughDescent * length * slope +
                             kRoundingOfObjective * std::abs(at.objective);
      if (next.objective <= allowed) return next;
    }
    return std::nullopt;
  }

  const Form form_;
  const std::vector<bool> expresses_;
  const double c_;
};

// The responses of one layer less their mean: the intercept takes up the difference, and inner
// products of large vectors that differ little would lose digits.
struct CenteredRows {
  std::vector<double> mean;     // [width]
  std::vector<double> numbers;  // [responses, width]

  std::span<const double> of(int64_t response) const {
    return std::span<const double>(numbers).subspan(response * mean.size(), mean.size());
  }
};

absl::StatusOr<CenteredRows> RowsOf(Responses responses, int64_t layer, int64_t width) {
  CenteredRows rows = {.mean = std::vector<double>(width, 0.0), .numbers = {}};
  rows.numbers.reserve(responses.size() * width);
  std::vector<double> row(width);
  for (const LabelledActivations& response : responses) {
    VS_RETURN_IF_ERROR(ReadRow(response, layer, row));
    rows.numbers.insert(rows.numbers.end(), row.begin(), row.end());
    AddScaled(row, 1.0 / static_cast<double>(responses.size()), rows.mean);
  }
  const double before = InnerProduct(rows.numbers, rows.numbers);
  for (size_t r = 0; r < responses.size(); ++r) {
    AddScaled(rows.mean, -1, std::span<double>(rows.numbers).subspan(r * width, width));
  }
  // Of responses that are all alike nothing is left but rounding.
  if (InnerProduct(rows.numbers, rows.numbers) <= kRounding * before) {
    std::fill(rows.numbers.begin(), rows.numbers.end(), 0.0);
  }
  return rows;
}

absl::StatusOr<Square> ProductsOf(const CenteredRows& rows, const std::vector<int64_t>& chosen,
                                  const Cancellation& cancellation) {
  const auto width = static_cast<int64_t>(rows.mean.size());
  Square products(static_cast<int64_t>(chosen.size()));
  for (int64_t i = 0; i < products.size; ++i) {
    if (i % kRowsBetweenLooks == 0 && cancellation.cancelled()) return ExtractionCancelled();
    for (int64_t j = 0; j <= i; ++j) {
      products.row(i)[j] = LaneProduct(rows.of(chosen[i]).data(), rows.of(chosen[j]).data(), width);
      products.row(j)[i] = products.row(i)[j];
    }
  }
  return products;
}

struct Weights {
  std::vector<double> vector;  // [width]
  double intercept = 0;
  bool settled = false;
};

// Of the chosen responses, in the smaller form.
absl::StatusOr<Weights> WeightsOf(Responses responses, const std::vector<int64_t>& chosen,
                                  const CenteredRows& rows, double inverse_regularization,
                                  const Cancellation& cancellation) {
  const auto width = static_cast<int64_t>(rows.mean.size());
  std::vector<bool> expresses;
  for (const int64_t r : chosen) expresses.push_back(responses[r].expresses);
  Weights out;
  if (static_cast<int64_t>(chosen.size()) > width) {
    std::vector<double> numbers;
    numbers.reserve(chosen.size() * width);
    for (const int64_t r : chosen) {
      numbers.insert(numbers.end(), rows.of(r).begin(), rows.of(r).end());
    }
    const Search search(ByCoordinate(std::move(numbers), width), std::move(expresses),
                        inverse_regularization);
    VS_ASSIGN_OR_RETURN(auto optimum, search.Run(cancellation));
    out = {std::move(optimum.weights), optimum.intercept, optimum.settled};
  } else {
    VS_ASSIGN_OR_RETURN(Square products, ProductsOf(rows, chosen, cancellation));
    const Search search(ByResponse(std::move(products)), std::move(expresses),
                        inverse_regularization);
    VS_ASSIGN_OR_RETURN(const auto optimum, search.Run(cancellation));
    out = {std::vector<double>(width, 0.0), optimum.intercept, optimum.settled};
    for (size_t i = 0; i < chosen.size(); ++i) {
      AddScaled(rows.of(chosen[i]), optimum.weights[i], out.vector);
    }
  }
  out.intercept -= InnerProduct(out.vector, rows.mean);
  return out;
}

// The responses of `half`, or all without one.
std::vector<int64_t> ResponsesOf(const Grouping& grouping, std::optional<int> half) {
  std::vector<int64_t> chosen;
  for (size_t r = 0; r < grouping.half.size(); ++r) {
    if (!half || grouping.half[r] == *half) chosen.push_back(static_cast<int64_t>(r));
  }
  return chosen;
}

absl::StatusOr<LayerVector> ComputeLayer(Responses responses, const Grouping& grouping,
                                         int64_t layer, int64_t width,
                                         const LinearProbeOptions& options,
                                         const Cancellation& cancellation) {
  VS_ASSIGN_OR_RETURN(const CenteredRows rows, RowsOf(responses, layer, width));
  const auto weights_of = [&](std::optional<int> half) {
    return WeightsOf(responses, ResponsesOf(grouping, half), rows, options.inverse_regularization,
                     cancellation);
  };
  VS_ASSIGN_OR_RETURN(const Weights weights, weights_of(std::nullopt));
  LayerVector out;
  out.vector.assign(weights.vector.begin(), weights.vector.end());
  out.norm = Norm(weights.vector);
  out.intercept = weights.intercept;
  out.settled = weights.settled;
  SetNoLengthStatistics(options.intervals, out);
  if (!grouping.independent()) {
    SetNoHeldOutStatistics(Absence::kOneQuery, out);
    return out;
  }
  VS_ASSIGN_OR_RETURN(Weights first, weights_of(0));
  VS_ASSIGN_OR_RETURN(Weights second, weights_of(1));
  VS_RETURN_IF_ERROR(SetHeldOutStatistics(
      responses, grouping, layer, {std::move(first.vector), std::move(second.vector)}, out));
  return out;
}

absl::Status CheckOptions(const LinearProbeOptions& options) {
  const double c = options.inverse_regularization;
  if (c >= kLeastInverseRegularization && c <= kMostInverseRegularization) return absl::OkStatus();
  return OutOfRange("options.inverse_regularization", c, kLeastInverseRegularization,
                    kMostInverseRegularization);
}

}  // namespace

absl::Status CheckProbeSize(Responses responses) {
  if (static_cast<int64_t>(responses.size()) <= kMostProbeResponses) return absl::OkStatus();
  return InvalidField("responses",
                      absl::StrCat("are ", responses.size(), ", a linear probe takes at most ",
                                   kMostProbeResponses),
                      "TOO_MANY_RESPONSES");
}

int64_t LinearProbesBytes(int64_t responses, int64_t width) {
  // The rows, and a copy with the system of their coordinates, or their products and a system.
  const int64_t search =
      responses > width ? (responses + width) * width : 2 * responses * responses;
  return static_cast<int64_t>(sizeof(double)) * (responses * width + search);
}

absl::StatusOr<ValueVectors> ComputeLinearProbes(Responses responses, int64_t num_layers,
                                                 int64_t width, const LinearProbeOptions& options,
                                                 const Cancellation& cancellation) {
  VS_RETURN_IF_ERROR(CheckOptions(options));
  VS_RETURN_IF_ERROR(CheckResponses(responses, num_layers, width, /*weigh_by_tokens=*/false));
  VS_RETURN_IF_ERROR(CheckProbeSize(responses));
  const Grouping grouping = GroupingOf(responses, /*weigh_by_tokens=*/false);
  return WithLayers(CountsOf(responses, grouping), num_layers, cancellation, [&](int64_t layer) {
    return ComputeLayer(responses, grouping, layer, width, options, cancellation);
  });
}

}  // namespace valuescope::analysis
