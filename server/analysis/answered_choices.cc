#include "analysis/answered_choices.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "base/check.h"

namespace valuescope::analysis {
namespace {

// Questions whose likeliest choices are about as likely.
struct Bin {
  double count = 0, right = 0, probability = 0;  // sums
};

size_t BinOf(double probability, int bins) {
  const double place = std::ceil(probability * bins) - 1;
  return static_cast<size_t>(std::clamp(place, 0.0, static_cast<double>(bins - 1)));
}

double BrierOf(const AnsweredChoice& question) {
  double sum = 0;
  for (size_t i = 0; i < question.probabilities.size(); ++i) {
    const double miss =
        question.probabilities[i] - (static_cast<int>(i) == question.right ? 1.0 : 0.0);
    sum += miss * miss;
  }
  return sum;
}

}  // namespace

std::vector<double> Softmax(std::span<const double> logs) {
  VS_CHECK(!logs.empty());
  const double largest = *std::max_element(logs.begin(), logs.end());
  std::vector<double> shares;
  double sum = 0;
  for (const double one : logs) sum += shares.emplace_back(std::exp(one - largest));
  for (double& share : shares) share /= sum;
  return shares;
}

int LikeliestChoice(std::span<const double> probabilities) {
  VS_CHECK(!probabilities.empty());
  return static_cast<int>(std::max_element(probabilities.begin(), probabilities.end()) -
                          probabilities.begin());
}

ChoiceScores ScoreChoices(std::span<const AnsweredChoice> questions, int bins) {
  VS_CHECK(!questions.empty() && bins >= 1);
  std::vector<Bin> by_probability(static_cast<size_t>(bins));
  const auto count = static_cast<double>(questions.size());
  double right = 0;
  ChoiceScores scores;
  for (const AnsweredChoice& question : questions) {
    const auto choice = static_cast<size_t>(LikeliestChoice(question.probabilities));
    const double hit = static_cast<int>(choice) == question.right ? 1 : 0;
    Bin& bin = by_probability[BinOf(question.probabilities[choice], bins)];
    ++bin.count;
    bin.right += hit;
    bin.probability += question.probabilities[choice];
    right += hit;
    scores.mean_probability += question.probabilities[static_cast<size_t>(question.right)] / count;
    scores.brier_score += BrierOf(question) / count;
  }
  scores.accuracy = right / count;
  scores.accuracy_interval = WilsonInterval(right, count);
  for (const Bin& bin : by_probability) {
    scores.calibration_error += std::abs(bin.right - bin.probability) / count;
  }
  return scores;
}

}  // namespace valuescope::analysis
