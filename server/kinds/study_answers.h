// Answers to test queries as they were scored: of each way, by query.
#ifndef VALUESCOPE_KINDS_STUDY_ANSWERS_H_
#define VALUESCOPE_KINDS_STUDY_ANSWERS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "analysis/paired_differences.h"
#include "kinds/study_results.h"

namespace valuescope::kinds {

struct ScoredAnswer {
  std::vector<int32_t> ids;
  bool expresses = false;
};

class ScoredAnswers {
 public:
  // Of a part that judged a data set.
  static absl::StatusOr<ScoredAnswers> Read(const PartResults& parts, const std::string& phase);

  // In the order in which they first occur.
  const std::vector<std::string>& queries() const { return queries_; }
  // Of a way, by query, in the order of samples.
  const std::vector<std::vector<ScoredAnswer>>& Of(const std::string& way) const;

  // What the two ways come to by query: how many answers express the value, and how long those are
  // that are not empty.
  std::vector<analysis::PairedCluster> Expressing(const std::string& first,
                                                  const std::string& second) const;
  std::vector<analysis::PairedCluster> Lengths(const std::string& first,
                                               const std::string& second) const;
  // The texts of a way by query.
  std::vector<analysis::ClusterTexts> Texts(const std::string& way) const;

 private:
  std::vector<std::string> queries_;
  std::map<std::string, std::vector<std::vector<ScoredAnswer>>> answers_;  // [queries] of a way
};

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_STUDY_ANSWERS_H_
