#include "studies/measure_texts.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/error.h"
#include "base/split_mix.h"
#include "base/status_macros.h"
#include "studies/distinct_elements.h"

namespace valuescope::studies {
namespace {

constexpr int kMostNgram = 8, kMostNgrams = 8;
constexpr int kFewestBleuTexts = 2, kMostBleuTexts = 2000, kDefaultBleuTexts = 500;
// Mean lengths of two conditions, one by the other, above which Distinct-n tells them apart by
// length alone.
constexpr double kDifferentLengths = 1.5;

// Those of the `most` smallest draws, in order.
std::vector<analysis::TokenSpan> Drawn(const std::vector<analysis::TokenSpan>& texts, size_t most,
                                       uint64_t seed) {
  if (texts.size() <= most) return texts;
  std::vector<std::pair<uint64_t, size_t>> draws;
  for (size_t i = 0; i < texts.size(); ++i) draws.emplace_back(SplitMix64(seed, i), i);
  const auto end = draws.begin() + static_cast<int64_t>(most);
  std::nth_element(draws.begin(), end, draws.end());
  std::sort(draws.begin(), end, [](const auto& a, const auto& b) { return a.second < b.second; });
  std::vector<analysis::TokenSpan> drawn;
  for (auto draw = draws.begin(); draw != end; ++draw) drawn.push_back(texts[draw->second]);
  return drawn;
}

using TextsOfCondition = std::vector<const MeasuredText*>;

void CountOneByOne(const v1::MeasureTextsRequest& request, const TextsOfCondition& texts,
                   v1::TextMeasures& measures) {
  int64_t tokens = 0, coherent = 0, refusing = 0;
  std::vector<int64_t> following(static_cast<size_t>(request.instructions_size()), 0);
  double logprob = 0;
  for (const MeasuredText* text : texts) {
    tokens += static_cast<int64_t>(text->ids.size());
    coherent += text->coherent;
    refusing += text->coherent && text->refuses;
    logprob += text->logprob;
    for (size_t i = 0; i < following.size(); ++i) following[i] += text->followed >> i & 1;
  }
  const auto count = static_cast<double>(texts.size());
  for (int i = 0; i < request.instructions_size(); ++i) {
    v1::InstructionRate& rate = *measures.add_instructions();
    rate.set_instruction(i);
    if (!texts.empty()) {
      rate.set_rate(static_cast<double>(following[static_cast<size_t>(i)]) / count);
    }
  }
  if (texts.empty()) return;
  measures.set_mean_tokens(static_cast<double>(tokens) / count);
  measures.set_coherent_share(static_cast<double>(coherent) / count);
  if (!request.refusal_phrases().empty() && coherent > 0) {
    measures.set_refusal_rate(static_cast<double>(refusing) / static_cast<double>(coherent));
  }
  if (request.perplexity()) {
    measures.set_perplexity(std::exp(-logprob / static_cast<double>(tokens)));
  }
}

absl::Status MeasureTogether(const v1::MeasureTextsRequest& request,
                             const std::vector<analysis::TokenSpan>& texts,
                             const Cancellation& cancellation, v1::TextMeasures& measures) {
  for (const int n : request.ngrams()) {
    VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
    VS_ASSIGN_OR_RETURN(const analysis::NgramDiversity found,
                        analysis::ComputeNgramDiversity(texts, n, request.vocabulary()));
    v1::NgramDiversity& diversity = *measures.add_diversity();
    diversity.set_n(n);
    diversity.set_num_ngrams(found.num_ngrams);
    diversity.set_num_distinct(found.num_distinct);
    if (!found.distinct) continue;
    diversity.set_distinct(*found.distinct);
    diversity.set_expectation_adjusted_distinct(*found.expectation_adjusted);
    diversity.set_entropy(*found.entropy);
  }
  VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
  const std::vector<analysis::TokenSpan> drawn =
      Drawn(texts, static_cast<size_t>(request.self_bleu_texts()), request.seed());
  measures.set_self_bleu_texts(static_cast<int32_t>(drawn.size()));
  if (const auto self_bleu = analysis::SelfBleu(drawn)) measures.set_self_bleu(*self_bleu);
  return absl::OkStatus();
}

std::string NameOf(const v1::TextMeasures& measures) {
  return measures.condition().empty() ? "the texts without a condition"
                                      : absl::StrCat("`", measures.condition(), "`");
}

void Warn(v1::MeasureTextsResponse& response) {
  double shortest = std::numeric_limits<double>::infinity(), longest = 0;
  for (const v1::TextMeasures& measures : response.measures()) {
    if (measures.num_empty() == measures.num_texts()) {
      response.add_warnings(absl::StrCat(NameOf(measures), ": all texts are empty"));
      continue;
    }
    shortest = std::min(shortest, measures.mean_tokens());
    longest = std::max(longest, measures.mean_tokens());
    if (measures.coherent_share() >= .5) continue;
    response.add_warnings(absl::StrFormat(
        "%s: only %.3g of the texts are coherent; the others repeat a token or a pair",
        NameOf(measures), measures.coherent_share()));
  }
  if (longest > kDifferentLengths * shortest) {
    response.add_warnings(absl::StrFormat(
        "texts have %.3g to %.3g tokens on average: longer texts have a lower Distinct-n whatever "
        "they say; compare the expectation-adjusted one",
        shortest, longest));
  }
}

}  // namespace

absl::StatusOr<v1::MeasureTextsRequest> WithDefaults(const v1::MeasureTextsRequest& request,
                                                     int64_t vocabulary) {
  v1::MeasureTextsRequest filled;
  *filled.mutable_ngrams() = request.ngrams();
  if (filled.ngrams_size() > kMostNgrams) {
    return OutOfRange("ngrams", filled.ngrams_size(), 0, kMostNgrams);
  }
  for (int i = 0; i < filled.ngrams_size(); ++i) {
    if (filled.ngrams(i) >= 1 && filled.ngrams(i) <= kMostNgram) continue;
    return OutOfRange(absl::StrCat("ngrams[", i, "]"), filled.ngrams(i), 1, kMostNgram);
  }
  VS_RETURN_IF_ERROR(CheckDistinct("ngrams", filled.ngrams(), [](int n) { return n; }));
  if (filled.ngrams().empty()) {
    for (const int n : {1, 2, 3}) filled.add_ngrams(n);
  }
  filled.set_vocabulary(request.has_vocabulary() ? request.vocabulary() : vocabulary);
  if (filled.vocabulary() < 1) {
    return OutOfRange("vocabulary", static_cast<double>(filled.vocabulary()), 1,
                      static_cast<double>(std::numeric_limits<int64_t>::max()));
  }
  filled.set_self_bleu_texts(request.has_self_bleu_texts() ? request.self_bleu_texts()
                                                           : kDefaultBleuTexts);
  if (filled.self_bleu_texts() < kFewestBleuTexts || filled.self_bleu_texts() > kMostBleuTexts) {
    return OutOfRange("self_bleu_texts", filled.self_bleu_texts(), kFewestBleuTexts,
                      kMostBleuTexts);
  }
  *filled.mutable_refusal_phrases() = request.refusal_phrases();
  *filled.mutable_instructions() = request.instructions();
  filled.set_perplexity(request.perplexity());
  filled.set_seed(request.seed());
  return filled;
}

absl::StatusOr<v1::MeasureTextsResponse> MeasureTexts(const v1::MeasureTextsRequest& request,
                                                      std::span<const MeasuredText> texts,
                                                      const Cancellation& cancellation) {
  v1::MeasureTextsResponse response;
  std::map<std::string, int> numbers;  // of conditions, in the order in which they first occur
  std::vector<TextsOfCondition> conditions;  // without the empty ones
  for (const MeasuredText& text : texts) {
    const auto [place, is_new] = numbers.emplace(*text.condition, response.measures_size());
    if (is_new) {
      response.add_measures()->set_condition(*text.condition);
      conditions.emplace_back();
    }
    v1::TextMeasures& measures = *response.mutable_measures(place->second);
    measures.set_num_texts(measures.num_texts() + 1);
    if (text.ids.empty()) {
      measures.set_num_empty(measures.num_empty() + 1);
    } else {
      conditions[static_cast<size_t>(place->second)].push_back(&text);
    }
  }
  for (int c = 0; c < response.measures_size(); ++c) {
    v1::TextMeasures& measures = *response.mutable_measures(c);
    measures.set_vocabulary(request.vocabulary());
    const TextsOfCondition& of_condition = conditions[static_cast<size_t>(c)];
    CountOneByOne(request, of_condition, measures);
    std::vector<analysis::TokenSpan> ids;
    for (const MeasuredText* text : of_condition) ids.push_back(text->ids);
    VS_RETURN_IF_ERROR(MeasureTogether(request, ids, cancellation, measures));
  }
  Warn(response);
  return response;
}

}  // namespace valuescope::studies
