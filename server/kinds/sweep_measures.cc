#include "kinds/sweep_measures.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "analysis/statistics.h"

namespace valuescope::kinds {
namespace {

std::optional<double> Told(bool told, double value) {
  return told ? std::optional<double>(value) : std::nullopt;
}

// Adds measures of one evaluation.
class Adder {
 public:
  Adder(const std::string& evaluation, SweepMeasures& measures)
      : evaluation_(evaluation), measures_(measures) {}

  v1::SweepMeasure& Add(absl::string_view name, std::optional<double> value) {
    v1::SweepMeasure& measure = *measures_.Add();
    measure.set_evaluation(evaluation_);
    measure.set_measure(std::string(name));
    if (value && std::isfinite(*value)) measure.set_value(*value);
    return measure;
  }

  // A part of `count`, with Wilson's interval; without a value where there are none.
  void AddShare(absl::string_view name, int64_t part, int64_t count) {
    if (count == 0) {
      Add(name, std::nullopt);
      return;
    }
    const auto successes = static_cast<double>(part), trials = static_cast<double>(count);
    const analysis::ConfidenceInterval interval = analysis::WilsonInterval(successes, trials);
    v1::SweepMeasure& measure = Add(name, successes / trials);
    measure.set_lower(interval.lower);
    measure.set_upper(interval.upper);
  }

  // The same of a share that is known.
  void AddShare(absl::string_view name, std::optional<double> share, int64_t count) {
    if (share) {
      AddShare(name, std::llround(*share * static_cast<double>(count)), count);
    } else {
      Add(name, std::nullopt);
    }
  }

  // "score.VALUE" and "centred.VALUE" of each.
  void AddValues(const google::protobuf::RepeatedPtrField<v1::ValueScore>& values) {
    for (const v1::ValueScore& value : values) {
      v1::SweepMeasure& score = Add(absl::StrCat("score.", value.value()), value.score());
      if (value.has_standard_error()) {
        score.set_lower(value.score() - analysis::kWithin95 * value.standard_error());
        score.set_upper(value.score() + analysis::kWithin95 * value.standard_error());
      }
      Add(absl::StrCat("centred.", value.value()), value.centred());
    }
  }

 private:
  const std::string& evaluation_;
  SweepMeasures& measures_;
};

const v1::NgramDiversity& DiversityOf(const v1::TextMeasures& texts, int32_t n) {
  const auto found =
      std::find_if(texts.diversity().begin(), texts.diversity().end(),
                   [n](const v1::NgramDiversity& diversity) { return diversity.n() == n; });
  return found == texts.diversity().end() ? v1::NgramDiversity::default_instance() : *found;
}

}  // namespace

void JudgedCounts::Add(const SavedResponse& response) {
  ++responses;
  empty += response.ids().empty();
  expressing += response.expresses();
  answers += response.has_answer_mass();
  mass += response.answer_mass();
}

void AddMeasures(const std::string& name, const v1::MeasureTextsRequest& request,
                 const JudgedCounts& counts, const v1::TextMeasures& texts,
                 SweepMeasures& measures) {
  Adder adder(name, measures);
  if (counts.labelled) adder.AddShare("expressing_share", counts.expressing, counts.responses);
  if (counts.asked) {
    adder.Add("answer_mass",
              Told(counts.answers > 0, counts.mass / static_cast<double>(counts.answers)));
  }
  adder.AddShare("empty_share", counts.empty, counts.responses);
  for (const int32_t n : request.ngrams()) {
    const v1::NgramDiversity& diversity = DiversityOf(texts, n);
    adder.Add(absl::StrCat("distinct_", n), Told(diversity.has_distinct(), diversity.distinct()));
    adder.Add(absl::StrCat("expectation_adjusted_distinct_", n),
              Told(diversity.has_expectation_adjusted_distinct(),
                   diversity.expectation_adjusted_distinct()));
  }
  adder.Add("self_bleu", Told(texts.has_self_bleu(), texts.self_bleu()));
  adder.Add("mean_tokens", Told(texts.has_mean_tokens(), texts.mean_tokens()));
  const int64_t told = texts.num_texts() - texts.num_empty();
  adder.AddShare("coherent_share", Told(texts.has_coherent_share(), texts.coherent_share()), told);
  if (!request.refusal_phrases().empty()) {
    const int64_t coherent = std::llround(texts.coherent_share() * static_cast<double>(told));
    adder.AddShare("refusal_rate", Told(texts.has_refusal_rate(), texts.refusal_rate()), coherent);
  }
  for (int i = 0; i < request.instructions_size(); ++i) {
    const v1::InstructionRate& followed = i < texts.instructions_size()
                                              ? texts.instructions(i)
                                              : v1::InstructionRate::default_instance();
    adder.AddShare(absl::StrCat("instruction_", i), Told(followed.has_rate(), followed.rate()),
                   told);
  }
  if (request.perplexity())
    adder.Add("perplexity", Told(texts.has_perplexity(), texts.perplexity()));
}

void AddMeasures(const std::string& name, const v1::QuestionnaireResult& result,
                 SweepMeasures& measures) {
  Adder adder(name, measures);
  adder.AddValues(result.values());
  adder.Add("mean", result.mean());
  adder.Add("label_mass", result.label_mass());
  adder.Add("most_frequent_share", result.most_frequent_share());
}

void AddMeasures(const std::string& name, v1::ChoiceReading reading,
                 const v1::ChoicesResult& result, SweepMeasures& measures) {
  Adder adder(name, measures);
  v1::SweepMeasure& accuracy = adder.Add("accuracy", result.accuracy());
  accuracy.set_lower(result.accuracy_interval().lower());
  accuracy.set_upper(result.accuracy_interval().upper());
  adder.Add("mean_probability", result.mean_probability());
  adder.Add("brier_score", result.brier_score());
  adder.Add("calibration_error", result.calibration_error());
  if (reading != v1::CHOICE_READING_CONTINUATIONS) {
    adder.Add("label_mass", Told(result.has_label_mass(), result.label_mass()));
  }
}

void AddMeasures(const std::string& name, const v1::TaggedResult& result, SweepMeasures& measures) {
  Adder(name, measures).AddValues(result.values());
}

}  // namespace valuescope::kinds
