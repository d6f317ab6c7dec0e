// Which responses of a set one vector is made of, and how they are labelled for it. Where several
// values are studied over the same responses each vector takes those that have a label of its value
// and are under one of its conditions; where one value is studied it takes all.
#ifndef VALUESCOPE_STUDIES_RESPONSE_SELECTION_H_
#define VALUESCOPE_STUDIES_RESPONSE_SELECTION_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "studies/labelled_responses.h"

namespace valuescope::studies {

// Of a study, at most: both have their bits in ValueLabels and SelectionRule.
inline constexpr int kMostValues = 64;
inline constexpr int kMostConditions = 16;

// A value and conditions by their numbers in the study.
struct SelectionRule {
  int value = 0;            // below kMostValues
  uint32_t conditions = 0;  // bit c: those under condition c; 0: all responses
};

// In the order of the set.
struct ResponseSelection {
  std::vector<int64_t> places;  // in ResponseSet.responses, ascending
  std::vector<bool> expresses;  // [places]
  int64_t num_expressing = 0;
  int64_t num_non_expressing = 0;

  size_t size() const { return places.size(); }
};

// Every response, by the label of the one value.
ResponseSelection AllOf(const ResponseSet& set);

ResponseSelection Selected(const ResponseSet& set, const SelectionRule& rule);

// What a rule leaves out though it is under its conditions.
struct LeftOut {
  int64_t num_unlabelled = 0;  // empty ones included
  int64_t num_dropped = 0;     // empty, with a label
};
LeftOut LeftOutOf(const ResponseSet& set, const SelectionRule& rule);

// Takes away the responses that no rule selects.
void KeepSelected(std::span<const SelectionRule> rules, ResponseSet& set);

// SHA-256, hexadecimal, of what a study reads of the selected responses: tokens, labels, and which
// of them share a query. The same whether they are all of a set or some, came inline or as a file.
std::string DigestOf(const ResponseSet& set, const ResponseSelection& selection);
// Of all.
std::string DigestOf(const ResponseSet& set);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_RESPONSE_SELECTION_H_
