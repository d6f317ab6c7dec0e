#include "kinds/study_answers.h"

#include "analysis/diversity.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::kinds {
namespace {

// What the query was, of a line whose prompt is a conversation.
const std::string& QueryOf(const v1::LabelledResponse& line) {
  return line.prompt().chat().messages().rbegin()->content();
}

}  // namespace

absl::StatusOr<ScoredAnswers> ScoredAnswers::Read(const PartResults& parts,
                                                  const std::string& phase,
                                                  const text::Tokenizer& tokenizer,
                                                  const studies::TextChecks& checks) {
  ScoredAnswers read;
  std::map<std::string, size_t> places;  // by query_id
  VS_RETURN_IF_ERROR(parts.ForEachLine<v1::LabelledResponse>(
      phase, "responses", [&](const v1::LabelledResponse& line) -> absl::Status {
        const auto [place, is_new] = places.try_emplace(line.query_id(), read.queries_.size());
        if (is_new) read.queries_.push_back(QueryOf(line));
        auto& of_way = read.answers_[line.condition()];
        of_way.resize(std::max(of_way.size(), place->second + 1));
        const auto& ids = line.response().token_ids().ids();
        ScoredAnswer& answer = of_way[place->second].emplace_back();
        answer.ids.assign(ids.begin(), ids.end());
        answer.expresses = line.expresses();
        answer.coherent = !answer.ids.empty() && analysis::IsCoherent(answer.ids);
        if (!answer.coherent) return absl::OkStatus();
        VS_ASSIGN_OR_RETURN(const std::string text,
                            tokenizer.Decode(answer.ids, /*skip_special_tokens=*/true));
        VS_ASSIGN_OR_RETURN(answer.refuses, checks.Refuses(text));
        return absl::OkStatus();
      }));
  return read;
}

const std::vector<std::vector<ScoredAnswer>>& ScoredAnswers::Of(const std::string& way) const {
  const auto found = answers_.find(way);
  VS_CHECK(found != answers_.end());
  return found->second;
}

std::vector<analysis::PairedCluster> ScoredAnswers::Paired(
    const std::string& first, const std::string& second,
    absl::FunctionRef<std::optional<double>(const ScoredAnswer&)> number) const {
  std::vector<analysis::PairedCluster> clusters(queries_.size());
  for (size_t q = 0; q < queries_.size(); ++q) {
    for (const ScoredAnswer& answer : Of(first)[q]) {
      const std::optional<double> one = number(answer);
      clusters[q].first_sum += one.value_or(0);
      clusters[q].first_count += one.has_value();
    }
    for (const ScoredAnswer& answer : Of(second)[q]) {
      const std::optional<double> one = number(answer);
      clusters[q].second_sum += one.value_or(0);
      clusters[q].second_count += one.has_value();
    }
  }
  return clusters;
}

std::vector<analysis::PairedCluster> ScoredAnswers::Expressing(const std::string& first,
                                                               const std::string& second) const {
  return Paired(first, second, [](const ScoredAnswer& answer) -> std::optional<double> {
    return answer.expresses ? 1 : 0;
  });
}

std::vector<analysis::PairedCluster> ScoredAnswers::Lengths(const std::string& first,
                                                            const std::string& second) const {
  return Paired(first, second, [](const ScoredAnswer& answer) -> std::optional<double> {
    if (answer.ids.empty()) return std::nullopt;
    return static_cast<double>(answer.ids.size());
  });
}

std::vector<analysis::PairedCluster> ScoredAnswers::Refusals(const std::string& first,
                                                             const std::string& second) const {
  return Paired(first, second, [](const ScoredAnswer& answer) -> std::optional<double> {
    if (!answer.coherent) return std::nullopt;
    return answer.refuses ? 1 : 0;
  });
}

std::vector<analysis::ClusterTexts> ScoredAnswers::Texts(const std::string& way) const {
  std::vector<analysis::ClusterTexts> texts(queries_.size());
  for (size_t q = 0; q < queries_.size(); ++q) {
    for (const ScoredAnswer& answer : Of(way)[q]) texts[q].emplace_back(answer.ids);
  }
  return texts;
}

}  // namespace valuescope::kinds
