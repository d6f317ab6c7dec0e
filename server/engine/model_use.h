// Who still uses a model: all who got it share one Use, and what is unloaded goes on until the last
// of them has let go of it.
#ifndef VALUESCOPE_ENGINE_MODEL_USE_H_
#define VALUESCOPE_ENGINE_MODEL_USE_H_

#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/served_model.h"

namespace valuescope::engine {

// Waits for the last of those who use something, or until nobody shall be waited for any more.
class LastUse {
 public:
  void End() {
    absl::MutexLock lock(&mutex_);
    ended_ = true;
  }
  void AwaitEnd() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&ended_));
  }

 private:
  absl::Mutex mutex_;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

// What all who got a model share. A call may submit one request after the other, so a model that is
// unloaded goes on until every call has let go of it.
struct Use {
  explicit Use(std::shared_ptr<const ServedModel> served) : model(std::move(served)) {}
  ~Use() { last->End(); }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

  const std::shared_ptr<const ServedModel> model;
  const std::shared_ptr<LastUse> last = std::make_shared<LastUse>();
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_MODEL_USE_H_
