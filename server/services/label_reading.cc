#include "services/label_reading.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/error.h"
#include "base/host_tensor.h"
#include "base/status_macros.h"
#include "engine/logit_row.h"
#include "services/result_codec.h"

namespace valuescope::services {
namespace {

using Sequence = std::vector<int32_t>;

absl::Status Unreadable(const engine::ServedModel& model, absl::string_view label) {
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "UNREADABLE_LABELS",
                         absl::StrCat("models/", model.id, " has no tokens that tell the label `",
                                      label, "` from the others"));
}

// How a label may be said, each way once.
absl::StatusOr<std::vector<Sequence>> SequencesOf(const Spellings& spellings,
                                                  const engine::ServedModel& model) {
  std::set<Sequence> sequences;
  for (const std::string& spelling : spellings) {
    for (const char* before : {"", " "}) {
      VS_ASSIGN_OR_RETURN(Sequence ids, model.text->EncodeText(absl::StrCat(before, spelling),
                                                               /*add_special_tokens=*/false));
      if (ids.empty() || ids.front() >= model.architecture.vocabulary) continue;
      sequences.insert(std::move(ids));
    }
  }
  return std::vector<Sequence>(sequences.begin(), sequences.end());
}

std::set<int32_t> SingleTokens(const std::vector<Sequence>& sequences) {
  std::set<int32_t> tokens;
  for (const Sequence& sequence : sequences) {
    if (sequence.size() == 1) tokens.insert(sequence.front());
  }
  return tokens;
}

std::set<int32_t> FirstTokens(const std::vector<Sequence>& sequences) {
  std::set<int32_t> tokens;
  for (const Sequence& sequence : sequences) tokens.insert(sequence.front());
  return tokens;
}

// Takes out of every set what stands in another. Whether there was anything.
bool TakeOutShared(std::vector<std::set<int32_t>>& sets) {
  std::set<int32_t> seen, shared;
  for (const std::set<int32_t>& tokens : sets) {
    for (const int32_t token : tokens) {
      if (!seen.insert(token).second) shared.insert(token);
    }
  }
  for (std::set<int32_t>& tokens : sets) {
    std::erase_if(tokens, [&](int32_t token) { return shared.contains(token); });
  }
  return !shared.empty();
}

bool IsEmpty(const std::set<int32_t>& tokens) { return tokens.empty(); }

bool Begins(const Sequence& start, const Sequence& whole) {
  return start.size() < whole.size() && std::equal(start.begin(), start.end(), whole.begin());
}

// log sum exp, of at least one.
double LogSum(std::span<const double> logs) {
  const double largest = *std::max_element(logs.begin(), logs.end());
  double sum = 0;
  for (const double one : logs) sum += std::exp(one - largest);
  return largest + std::log(sum);
}

// log(exp(log) - the sum of exp(inner)), where what is taken out is part of it.
double WithoutInner(double log, const std::vector<double>& inner) {
  double left = 1;
  for (const double one : inner) left -= std::exp(one - log);
  return log + std::log(std::max(0.0, left));
}

// Of log-probabilities of the labels, at least one of which is finite.
LabelReading ReadingOf(const std::vector<double>& logs) {
  LabelReading reading;
  const double all = LogSum(logs);
  for (const double one : logs) reading.probabilities.push_back(std::exp(one - all));
  reading.mass = std::min(1.0, std::exp(all));  // rounding may lead above
  return reading;
}

// One of those that a question takes.
struct Pass {
  enum class Kind { kLogits, kSpelling, kSample };  // the logits may be read where one samples

  size_t question = 0;
  Kind kind = Kind::kLogits;
  size_t label = 0, spelling = 0;
};

struct Passes {
  std::vector<engine::Request> requests;
  std::vector<Pass> of;

  void Add(engine::Request request, Pass pass) {
    requests.push_back(std::move(request));
    of.push_back(pass);
  }
};

void AddSpellings(const LabelQuestion& question, size_t index, Passes& passes) {
  for (size_t label = 0; label < question.labels->size(); ++label) {
    const std::vector<Sequence>& spellings = question.labels->sequences()[label];
    for (size_t spelling = 0; spelling < spellings.size(); ++spelling) {
      engine::Request request = question.request;
      request.sampling.reset();
      request.given_response = spellings[spelling];
      request.score_response = true;
      passes.Add(
          std::move(request),
          {.question = index, .kind = Pass::Kind::kSpelling, .label = label, .spelling = spelling});
    }
  }
}

Passes PassesOf(std::vector<LabelQuestion>& questions) {
  Passes passes;
  for (size_t i = 0; i < questions.size(); ++i) {
    engine::Request& request = questions[i].request;
    if (!questions[i].labels->by_sequences()) {
      request.taps = {LogitsBehindThePrompt()};
      passes.Add(std::move(request), {.question = i, .kind = Pass::Kind::kLogits});
      continue;
    }
    AddSpellings(questions[i], i, passes);
    if (!request.sampling) continue;
    passes.Add(std::move(request), {.question = i, .kind = Pass::Kind::kSample});
  }
  return passes;
}

absl::StatusOr<LabelReading> ReadCapture(const engine::Completion& completion, int64_t vocabulary,
                                         const LabelTokens& labels) {
  VS_ASSIGN_OR_RETURN(const std::vector<float> logits,
                      ToFloat32(completion.captures.front().tensor));
  if (static_cast<int64_t>(logits.size()) != vocabulary) {
    return ErrorWithReason(absl::StatusCode::kInternal, "CAPTURE_SHAPE",
                           "the engine returned a capture of another shape than asked for");
  }
  VS_RETURN_IF_ERROR(engine::CheckFinite(logits));
  return ReadTokens(logits, labels);
}

// What is known of a question until all of its passes are done.
struct Answering {
  LabelReading reading;
  std::vector<std::vector<double>> logprobs;  // by label, by spelling

  void SetProbabilities(LabelReading read) {
    reading.probabilities = std::move(read.probabilities);
    reading.mass = read.mass;
  }
};

}  // namespace

engine::Tap LogitsBehindThePrompt() {
  engine::Tap tap;
  tap.site = model::Site::kLogits;
  tap.tokens = {.kind = engine::TokenKind::kLastPrompt, .positions = {}};
  return tap;
}

absl::StatusOr<LabelTokens> LabelTokens::Of(const std::vector<Spellings>& labels,
                                            const engine::ServedModel& model,
                                            UnspelledLabels unspelled) {
  LabelTokens read;
  for (const Spellings& spellings : labels) {
    VS_ASSIGN_OR_RETURN(std::vector<Sequence> sequences, SequencesOf(spellings, model));
    if (sequences.empty()) return Unreadable(model, spellings.front());
    std::set<int32_t> tokens = SingleTokens(sequences);
    const bool by_first = tokens.empty() && unspelled == UnspelledLabels::kByFirstTokens;
    read.tokens_.push_back(by_first ? FirstTokens(sequences) : std::move(tokens));
    read.sequences_.push_back(std::move(sequences));
  }
  const bool shared = TakeOutShared(read.tokens_);
  const auto without = std::find_if(read.tokens_.begin(), read.tokens_.end(), IsEmpty);
  if (unspelled == UnspelledLabels::kByFirstTokens) {
    if (without != read.tokens_.end()) {
      return Unreadable(model, labels[static_cast<size_t>(without - read.tokens_.begin())].front());
    }
    read.sequences_.clear();
    return read;
  }
  if (!shared && without == read.tokens_.end()) {
    read.sequences_.clear();
    return read;
  }
  read.tokens_.clear();
  std::set<Sequence> seen;
  for (size_t label = 0; label < labels.size(); ++label) {
    for (const Sequence& sequence : read.sequences_[label]) {
      if (!seen.insert(sequence).second) return Unreadable(model, labels[label].front());
    }
  }
  return read;
}

LabelTokens::Cost LabelTokens::CostOfPrompt() const {
  Cost cost;
  if (!by_sequences()) return cost;
  cost.passes = 0;
  for (const std::vector<Sequence>& spellings : sequences_) {
    for (const Sequence& sequence : spellings) {
      const auto length = static_cast<int64_t>(sequence.size());
      ++cost.passes;
      cost.tokens += length;
      cost.longest = std::max(cost.longest, length);
    }
  }
  return cost;
}

LabelReading ReadTokens(std::span<const float> logits, const LabelTokens& labels) {
  const double whole = LogSum(std::vector<double>(logits.begin(), logits.end()));
  std::vector<double> logs;
  for (const std::set<int32_t>& tokens : labels.tokens()) {
    std::vector<double> chosen;
    for (const int32_t token : tokens) {
      chosen.push_back(static_cast<double>(logits[static_cast<size_t>(token)]));
    }
    logs.push_back(LogSum(chosen) - whole);
  }
  return ReadingOf(logs);
}

LabelReading ReadSequences(const std::vector<std::vector<double>>& logprobs,
                           const LabelTokens& labels) {
  const std::vector<std::vector<Sequence>>& sequences = labels.sequences();
  VS_CHECK(logprobs.size() == sequences.size());
  // log-probabilities of what other labels have that begins with `start`, but for what begins with
  // one of these in turn.
  const auto inner_of = [&](size_t label, const Sequence& start) {
    std::vector<std::pair<Sequence, double>> longer;
    for (size_t other = 0; other < sequences.size(); ++other) {
      for (size_t i = 0; other != label && i < sequences[other].size(); ++i) {
        if (!Begins(start, sequences[other][i])) continue;
        longer.emplace_back(sequences[other][i], logprobs[other][i]);
      }
    }
    std::vector<double> inner;
    for (const auto& [sequence, logprob] : longer) {
      const bool within =
          std::any_of(longer.begin(), longer.end(),
                      [&, whole = &sequence](auto& of) { return Begins(of.first, *whole); });
      if (!within) inner.push_back(logprob);
    }
    return inner;
  };
  std::vector<double> logs;
  for (size_t label = 0; label < sequences.size(); ++label) {
    double likeliest = -HUGE_VAL;
    for (size_t i = 0; i < sequences[label].size(); ++i) {
      likeliest = std::max(likeliest,
                           WithoutInner(logprobs[label][i], inner_of(label, sequences[label][i])));
    }
    logs.push_back(likeliest);
  }
  return ReadingOf(logs);
}

absl::StatusOr<std::vector<LabelReading>> ReadLabels(engine::Engine& engine,
                                                     std::vector<LabelQuestion> questions,
                                                     const Cancellation& cancellation,
                                                     v1::Usage& usage) {
  std::vector<Answering> answering(questions.size());
  for (size_t i = 0; i < questions.size(); ++i) {
    for (const auto& spellings : questions[i].labels->sequences()) {
      answering[i].logprobs.emplace_back(spellings.size());
    }
  }
  Passes passes = PassesOf(questions);
  const auto take = [&](size_t index, engine::Completion completion) -> absl::Status {
    const Pass& pass = passes.of[index];
    Answering& answer = answering[pass.question];
    AddUsage(completion, usage);
    AddReceipts(completion.receipts, answer.reading.receipts);
    if (pass.kind == Pass::Kind::kSpelling) {
      answer.logprobs[pass.label][pass.spelling] = SumOfLogprobs(completion);
      return absl::OkStatus();
    }
    answer.reading.text = std::move(completion.text);
    if (pass.kind == Pass::Kind::kSample) return absl::OkStatus();
    VS_ASSIGN_OR_RETURN(LabelReading read, ReadCapture(completion, engine.architecture().vocabulary,
                                                       *questions[pass.question].labels));
    answer.SetProbabilities(std::move(read));
    return absl::OkStatus();
  };
  VS_RETURN_IF_ERROR(engine::RunEach(engine, std::move(passes.requests), cancellation, take));
  std::vector<LabelReading> readings;
  for (size_t i = 0; i < questions.size(); ++i) {
    const LabelTokens& labels = *questions[i].labels;
    if (labels.by_sequences()) {
      answering[i].SetProbabilities(ReadSequences(answering[i].logprobs, labels));
    }
    readings.push_back(std::move(answering[i].reading));
  }
  return readings;
}

}  // namespace valuescope::services
