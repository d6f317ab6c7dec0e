#include "kinds/study_answers.h"

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
                                                  const std::string& phase) {
  ScoredAnswers read;
  std::map<std::string, size_t> places;  // by query_id
  VS_RETURN_IF_ERROR(parts.ForEachLine<v1::LabelledResponse>(
      phase, "responses", [&](const v1::LabelledResponse& line) {
        const auto [place, is_new] = places.try_emplace(line.query_id(), read.queries_.size());
        if (is_new) read.queries_.push_back(QueryOf(line));
        auto& of_way = read.answers_[line.condition()];
        of_way.resize(std::max(of_way.size(), place->second + 1));
        const auto& ids = line.response().token_ids().ids();
        of_way[place->second].push_back(
            {.ids = {ids.begin(), ids.end()}, .expresses = line.expresses()});
        return absl::OkStatus();
      }));
  return read;
}

const std::vector<std::vector<ScoredAnswer>>& ScoredAnswers::Of(const std::string& way) const {
  const auto found = answers_.find(way);
  VS_CHECK(found != answers_.end());
  return found->second;
}

std::vector<analysis::PairedCluster> ScoredAnswers::Expressing(const std::string& first,
                                                               const std::string& second) const {
  std::vector<analysis::PairedCluster> clusters(queries_.size());
  for (size_t q = 0; q < queries_.size(); ++q) {
    for (const ScoredAnswer& answer : Of(first)[q]) {
      clusters[q].first_sum += answer.expresses;
      ++clusters[q].first_count;
    }
    for (const ScoredAnswer& answer : Of(second)[q]) {
      clusters[q].second_sum += answer.expresses;
      ++clusters[q].second_count;
    }
  }
  return clusters;
}

std::vector<analysis::PairedCluster> ScoredAnswers::Lengths(const std::string& first,
                                                            const std::string& second) const {
  std::vector<analysis::PairedCluster> clusters(queries_.size());
  for (size_t q = 0; q < queries_.size(); ++q) {
    for (const ScoredAnswer& answer : Of(first)[q]) {
      clusters[q].first_sum += static_cast<double>(answer.ids.size());
      clusters[q].first_count += !answer.ids.empty();
    }
    for (const ScoredAnswer& answer : Of(second)[q]) {
      clusters[q].second_sum += static_cast<double>(answer.ids.size());
      clusters[q].second_count += !answer.ids.empty();
    }
  }
  return clusters;
}

std::vector<analysis::ClusterTexts> ScoredAnswers::Texts(const std::string& way) const {
  std::vector<analysis::ClusterTexts> texts(queries_.size());
  for (size_t q = 0; q < queries_.size(); ++q) {
    for (const ScoredAnswer& answer : Of(way)[q]) texts[q].emplace_back(answer.ids);
  }
  return texts;
}

}  // namespace valuescope::kinds
