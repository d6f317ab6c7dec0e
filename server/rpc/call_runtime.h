// What all calls of a server share: the threads that run handlers, who may call, metrics, and the
// set of calls that are running, so that a drain can wait for them and end the rest.
#ifndef VALUESCOPE_RPC_CALL_RUNTIME_H_
#define VALUESCOPE_RPC_CALL_RUNTIME_H_

#include <cstdint>
#include <functional>
#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "observability/metrics.h"
#include "rpc/authenticator.h"
#include "rpc/call_context.h"
#include "rpc/worker_pool.h"

namespace valuescope::rpc {

// Which threads run a method, so that what answers from memory is not stuck behind what takes
// minutes.
enum class Lane : uint8_t {
  kQuick,  // milliseconds: lookups, metadata
  kLong,   // waits for the engine, or for a client that reads or writes a stream
};

struct CallRuntimeOptions {
  WorkerPoolOptions quick = {.max_threads = 4, .max_queued = 256};
  // Threads that mostly wait: the engine's own queue bounds the work behind them.
  WorkerPoolOptions long_running = {.max_threads = 256, .max_queued = 256};
  // Of the request messages of all calls that run or wait. What is made from one takes up to twice
  // as much again.
  int64_t request_bytes = int64_t{512} << 20;
  // A stream that moves nothing for this long is ended.
  absl::Duration stall_timeout = absl::Seconds(60);
};

// Outlives the grpc::Server. Thread-safe.
class CallRuntime {
 public:
  // Both outlive the runtime; `metrics` may be null.
  CallRuntime(const Authenticator* authenticator, observability::Metrics* metrics,
              CallRuntimeOptions options = {});
  CallRuntime(const CallRuntime&) = delete;
  CallRuntime& operator=(const CallRuntime&) = delete;

  const Authenticator& authenticator() const { return *authenticator_; }
  observability::Metrics* metrics() const { return metrics_; }
  absl::Duration stall_timeout() const { return options_.stall_timeout; }

  // Runs `work` on a thread of `lane`. RESOURCE_EXHAUSTED (QUEUE_FULL, retry later) when full; the
  // work is then not run.
  absl::Status Submit(Lane lane, std::function<void()> work);

  // --- Drain ---

  // From now on calls are answered UNAVAILABLE (DRAINING).
  void StopAccepting();
  // Waits until no call runs or `deadline` passed; true if none runs.
  bool WaitUntilIdle(absl::Time deadline);
  // Stops the calls that still run: their clients get UNAVAILABLE (DRAINING).
  void StopRunning();

  // --- For the calls ---

  // UNAVAILABLE while draining; RESOURCE_EXHAUSTED (REQUEST_MEMORY_FULL, retry later) where the
  // messages of others leave no room for one of `request_bytes`; else OK and the call counts as
  // running until Leave.
  absl::Status Enter(CallContext* call, int64_t request_bytes);
  void Leave(CallContext* call);

 private:
  bool Idle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return running_.empty(); }

  const Authenticator* const authenticator_;
  observability::Metrics* const metrics_;
  const CallRuntimeOptions options_;
  absl::Mutex mutex_;
  bool accepting_ ABSL_GUARDED_BY(mutex_) = true;
  std::map<CallContext*, int64_t> running_ ABSL_GUARDED_BY(mutex_);  // and bytes of its request
  int64_t request_bytes_ ABSL_GUARDED_BY(mutex_) = 0;                // of all of them
  // Last, so that handlers end before what they use.
  WorkerPool quick_;
  WorkerPool long_running_;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_CALL_RUNTIME_H_
