#include "kinds/study_kept_apart.h"

#include <initializer_list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "text/word_list.h"

namespace valuescope::kinds {
namespace {

using Spec = v1::ValueStudySpec;

constexpr int kMostSystemMessages = 64, kMostLanguages = 8;
constexpr size_t kMostNameBytes = 64;
constexpr int kFewestTestQueries = 2;

std::string ValueField(int value) { return absl::StrCat("values[", value, "]"); }
std::string LanguageField(int language) { return absl::StrCat("languages[", language, "]"); }

absl::Status CheckName(const std::string& field, const std::string& name,
                       std::set<std::string>& names) {
  const bool bad = absl::c_any_of(name, [](char c) {
    return absl::ascii_isspace(static_cast<uint8_t>(c)) || c == '/' || c == '=';
  });
  if (name.empty() || name.size() > kMostNameBytes || bad) {
    return InvalidField(field, absl::StrCat("must have 1 .. ", kMostNameBytes,
                                            " bytes without white space, `/` and `=`"));
  }
  if (names.insert(name).second) return absl::OkStatus();
  return InvalidField(field, absl::StrCat("is `", name, "`, as that of another is"));
}

absl::Status CheckQueries(const Spec& spec) {
  if (spec.development_queries().empty()) {
    return InvalidField("development_queries", "must have a query, that layers are chosen by");
  }
  if (spec.test_queries_size() < kFewestTestQueries) {
    return OutOfRange("test_queries", spec.test_queries_size(), kFewestTestQueries, 1 << 20);
  }
  std::set<std::string> seen(spec.queries().begin(), spec.queries().end());
  const auto add = [&](const std::string& list, const auto& queries) -> absl::Status {
    for (int i = 0; i < queries.size(); ++i) {
      if (seen.insert(queries[i]).second) continue;
      return InvalidField(absl::StrCat(list, "[", i, "]"),
                          "stands elsewhere in the study too: what is chosen by a query cannot be "
                          "reported on it",
                          "QUERY_REUSED");
    }
    return absl::OkStatus();
  };
  VS_RETURN_IF_ERROR(add("development_queries", spec.development_queries()));
  VS_RETURN_IF_ERROR(add("test_queries", spec.test_queries()));
  for (int l = 0; l < spec.languages_size(); ++l) {
    VS_RETURN_IF_ERROR(
        add(absl::StrCat(LanguageField(l), ".test_queries"), spec.languages(l).test_queries()));
  }
  return absl::OkStatus();
}

// The word list of a judge; null for one that is a model.
absl::StatusOr<std::unique_ptr<text::WordList>> WordsOf(const std::string& field,
                                                        const v1::Judge& judge) {
  if (judge.judge_case() == v1::Judge::JUDGE_NOT_SET) {
    return InvalidField(field, "must have word_list or rubric");
  }
  if (!judge.has_word_list()) return nullptr;
  const auto& words = judge.word_list().words();
  auto list = text::WordList::Create(std::vector<std::string>(words.begin(), words.end()));
  if (!list.ok()) return InField(absl::StrCat(field, ".word_list"), list.status());
  return list;
}

// A word of one list that the other finds.
absl::Status CheckApart(const std::string& field, const text::WordList* labels,
                        const v1::Judge& score) {
  if (labels == nullptr || !score.has_word_list()) return absl::OkStatus();
  const auto& words = score.word_list().words();
  for (int i = 0; i < words.size(); ++i) {
    std::string word = words[i];
    if (!word.empty() && word.back() == '*') word.pop_back();
    VS_ASSIGN_OR_RETURN(const bool found, labels->OccursIn(word));
    if (!found) continue;
    return InvalidField(absl::StrCat(field, ".word_list.words[", i, "]"),
                        "is one that the judge of the value looks for too: what is selected by a "
                        "word cannot be scored by it",
                        "JUDGES_OVERLAP");
  }
  return absl::OkStatus();
}

// System messages in which a judge would find its words.
absl::Status CheckMessages(int value, const v1::ValueDefinition& of,
                           std::initializer_list<const text::WordList*> judges) {
  const std::string field = absl::StrCat(ValueField(value), ".system_messages");
  for (int i = 0; i < of.system_messages_size(); ++i) {
    for (const text::WordList* const words : judges) {
      if (words == nullptr) continue;
      const auto found = words->OccursIn(of.system_messages(i));
      if (!found.ok()) return InvalidField(absl::StrCat(field, "[", i, "]"), "must be UTF-8");
      if (!*found) continue;
      return InvalidField(absl::StrCat(field, "[", i, "]"),
                          "holds a word that a judge of the value looks for: a model that repeats "
                          "its prompt would seem to express the value",
                          "WORD_IN_SYSTEM_MESSAGE");
    }
  }
  return absl::OkStatus();
}

// A judge that scores, beside the one that labels.
absl::Status CheckScores(const std::string& field, const v1::ValueDefinition& value, int number,
                         const v1::Judge& score) {
  const std::string of_value = ValueField(number);
  VS_ASSIGN_OR_RETURN(const auto labels, WordsOf(absl::StrCat(of_value, ".judge"), value.judge()));
  VS_ASSIGN_OR_RETURN(const auto scores, WordsOf(field, score));
  if (value.judge().SerializeAsString() == score.SerializeAsString()) {
    return InvalidField(field, "is the judge that labels: what selects cannot score",
                        "JUDGES_OVERLAP");
  }
  VS_RETURN_IF_ERROR(CheckApart(field, labels.get(), score));
  VS_RETURN_IF_ERROR(CheckApart(absl::StrCat(of_value, ".judge"), scores.get(), value.judge()));
  return CheckMessages(number, value, {labels.get(), scores.get()});
}

absl::Status CheckValues(const Spec& spec) {
  std::set<std::string> names;
  for (int v = 0; v < spec.values_size(); ++v) {
    const v1::ValueDefinition& value = spec.values(v);
    const std::string field = ValueField(v);
    VS_RETURN_IF_ERROR(CheckName(absl::StrCat(field, ".value"), value.value(), names));
    if (value.system_messages().empty() || value.system_messages_size() > kMostSystemMessages) {
      return OutOfRange(absl::StrCat(field, ".system_messages"), value.system_messages_size(), 1,
                        kMostSystemMessages);
    }
    VS_RETURN_IF_ERROR(
        CheckScores(absl::StrCat(field, ".score_judge"), value, v, value.score_judge()));
  }
  return absl::OkStatus();
}

// One judge of each value, in any order.
absl::Status CheckJudges(const Spec& spec, const std::string& field,
                         const v1::StudyLanguage& language) {
  std::map<std::string, int> missing;
  for (int v = 0; v < spec.values_size(); ++v) missing[spec.values(v).value()] = v;
  for (int j = 0; j < language.judges_size(); ++j) {
    const v1::LanguageJudge& judge = language.judges(j);
    const std::string of_judge = absl::StrCat(field, "[", j, "]");
    const auto value = missing.find(judge.value());
    if (value == missing.end()) {
      return InvalidField(absl::StrCat(of_judge, ".value"),
                          "must be a value of the study that has no other judge here");
    }
    VS_RETURN_IF_ERROR(CheckScores(absl::StrCat(of_judge, ".score_judge"),
                                   spec.values(value->second), value->second, judge.score_judge()));
    missing.erase(value);
  }
  if (missing.empty()) return absl::OkStatus();
  return InvalidField(field, absl::StrCat("lacks the judge of `", missing.begin()->first, "`"));
}

absl::Status CheckLanguages(const Spec& spec) {
  if (spec.languages_size() > kMostLanguages) {
    return OutOfRange("languages", spec.languages_size(), 0, kMostLanguages);
  }
  std::set<std::string> names;
  for (int l = 0; l < spec.languages_size(); ++l) {
    const v1::StudyLanguage& language = spec.languages(l);
    const std::string field = LanguageField(l);
    VS_RETURN_IF_ERROR(CheckName(absl::StrCat(field, ".name"), language.name(), names));
    const int queries = language.test_queries_size();
    if (queries == 0 && !language.has_questionnaire()) {
      return InvalidField(field, "must have test_queries or questionnaire");
    }
    if (queries > 0 && queries < kFewestTestQueries) {
      return OutOfRange(absl::StrCat(field, ".test_queries"), queries, kFewestTestQueries, 1 << 20);
    }
    if (queries > 0) {
      VS_RETURN_IF_ERROR(CheckJudges(spec, absl::StrCat(field, ".judges"), language));
    } else if (!language.judges().empty()) {
      return InvalidField(absl::StrCat(field, ".judges"), "must be empty without test_queries");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckKeptApart(const Spec& spec) {
  VS_RETURN_IF_ERROR(CheckQueries(spec));
  VS_RETURN_IF_ERROR(CheckValues(spec));
  return CheckLanguages(spec);
}

}  // namespace valuescope::kinds
