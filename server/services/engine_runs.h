// The engine requests of one call, run together: a handler submits them, takes what they produce as
// it comes, and everything is cancelled when the call is stopped or the handler gives up.
#ifndef VALUESCOPE_SERVICES_ENGINE_RUNS_H_
#define VALUESCOPE_SERVICES_ENGINE_RUNS_H_

#include <functional>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/request.h"
#include "observability/metrics.h"
#include "rpc/call_context.h"

namespace valuescope::services {

struct EngineEvent {
  int index = 0;  // as given to Submit
  std::variant<engine::Delta, engine::Completion> what;
};

struct EngineRunsOptions {
  bool with_deltas = false;                   // else Next gives completions only
  observability::Metrics* metrics = nullptr;  // gets the times between tokens; may be null
};

// For one handler's thread.
class EngineRuns {
 public:
  // All outlive the runs.
  EngineRuns(const rpc::CallContext* context, engine::Engine* engine, EngineRunsOptions options);
  // Cancels what still runs.
  ~EngineRuns();
  EngineRuns(const EngineRuns&) = delete;
  EngineRuns& operator=(const EngineRuns&) = delete;

  // Starts a request for the call's tenant and deadline. Errors of engine::Engine::Submit.
  absl::Status Submit(int index, engine::Request request);

  // Submits what `request_of` makes for `submitted`, `submitted` + 1, .. `end` - 1 and counts it
  // on, until the server is full: what is under way, `done` .. `submitted` - 1, makes room when it
  // is done. With nothing under way it waits for room where something is done already, until the
  // call is stopped: work that was done is not thrown away because others were faster. A call that
  // has done nothing yet hears that the server is full. Of an error `submitted` is the index.
  absl::Status SubmitWhileRoom(int end, int done,
                               const std::function<engine::Request(int)>& request_of,
                               int& submitted);

  // Waits for the next event. Deltas of one index come in order, joined where the caller is slower
  // than the engine, and before its completion. The first request that fails ends all: its error,
  // or the call's own reason to stop. Call only while a submitted request has not completed.
  absl::StatusOr<EngineEvent> Next();

 private:
  class Shared;
  class RequestObserver;

  // Submit, again and again while the server is full.
  absl::Status SubmitPatiently(int index, const std::function<engine::Request(int)>& request_of);

  const rpc::CallContext* const context_;
  engine::Engine* const engine_;
  const uint64_t client_ = engine::NewClient();  // one call, one turn
  const std::shared_ptr<Shared> shared_;
  std::optional<rpc::StopCallback> stop_;
};

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_ENGINE_RUNS_H_
