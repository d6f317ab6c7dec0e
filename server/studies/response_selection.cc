#include "studies/response_selection.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/sha256.h"

namespace valuescope::studies {
namespace {

bool IsUnder(const ValueLabels& labels, const SelectionRule& rule) {
  if (rule.conditions == 0) return true;
  return labels.condition >= 0 && ((rule.conditions >> labels.condition) & 1) != 0;
}

bool Has(uint64_t values, int value) { return ((values >> value) & 1) != 0; }

bool Selects(const SelectionRule& rule, const ValueLabels& labels) {
  return IsUnder(labels, rule) && Has(labels.known, rule.value);
}

void Add(int64_t place, bool expresses, ResponseSelection& selection) {
  selection.places.push_back(place);
  selection.expresses.push_back(expresses);
  ++(expresses ? selection.num_expressing : selection.num_non_expressing);
}

}  // namespace

ResponseSelection AllOf(const ResponseSet& set) {
  ResponseSelection all;
  for (size_t i = 0; i < set.responses.size(); ++i) {
    Add(static_cast<int64_t>(i), set.responses[i].expresses, all);
  }
  return all;
}

ResponseSelection Selected(const ResponseSet& set, const SelectionRule& rule) {
  ResponseSelection selected;
  for (size_t i = 0; i < set.responses.size(); ++i) {
    const ValueLabels& labels = set.responses[i].labels;
    if (!Selects(rule, labels)) continue;
    Add(static_cast<int64_t>(i), Has(labels.expressed, rule.value), selected);
  }
  return selected;
}

LeftOut LeftOutOf(const ResponseSet& set, const SelectionRule& rule) {
  LeftOut left_out;
  const auto lacks = [&rule](const ValueLabels& labels) {
    return IsUnder(labels, rule) && !Has(labels.known, rule.value);
  };
  for (const LabelledResponse& response : set.responses) {
    left_out.num_unlabelled += lacks(response.labels);
  }
  for (const ValueLabels& labels : set.dropped) {
    left_out.num_unlabelled += lacks(labels);
    left_out.num_dropped += Selects(rule, labels);
  }
  return left_out;
}

void KeepSelected(std::span<const SelectionRule> rules, ResponseSet& set) {
  std::erase_if(set.responses, [&](const LabelledResponse& response) {
    const bool kept = std::any_of(rules.begin(), rules.end(), [&](const SelectionRule& rule) {
      return Selects(rule, response.labels);
    });
    if (!kept) {
      --(response.expresses ? set.num_expressing : set.num_non_expressing);
      set.num_tokens -= static_cast<int64_t>(response.prompt.size() + response.response.size());
    }
    return !kept;
  });
}

std::string DigestOf(const ResponseSet& set, const ResponseSelection& selection) {
  Sha256 hash;
  hash.Update(absl::StrCat("valuescope responses 1\n", selection.size(), "\n"));
  const auto update = [&hash](const std::vector<int32_t>& ids) {
    hash.Update({reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(int32_t)});
  };
  QueryNumbers queries;
  for (size_t i = 0; i < selection.size(); ++i) {
    const LabelledResponse& response = set.responses[static_cast<size_t>(selection.places[i])];
    hash.Update(absl::StrCat(response.prompt.size(), " ", response.response.size(), " ",
                             selection.expresses[i] ? 1 : 0, " ", queries.Of(response), "\n"));
    update(response.prompt);
    update(response.response);
  }
  return hash.HexDigest();
}

std::string DigestOf(const ResponseSet& set) { return DigestOf(set, AllOf(set)); }

}  // namespace valuescope::studies
