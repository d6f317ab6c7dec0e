#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "engine/logit_row.h"

namespace valuescope::engine {
namespace {

constexpr float kMaxTemperature = 100.0f;
constexpr size_t kMaxStops = 16;
constexpr size_t kMaxStopBytes = size_t{64} << 10;  // together: every completion looks for them
constexpr size_t kMaxStopTokens = 256;

absl::Status CheckRange(absl::string_view field, double value, double lowest, double highest) {
  if (value >= lowest && value <= highest) return absl::OkStatus();  // NaN fails both
  return OutOfRange(field, value, lowest, highest);
}

// splitmix64 over (seed, index): a counter needs no state to keep or restore.
double UniformFrom(uint64_t seed, uint64_t index) {
  uint64_t z = seed + 0x9e3779b97f4a7c15ull * (index + 1);
  for (int round = 0; round < 2; ++round) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
  }
  return static_cast<double>(z >> 11) * 0x1.0p-53;
}

// What a draw writes that is as wide as the vocabulary. Each thread that draws keeps its own, so
// that a token takes no memory from the system and gives none back.
struct Scratch {
  std::vector<float> penalised, weights, scores;
  std::vector<int32_t> ids;
  Candidates kept;
};

Scratch& ScratchOfThread() {
  thread_local Scratch scratch;
  return scratch;
}

std::span<const float> Penalised(std::span<const float> logits, float penalty,
                                 const std::vector<int32_t>& seen, std::vector<float>& result) {
  result.assign(logits.begin(), logits.end());
  for (const int32_t id : seen) {
    const float logit = logits[id];  // read from the source: an id seen twice is penalised once
    result[id] = logit > 0 ? logit / penalty : logit * penalty;
  }
  return result;
}

enum class Ties : uint8_t { kLowestIdFirst, kHighestIdFirst };

// Sorts the first `count` tokens by falling score.
void SortFirst(std::vector<int32_t>& ids, std::span<const float> scores, size_t count, Ties ties) {
  const auto before = [&](int32_t a, int32_t b) {
    if (scores[a] != scores[b]) return scores[a] > scores[b];
    return ties == Ties::kLowestIdFirst ? a < b : a > b;
  };
  std::partial_sort(ids.begin(),
                    ids.begin() + static_cast<std::ptrdiff_t>(std::min(count, ids.size())),
                    ids.end(), before);
}

void ListAll(size_t count, std::vector<int32_t>& ids) {
  ids.resize(count);
  std::iota(ids.begin(), ids.end(), 0);
}

// How many tokens score at least as high as the k-th; permutes `ids`.
size_t CountOfTop(int k, std::vector<int32_t>& ids, std::span<const float> scores) {
  if (k == 0 || static_cast<size_t>(k) >= ids.size()) return ids.size();
  const auto kth = ids.begin() + (k - 1);
  std::nth_element(ids.begin(), kth, ids.end(),
                   [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  const float least = scores[*kth];
  return static_cast<size_t>(
      std::count_if(scores.begin(), scores.end(), [least](float score) { return score >= least; }));
}

// CandidatesOf, behind the penalty; they lie in `scratch`.
const Candidates& Filtered(std::span<const float> logits, float largest, const Sampling& sampling,
                           Scratch& scratch) {
  const std::span<const float> weights =
      WeightsOf(logits, largest, sampling.temperature, scratch.weights);
  // Rounding makes some logits equal that were not, and then they are.
  std::vector<float>& scores = scratch.scores;
  scores.assign(logits.begin(), logits.end());
  for (float& score : scores) score /= sampling.temperature;
  std::vector<int32_t>& ids = scratch.ids;
  ListAll(logits.size(), ids);
  const size_t limit = CountOfTop(sampling.top_k, ids, scores);
  // top_p is a share of the mass that top_k left.
  double mass = 0;
  if (limit == ids.size()) {
    mass = SumOf(weights);
  } else {
    SortFirst(ids, scores, limit, Ties::kHighestIdFirst);
    for (size_t i = 0; i < limit; ++i) mass += static_cast<double>(weights[ids[i]]);
  }
  // Few tokens usually hold the mass, so they are sorted in growing portions.
  Candidates& kept = scratch.kept;
  double kept_mass = 0;
  for (size_t sorted = std::min<size_t>(limit, 64);; sorted = std::min(limit, sorted * 8)) {
    SortFirst(ids, scores, sorted, Ties::kHighestIdFirst);
    kept.ids.clear();
    kept.weights.clear();
    kept_mass = 0;
    bool complete = sorted == limit;
    for (size_t i = 0; i < sorted; ++i) {
      const float weight = weights[ids[i]];
      const bool nucleus_full = kept_mass >= sampling.top_p * mass;
      if (i > 0 && (nucleus_full || weight < sampling.min_p)) {
        complete = true;
        break;
      }
      kept.ids.push_back(ids[i]);
      kept.weights.push_back(weight);
      kept_mass += static_cast<double>(weight);
    }
    if (complete || kept_mass >= sampling.top_p * mass) return kept;
  }
}

absl::Status CheckStopTokens(const std::vector<int32_t>& ids, int64_t vocabulary) {
  if (ids.size() > kMaxStopTokens) {
    return InvalidField("stop_token_ids",
                        absl::StrCat("has ", ids.size(), " ids, allowed are at most ",
                                     kMaxStopTokens, ", each counted once"));
  }
  for (const int32_t id : ids) {
    if (absl::Status s = CheckRange("stop_token_ids", id, 0, static_cast<double>(vocabulary - 1));
        !s.ok())
      return s;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckSampling(const Sampling& sampling, int64_t vocabulary) {
  if (absl::Status s = CheckRange("temperature", sampling.temperature, 0, kMaxTemperature); !s.ok())
    return s;
  if (!(sampling.top_p > 0 && sampling.top_p <= 1)) {
    return InvalidField(
        "top_p", absl::StrCat("is ", sampling.top_p, ", allowed are numbers above 0 up to 1"),
        "OUT_OF_RANGE");
  }
  if (absl::Status s = CheckRange("top_k", sampling.top_k, 0, std::numeric_limits<int32_t>::max());
      !s.ok())
    return s;
  if (absl::Status s = CheckRange("min_p", sampling.min_p, 0, 1); !s.ok()) return s;
  // Beyond this, logits leave what numbers can hold.
  if (absl::Status s = CheckRange("repetition_penalty", sampling.repetition_penalty, 0.01f, 100);
      !s.ok())
    return s;
  if (sampling.stop.size() > kMaxStops) {
    return InvalidField("stop", absl::StrCat("has ", sampling.stop.size(),
                                             " strings, allowed are at most ", kMaxStops));
  }
  size_t stop_bytes = 0;
  for (size_t i = 0; i < sampling.stop.size(); ++i) {
    if (sampling.stop[i].empty())
      return InvalidField(absl::StrCat("stop[", i, "]"), "must not be empty");
    stop_bytes += sampling.stop[i].size();
  }
  if (stop_bytes > kMaxStopBytes) {
    return InvalidField("stop", absl::StrCat("has ", stop_bytes, " bytes, allowed are at most ",
                                             kMaxStopBytes, " of all strings together"));
  }
  return CheckStopTokens(sampling.stop_token_ids, vocabulary);
}

Candidates CandidatesOf(std::span<const float> logits, const Sampling& sampling,
                        const std::vector<int32_t>& seen) {
  Scratch& scratch = ScratchOfThread();
  logits = Penalised(logits, sampling.repetition_penalty, seen, scratch.penalised);
  return Filtered(logits, logits[IndexOfLargest(logits)], sampling, scratch);
}

int32_t SampleToken(std::span<const float> logits, const Sampling& sampling,
                    const std::vector<int32_t>& seen, int64_t index) {
  Scratch& scratch = ScratchOfThread();
  if (sampling.repetition_penalty != 1.0f) {
    logits = Penalised(logits, sampling.repetition_penalty, seen, scratch.penalised);
  }
  const int32_t likeliest = IndexOfLargest(logits);
  if (sampling.temperature == 0) return likeliest;

  const float largest = logits[static_cast<size_t>(likeliest)];
  const double uniform = UniformFrom(sampling.seed, static_cast<uint64_t>(index));
  const bool truncates = sampling.top_p < 1 || sampling.min_p > 0 || sampling.top_k > 0;
  if (!truncates) {
    const std::span<const float> weights =
        WeightsOf(logits, largest, sampling.temperature, scratch.weights);
    return static_cast<int32_t>(IndexOfSum(weights, uniform * SumOf(weights)));
  }
  const Candidates& kept = Filtered(logits, largest, sampling, scratch);
  return kept.ids[IndexOfSum(kept.weights, uniform * SumOf(kept.weights))];
}

TokenLogprob LogprobOf(std::span<const float> logits, int32_t token, int top) {
  const float largest = logits[static_cast<size_t>(IndexOfLargest(logits))];
  const double normaliser = static_cast<double>(largest) + std::log(SumOfWeights(logits, largest));
  TokenLogprob result{
      .id = token, .logprob = static_cast<float>(logits[token] - normaliser), .top = {}};
  if (top > 0) {
    std::vector<int32_t>& ids = ScratchOfThread().ids;
    ListAll(logits.size(), ids);
    SortFirst(ids, logits, static_cast<size_t>(top), Ties::kLowestIdFirst);
    for (int i = 0; i < std::min<int>(top, static_cast<int>(ids.size())); ++i) {
      result.top.emplace_back(ids[i], static_cast<float>(logits[ids[i]] - normaliser));
    }
  }
  return result;
}

}  // namespace valuescope::engine
