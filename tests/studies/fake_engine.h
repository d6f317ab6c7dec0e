// An engine whose activations follow from token ids by a formula that a test can work out by hand:
// at block l, element d of token t is t * (d + 1) + l, at every site. A tap with MEAN over the
// response's tokens therefore reads mean(t) * (d + 1) + l, and one of the last token, or of the
// prompt's, that of this token. Norms are said to be t + l. What is generated follows from the
// seed: the tokens seed % 7, % 89, % 83 and % 79, as many as may be, and none where the first would
// be 0; their text is "t" and the number of each, in words. A tap of columns reads them at every
// token.
#ifndef VALUESCOPE_TESTS_STUDIES_FAKE_ENGINE_H_
#define VALUESCOPE_TESTS_STUDIES_FAKE_ENGINE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "engine/engine.h"
#include "engine/model_registry.h"
#include "engine/served_model.h"

namespace valuescope {

class FakeEngine : public engine::Engine {
 public:
  explicit FakeEngine(int num_layers = 2, int64_t intermediate = 4) {
    architecture_.family = "llama";
    architecture_.num_layers = num_layers;
    architecture_.hidden = 3;
    architecture_.intermediate = intermediate;
    architecture_.vocabulary = 100;
    architecture_.max_positions = 64;
  }

  // Called with every request before it runs; an error is what Submit returns.
  std::function<absl::Status(const engine::Request&)> before_submit;
  std::atomic<int64_t> submitted = 0;
  // Called with a layer before its write directions are given.
  std::function<void(int layer)> before_directions;
  // Called with the first token before a part of the unembedding is given.
  std::function<void(int64_t first_token)> before_unembedding;
  int64_t most_kept = INT64_MAX;          // bytes that KeepCaptures grants
  double scale = 1;                       // of what taps read
  int64_t cached_tokens = 0;              // as every completion tells
  std::vector<engine::Receipt> receipts;  // as every completion tells
  engine::EngineStatistics told;          // as statistics tells

  const model::Architecture& architecture() const override { return architecture_; }

  absl::StatusOr<std::unique_ptr<engine::Running>> Submit(
      engine::Request request, std::shared_ptr<engine::Observer> observer) override {
    if (before_submit) {
      if (absl::Status status = before_submit(request); !status.ok()) return status;
    }
    ++submitted;
    engine::Completion completion;
    completion.prompt_tokens =
        static_cast<int64_t>(request.prompt.size() + request.given_response.size());
    completion.cached_prompt_tokens = cached_tokens;
    completion.receipts = receipts;
    if (request.sampling) Generate(*request.sampling, completion);
    for (size_t i = 0; request.score_response && i < request.given_response.size(); ++i) {
      const int32_t id = request.given_response[i];
      completion.logprobs.push_back({.id = id, .logprob = -static_cast<float>(id) / 64, .top = {}});
    }
    for (size_t i = 0; i < request.taps.size(); ++i) {
      const engine::Tap& tap = request.taps[i];
      for (size_t layer = 0; layer < tap.columns.size(); ++layer) {
        completion.captures.push_back(ColumnsOf(static_cast<int>(i), tap, layer, request));
      }
      if (!tap.columns.empty()) continue;
      completion.captures.push_back(MeanOf(static_cast<int>(i), tap, request));
    }
    observer->OnFinish(std::move(completion));
    return std::make_unique<Finished>();
  }

  // Called with every request that is only looked at; an error is what Check returns.
  std::function<absl::Status(const engine::Request&)> before_check;

  absl::Status Check(const engine::Request& request) const override {
    return before_check ? before_check(request) : absl::OkStatus();
  }

  absl::StatusOr<engine::KeptCaptures> KeepCaptures(int64_t bytes) override {
    if (bytes > most_kept) return NeverFits("CAPTURES_TOO_LARGE", "too large");
    return engine::KeptCaptures();
  }

  // Neuron i of block l writes (i + 1, i * l, -1).
  absl::StatusOr<HostTensor> WriteDirections(int layer) const override {
    if (before_directions) before_directions(layer);
    HostTensor tensor =
        HostTensor::Zeros(DType::kFloat32, {architecture_.hidden, architecture_.intermediate});
    const auto columns = tensor.MutableAs<float>();
    for (int64_t i = 0; i < architecture_.intermediate; ++i) {
      columns[static_cast<size_t>(i)] = static_cast<float>(i + 1);
      columns[static_cast<size_t>(architecture_.intermediate + i)] = static_cast<float>(i * layer);
      columns[static_cast<size_t>(2 * architecture_.intermediate + i)] = -1;
    }
    return tensor;
  }

  // Token t's row is (t, -t, 1).
  absl::StatusOr<HostTensor> UnembeddingRows(int64_t first_token, int64_t count) const override {
    if (before_unembedding) before_unembedding(first_token);
    HostTensor tensor = HostTensor::Zeros(DType::kFloat32, {count, 3});
    const auto rows = tensor.MutableAs<float>();
    for (int64_t i = 0; i < count; ++i) {
      const auto at = static_cast<size_t>(3 * i);
      rows[at] = static_cast<float>(first_token + i);
      rows[at + 1] = -rows[at];
      rows[at + 2] = 1;
    }
    return tensor;
  }

  engine::EngineStatistics statistics() const override { return told; }
  void Drain(absl::Time, const absl::Status&) override {}

 private:
  class Finished : public engine::Running {
   public:
    void Cancel() override {}
  };

  // [1, tokens, columns] of the tap's `place`-th layer.
  static engine::Capture ColumnsOf(int index, const engine::Tap& tap, size_t place,
                                   const engine::Request& request) {
    VS_CHECK(tap.reduction == engine::Reduction::kNone &&
             tap.tokens.kind == engine::TokenKind::kAll);
    std::vector<int32_t> ids = request.prompt;
    ids.insert(ids.end(), request.given_response.begin(), request.given_response.end());
    engine::Capture capture;
    capture.tap_index = index;
    capture.layers = {tap.layers[place]};
    capture.columns = tap.columns[place].values();
    capture.tensor = HostTensor::Zeros(
        DType::kFloat32,
        {1, static_cast<int64_t>(ids.size()), static_cast<int64_t>(capture.columns.size())});
    auto value = capture.tensor.MutableAs<float>().begin();
    for (size_t position = 0; position < ids.size(); ++position) {
      capture.positions.push_back(static_cast<int64_t>(position));
      for (const int64_t column : capture.columns) {
        *value++ = static_cast<float>(ids[position] * (column + 1) + tap.layers[place]);
      }
    }
    return capture;
  }

  static void Generate(const engine::Sampling& sampling, engine::Completion& completion) {
    for (const uint64_t number : {uint64_t{7}, uint64_t{89}, uint64_t{83}, uint64_t{79}}) {
      const auto id = static_cast<int32_t>(sampling.seed % number);
      if (completion.token_ids.empty() && id == 0) return;
      if (static_cast<int>(completion.token_ids.size()) == sampling.max_tokens) return;
      completion.token_ids.push_back(id);
      completion.text += (completion.text.empty() ? "t" : " t") + std::to_string(id);
      ++completion.generated_tokens;
    }
  }

  engine::Capture MeanOf(int index, const engine::Tap& tap, const engine::Request& request) const {
    double mean = 0;
    for (const int32_t id : request.given_response) mean += id;
    mean /= static_cast<double>(request.given_response.size());
    if (tap.tokens.kind == engine::TokenKind::kLast) mean = request.given_response.back();
    if (tap.tokens.kind == engine::TokenKind::kLastPrompt) mean = request.prompt.back();
    mean *= scale;
    VS_CHECK(tap.reduction != engine::Reduction::kMeanNorm ||
             tap.tokens.kind == engine::TokenKind::kResponse);
    const int64_t width =
        tap.reduction == engine::Reduction::kMeanNorm ? 1 : model::WidthOf(tap.site, architecture_);
    engine::Capture capture;
    capture.tap_index = index;
    capture.layers = tap.layers;
    const auto prompt = static_cast<int64_t>(request.prompt.size());
    const auto end = prompt + static_cast<int64_t>(request.given_response.size());
    for (int64_t position = prompt; position < end; ++position) {
      capture.positions.push_back(position);
    }
    if (tap.tokens.kind == engine::TokenKind::kLast) capture.positions = {end - 1};
    if (tap.tokens.kind == engine::TokenKind::kLastPrompt) capture.positions = {prompt - 1};
    const int64_t rows = model::IsPerLayer(tap.site) ? static_cast<int64_t>(tap.layers.size()) : 1;
    capture.tensor = HostTensor::Zeros(DType::kFloat32, {rows, 1, width});
    const auto values = capture.tensor.MutableAs<float>();
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t d = 0; d < width; ++d) {
        values[static_cast<size_t>(row * width + d)] = static_cast<float>(
            mean * static_cast<double>(d + 1) +
            (model::IsPerLayer(tap.site) ? tap.layers[static_cast<size_t>(row)] : 0));
      }
    }
    return capture;
  }

  model::Architecture architecture_;
};

// A registry of models that are ready. Thread-safe.
class FakeModels : public engine::ModelRegistry {
 public:
  std::shared_ptr<FakeEngine> Add(const std::string& id, const std::string& digest,
                                  std::shared_ptr<const text::TextModel> text = nullptr,
                                  DType dtype = DType::kFloat32,
                                  std::shared_ptr<FakeEngine> engine = nullptr) {
    if (engine == nullptr) engine = std::make_shared<FakeEngine>();
    auto model = std::make_shared<engine::ServedModel>();
    model->id = id;
    model->architecture = engine->architecture();
    model->device = "cpu";
    model->weights_digest = digest;
    model->text = std::move(text);
    model->dtype = dtype;
    model->engine = engine;
    absl::MutexLock lock(&mutex_);
    models_[id] = model;
    return engine;
  }

  void Remove(const std::string& id) {
    absl::MutexLock lock(&mutex_);
    models_.erase(id);
  }

  absl::Status StartUnloading(absl::string_view id,
                              std::weak_ptr<const std::function<void()>> gone) override {
    VS_RETURN_IF_ERROR(Get(id).status());
    if (const auto there = gone.lock()) (*there)();
    return absl::OkStatus();
  }
  absl::Status StartLoading(absl::string_view id, std::optional<DType>) override {
    return Get(id).status();
  }
  std::vector<engine::ModelEntry> List() const override {
    std::vector<engine::ModelEntry> entries;
    absl::MutexLock lock(&mutex_);
    for (const auto& [id, model] : models_) entries.push_back(Entry(model));
    return entries;
  }
  std::vector<std::shared_ptr<const engine::ServedModel>> Served() const override {
    std::vector<std::shared_ptr<const engine::ServedModel>> served;
    absl::MutexLock lock(&mutex_);
    for (const auto& [id, model] : models_) served.push_back(model);
    return served;
  }
  engine::EngineTotals Totals() const override { return {}; }
  absl::StatusOr<engine::ModelEntry> Find(absl::string_view id) const override {
    auto model = Get(id);
    if (!model.ok()) return model.status();
    return Entry(*model);
  }
  absl::StatusOr<std::shared_ptr<const engine::ServedModel>> Get(
      absl::string_view id) const override {
    absl::MutexLock lock(&mutex_);
    const auto place = models_.find(std::string(id));
    if (place == models_.end()) return ResourceNotFound("models/" + std::string(id));
    return place->second;
  }
  bool Settled() const override { return true; }
  void WaitUntilSettled() const override {}
  void StopLoading() override {}
  void Drain(absl::Time) override {}

 private:
  static engine::ModelEntry Entry(std::shared_ptr<const engine::ServedModel> model) {
    engine::ModelEntry entry;
    entry.id = model->id;
    entry.state = engine::ModelState::kReady;
    entry.progress = 1;
    entry.model = std::move(model);
    return entry;
  }

  mutable absl::Mutex mutex_;
  std::map<std::string, std::shared_ptr<const engine::ServedModel>> models_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace valuescope

#endif  // VALUESCOPE_TESTS_STUDIES_FAKE_ENGINE_H_
