// How well multiple-choice questions were answered, and how well the probabilities knew it.
#ifndef VALUESCOPE_ANALYSIS_ANSWERED_CHOICES_H_
#define VALUESCOPE_ANALYSIS_ANSWERED_CHOICES_H_

#include <span>
#include <vector>

#include "analysis/statistics.h"

namespace valuescope::analysis {

struct AnsweredChoice {
  std::vector<double> probabilities;  // one a choice, summing to 1
  int right = 0;                      // index of the right choice
};

// exp(log) / sum of exp(log), of at least one.
std::vector<double> Softmax(std::span<const double> logs);

// Of the likeliest choice, of equal ones the first.
int LikeliestChoice(std::span<const double> probabilities);

struct ChoiceScores {
  double accuracy = 0;  // part whose likeliest choice is right
  ConfidenceInterval accuracy_interval;
  double mean_probability = 0;  // of the right choice
  // Mean over the questions of the sum over choices of (p - 1 where it is right, else p)^2: 0 is
  // certain and right, 2 certain and wrong.
  double brier_score = 0;
  // Questions fall into bins of p(likeliest), equally wide in 0 .. 1, each with its upper end: the
  // mean of |accuracy - mean p(likeliest)| of the bins, weighted by their questions.
  double calibration_error = 0;
};

// At least one question, 1 or more bins.
ChoiceScores ScoreChoices(std::span<const AnsweredChoice> questions, int bins);

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_ANSWERED_CHOICES_H_
