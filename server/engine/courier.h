// Tells observers what a step brought, on a thread of its own, while the engine runs the next step.
// Waking those who wait for tokens takes tens of microseconds each, and a batch has many: on the
// engine's thread, everybody's next token would come that much later.
#ifndef VALUESCOPE_ENGINE_COURIER_H_
#define VALUESCOPE_ENGINE_COURIER_H_

#include <memory>
#include <thread>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"

namespace valuescope::engine {

// Something that an observer is to be told. The completion or its error is the last.
struct News {
  std::shared_ptr<Observer> observer;
  std::variant<Delta, absl::StatusOr<Completion>> what;
};

class Courier {
 public:
  Courier() : thread_([this] { Loop(); }) {}
  // Tells what is left.
  ~Courier() { Stop(); }
  Courier(const Courier&) = delete;
  Courier& operator=(const Courier&) = delete;

  // Tells `news`, in order and behind all before. Waits where those before the last are not all
  // told, so that no more than two steps' news are ever on their way. Not after Stop.
  void Deliver(std::vector<News> news);

  // Returns when everything is told and every observer let go of. Idempotent.
  void Stop();

 private:
  void Loop();
  bool HasNewsOrStops() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !news_.empty();
  }
  bool IsEmpty() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return news_.empty(); }

  absl::Mutex mutex_;
  std::vector<News> news_ ABSL_GUARDED_BY(mutex_);  // that the thread has not taken yet
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_COURIER_H_
