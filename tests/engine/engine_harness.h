// What the tests of a running engine share: an observer that waits, requests in one line, and what
// it means that two completions are the same, to the bit.
#ifndef VALUESCOPE_TESTS_ENGINE_ENGINE_HARNESS_H_
#define VALUESCOPE_TESTS_ENGINE_ENGINE_HARNESS_H_

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "engine/engine.h"
#include "engine/engine_loop.h"
#include "engine/engine_options.h"
#include "model/transformer.h"
#include "text/text_model.h"

namespace valuescope::engine {

constexpr absl::Duration kPatience = absl::Seconds(60);

// Keeps what a request produced and lets a test wait for it.
class Recorder : public Observer {
 public:
  void OnDelta(const Delta& delta) override {
    absl::MutexLock lock(&mutex_);
    deltas_.push_back(delta);
  }
  void OnFinish(absl::StatusOr<Completion> completion) override {
    absl::MutexLock lock(&mutex_);
    ++times_finished_;
    completion_ = std::move(completion);
  }

  bool AwaitDelta() {
    absl::MutexLock lock(&mutex_);
    const auto any = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !deltas_.empty(); };
    return mutex_.AwaitWithTimeout(absl::Condition(&any), kPatience);
  }

  absl::StatusOr<Completion> Await() {
    absl::MutexLock lock(&mutex_);
    const auto finished = [this]()
                              ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return times_finished_ > 0; };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&finished), kPatience)) {
      return absl::UnknownError("the request did not end");
    }
    EXPECT_EQ(times_finished_, 1);
    return completion_;
  }

  // Lets go of the completion.
  void Forget() {
    absl::MutexLock lock(&mutex_);
    completion_ = Completion();
  }

  std::vector<Delta> deltas() {
    absl::MutexLock lock(&mutex_);
    return deltas_;
  }

 private:
  absl::Mutex mutex_;
  std::vector<Delta> deltas_ ABSL_GUARDED_BY(mutex_);
  int times_finished_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::StatusOr<Completion> completion_ ABSL_GUARDED_BY(mutex_);
};

// A vector of the residual stream's width that differs with `seed`, of length about one.
inline std::shared_ptr<const std::vector<float>> Direction(int seed, int64_t width,
                                                           int num_layers = 1) {
  std::vector<float> rows;
  for (int64_t i = 0; i < width * num_layers; ++i) {
    rows.push_back(std::sin(static_cast<float>(i * (2 * seed + 1)) + static_cast<float>(seed)) *
                   std::sqrt(2.0f / static_cast<float>(width)));
  }
  return std::make_shared<const std::vector<float>>(std::move(rows));
}

inline Intervention Steer(int layer, std::shared_ptr<const std::vector<float>> rows,
                          float coefficient, TokenKind kind = TokenKind::kFromLastPrompt) {
  return {.site = model::Site::kResidualPost,
          .layers = {layer},
          .tokens = {.kind = kind, .positions = {}},
          .operation = AddVector{.rows = std::move(rows), .coefficient = coefficient}};
}

inline Tap Read(model::Site site, std::vector<int> layers, TokenKind kind, Reduction reduction) {
  return {.site = site,
          .layers = std::move(layers),
          .tokens = {.kind = kind, .positions = {}},
          .reduction = reduction,
          .columns = {}};
}

inline std::vector<float> Floats(const Capture& capture) {
  const auto values = capture.tensor.As<float>();
  return {values.begin(), values.end()};
}

inline void ExpectSameCaptures(const std::vector<Capture>& a, const std::vector<Capture>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].layers, b[i].layers) << "tap " << i;
    EXPECT_EQ(a[i].positions, b[i].positions) << "tap " << i;
    EXPECT_EQ(a[i].tensor.shape, b[i].tensor.shape) << "tap " << i;
    EXPECT_TRUE(a[i].tensor.bytes == b[i].tensor.bytes) << "tap " << i << " differs in some bit";
  }
}

inline void ExpectSameLogprobs(const std::vector<TokenLogprob>& a,
                               const std::vector<TokenLogprob>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].id, b[i].id);
    EXPECT_EQ(a[i].logprob, b[i].logprob) << "token " << i;
    EXPECT_EQ(a[i].top, b[i].top) << "token " << i;
  }
}

inline void ExpectSame(const Completion& a, const Completion& b) {
  EXPECT_EQ(a.token_ids, b.token_ids);
  EXPECT_EQ(a.text, b.text);
  EXPECT_EQ(a.finish_reason, b.finish_reason);
  ExpectSameLogprobs(a.logprobs, b.logprobs);
  ExpectSameCaptures(a.captures, b.captures);
  ASSERT_EQ(a.receipts.size(), b.receipts.size());
  for (size_t i = 0; i < a.receipts.size(); ++i) {
    EXPECT_EQ(a.receipts[i].layers, b.receipts[i].layers);
    EXPECT_EQ(a.receipts[i].positions, b.receipts[i].positions);
  }
}

inline Request Generation(std::vector<int32_t> prompt, int max_tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.sampling = Sampling();
  request.sampling->temperature = 0;
  request.sampling->max_tokens = max_tokens;
  return request;
}

// An engine of the model in `folder`, with limits of its own.
inline std::unique_ptr<Engine> StartOwn(const std::string& folder, const EngineOptions& options) {
  auto transformer = model::Transformer::Load(folder, {.device = c10::Device(options.device),
                                                       .dtype = options.dtype,
                                                       .batch_invariant = options.batch_invariant,
                                                       .memory = options.device_memory});
  auto text = text::TextModel::Load(folder);
  EXPECT_TRUE(transformer.ok() && text.ok());
  auto engine = StartEngine(*std::move(transformer),
                            std::shared_ptr<const text::TextModel>(*std::move(text)), options);
  EXPECT_TRUE(engine.ok()) << engine.status();
  return engine.ok() ? *std::move(engine) : nullptr;
}

inline bool Becomes(const std::function<bool()>& condition) {
  const absl::Time until = absl::Now() + kPatience;
  while (!condition() && absl::Now() < until) std::this_thread::yield();
  return condition();
}

}  // namespace valuescope::engine

#endif  // VALUESCOPE_TESTS_ENGINE_ENGINE_HARNESS_H_
