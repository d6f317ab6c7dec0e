// What all calls of a server share: the threads that run handlers, the clock that wakes what holds
// none, who may call, metrics, and the set of calls that are running, so that a drain can wait for
// them and end the rest.
#ifndef VALUESCOPE_RPC_CALL_RUNTIME_H_
#define VALUESCOPE_RPC_CALL_RUNTIME_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/freed_places.h"
#include "base/memory_ledger.h"
#include "base/tenant_policy.h"
#include "base/usage_tally.h"
#include "observability/audit_log.h"
#include "observability/metrics.h"
#include "rpc/alarm_clock.h"
#include "rpc/authenticator.h"
#include "rpc/call_context.h"
#include "rpc/receive_gate.h"
#include "rpc/worker_pool.h"

namespace valuescope::rpc {

// Which threads run a method, so that what answers from memory is not stuck behind what takes
// minutes.
enum class Lane : uint8_t {
  kQuick,    // milliseconds: lookups, metadata
  kLong,     // waits for the engine, or computes
  kFiles,    // waits for a client that sends or takes a file
  kWaiting,  // steps of calls that wait for something to happen, without a thread in between
};

struct CallRuntimeOptions {
  WorkerPoolOptions quick = {.max_threads = 4, .max_queued = 256};
  // Threads that mostly wait: the engine's own queue bounds the work behind them.
  WorkerPoolOptions long_running = {.max_threads = 256, .max_queued = 256};
  WorkerPoolOptions files = {.max_threads = 32, .max_queued = 64};
  size_t waiting_threads = 2;
  // Calls that wait without a thread, such as watchers of jobs.
  size_t max_waiting_calls = 4096;
  // What all calls that run or wait may hold: their messages, what they make of them, and what
  // waits to be sent.
  int64_t call_bytes = int64_t{512} << 20;
  const MemoryLedger* host_memory = nullptr;    // which that is a part of; outlives the runtime
  observability::AuditLog* audit = nullptr;     // null: there is none; outlives the runtime
  const TenantPolicySource* tenants = nullptr;  // null: nothing bounds them; outlives the runtime
  // Whether a call of the tenant may have models run: RESOURCE_EXHAUSTED, retry later, where it had
  // too much of it. Empty: always.
  std::function<absl::Status(const std::string& tenant)> may_run_models = nullptr;
  UsageTally* usage = nullptr;  // counts calls that ended; null: nobody does; outlives the runtime
  ReceiveGateOptions receiving;
  const Clock* clock = &Clock::Steady();  // outlives the runtime
  // A stream that moves nothing for this long is ended.
  absl::Duration stall_timeout = absl::Seconds(60);
  // A stream whose messages have a heartbeat carries one after this long without another message:
  // well before the 20 s that the contract promises.
  absl::Duration heartbeat = absl::Seconds(15);
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
  observability::AuditLog* audit() const { return options_.audit; }
  UsageTally* usage() const { return options_.usage; }
  absl::Duration stall_timeout() const { return options_.stall_timeout; }
  absl::Duration heartbeat() const { return options_.heartbeat; }
  AlarmClock* clock() { return &clock_; }
  ReceiveGate* gate() { return &gate_; }
  MemoryLedger* memory() { return &memory_; }

  // Runs `work`, which is the tenant's, on a thread of `lane`. RESOURCE_EXHAUSTED (QUEUE_FULL,
  // retry later) when full; the work is then not run.
  absl::Status Submit(Lane lane, const std::string& tenant, std::function<void()> work);

  // --- Drain ---

  // From now on calls are answered UNAVAILABLE (DRAINING), and so are those whose message has not
  // begun to come and those that only wait: what they wait for may not come any more.
  void StopAccepting();
  // Waits until no call runs or `deadline` passed; true if none runs.
  bool WaitUntilIdle(absl::Time deadline);
  // Stops the calls that still run: their clients get UNAVAILABLE (DRAINING).
  void StopRunning();

  // --- For the calls ---

  // UNAVAILABLE while draining; RESOURCE_EXHAUSTED, retry later, where the call is one that `waits`
  // (on Lane::kWaiting) and too many others do (TOO_MANY_WAITING_CALLS; the last eighth of
  // their places is for tenants with few), or where it does not, is `bounded`, and its tenant has
  // as many as it may (CALL_QUOTA); else OK and the call counts as running until Leave. Calls that
  // wait are no part of what a tenant may have: they hold no thread, and a tenant that watches its
  // jobs can still call.
  absl::Status Enter(CallContext* call, bool waits, bool bounded);
  // Before it enters, of a call that would have models run: CallRuntimeOptions::may_run_models.
  // UNAVAILABLE while draining: nobody should wait for a server that goes away.
  absl::Status CheckMayRunModels(const std::string& tenant);
  // Its client is about to hear how it ended, and may begin another one for it.
  void Answered(CallContext* call);
  void Leave(CallContext* call);

 private:
  WorkerPool& PoolOf(Lane lane);
  struct Running {
    bool waits = false;
    bool counts = false;  // in calls_of_
  };

  void Uncount(const std::string& tenant, Running& how) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool MayWait(const std::string& tenant) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckCallsOf(const std::string& tenant) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Idle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return running_.empty(); }

  const Authenticator* const authenticator_;
  observability::Metrics* const metrics_;
  const CallRuntimeOptions options_;
  absl::Mutex mutex_;
  bool accepting_ ABSL_GUARDED_BY(mutex_) = true;
  std::map<CallContext*, Running> running_ ABSL_GUARDED_BY(mutex_);
  size_t waiting_ ABSL_GUARDED_BY(mutex_) = 0;  // of them
  FreedPlaces waits_ended_ ABSL_GUARDED_BY(mutex_);
  struct Calls {
    int64_t running = 0;
    FreedPlaces ended;
  };
  std::map<std::string, Calls> calls_of_ ABSL_GUARDED_BY(mutex_);      // by tenant; none has none
  std::map<std::string, int64_t> waiting_of_ ABSL_GUARDED_BY(mutex_);  // the same
  MemoryLedger memory_;
  AlarmClock clock_;
  ReceiveGate gate_;
  // Last, so that handlers end before what they use.
  WorkerPool quick_;
  WorkerPool long_running_;
  WorkerPool files_;
  WorkerPool
      steps_;  // of the calls that wait: each has one queued at most, so there is room for all
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_CALL_RUNTIME_H_
