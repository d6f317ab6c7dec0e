// Answers to test queries as they were scored: of each way, by query.
#ifndef VALUESCOPE_KINDS_STUDY_ANSWERS_H_
#define VALUESCOPE_KINDS_STUDY_ANSWERS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "analysis/paired_differences.h"
#include "kinds/study_results.h"
#include "studies/text_checks.h"
#include "text/tokenizer.h"

namespace valuescope::kinds {

struct ScoredAnswer {
  std::vector<int32_t> ids;
  bool expresses = false;
  bool coherent = false;  // and not empty, as refuses
  bool refuses = false;
};

class ScoredAnswers {
 public:
  // Of a part that judged a data set. `checks` looks for refusals in what `tokenizer` reads.
  static absl::StatusOr<ScoredAnswers> Read(const PartResults& parts, const std::string& phase,
                                            const text::Tokenizer& tokenizer,
                                            const studies::TextChecks& checks);

  // In the order in which they first occur.
  const std::vector<std::string>& queries() const { return queries_; }
  // Of a way, by query, in the order of samples.
  const std::vector<std::vector<ScoredAnswer>>& Of(const std::string& way) const;

  // What the two ways come to by query: how many answers express the value, how long those are that
  // are not empty, and how many of the coherent ones refuse.
  std::vector<analysis::PairedCluster> Expressing(const std::string& first,
                                                  const std::string& second) const;
  std::vector<analysis::PairedCluster> Lengths(const std::string& first,
                                               const std::string& second) const;
  std::vector<analysis::PairedCluster> Refusals(const std::string& first,
                                                const std::string& second) const;
  // The texts of a way by query.
  std::vector<analysis::ClusterTexts> Texts(const std::string& way) const;

 private:
  // Sums of what `number` is of an answer; one without a number does not count.
  std::vector<analysis::PairedCluster> Paired(
      const std::string& first, const std::string& second,
      absl::FunctionRef<std::optional<double>(const ScoredAnswer&)> number) const;

  std::vector<std::string> queries_;
  std::map<std::string, std::vector<std::vector<ScoredAnswer>>> answers_;  // [queries] of a way
};

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_STUDY_ANSWERS_H_
