// One engine serves one loaded model. It batches the steps of every running request, whatever their
// interventions and taps, and says nothing of devices: a model split over several of them fits
// behind the same interface.
#ifndef VALUESCOPE_ENGINE_ENGINE_H_
#define VALUESCOPE_ENGINE_ENGINE_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/cancellation.h"
#include "base/host_tensor.h"
#include "base/memory_ledger.h"
#include "engine/neuron_request.h"
#include "engine/request.h"
#include "model/architecture.h"

namespace valuescope::engine {

// A number for Request::client that no other caller has. Thread-safe.
uint64_t NewClient();

// Receives what a request produces. Called on one thread of the engine, beside the step that runs:
// must return quickly and must not call the engine except Running::Cancel. OnFinish is called
// exactly once, last. Implementations outlive OnFinish because the engine holds a shared_ptr until
// then.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void OnDelta(const Delta& delta) = 0;
  // OK with the completion, CANCELLED after Cancel (tokens so far are lost to the observer only if
  // it did not see the deltas), DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL when the step
  // failed, or UNAVAILABLE when the device did.
  virtual void OnFinish(absl::StatusOr<Completion> completion) = 0;
};

// A submitted request. Destroying it does not cancel; Cancel may be called from any thread, any
// number of times, and takes effect at the next step.
class Running {
 public:
  virtual ~Running() = default;
  virtual void Cancel() = 0;
};

// What an engine did since its start. Counted as it runs, whatever becomes of the requests: those
// that are cancelled or fail have cost the machine the same. A step that fails has run nothing. A
// request that gives way, or begins again behind a stop string, runs tokens anew, and they count
// anew.
struct EngineTotals {
  int64_t prompt_tokens = 0;     // of prompts and given responses that ran, not those in the cache
  int64_t generated_tokens = 0;  // that were sampled, the stop token included
  // Of steps that ran prompts alone, and how long those took: what a prompt's token costs here.
  int64_t prompt_step_tokens = 0;
  absl::Duration prompt_step_time;
  int64_t steps = 0;
  int64_t repeated_steps = 0;  // of them, those that repeated a recording (recorded_steps.h)
  // Token positions x layers touched by each kind of operation, by Operation::index().
  std::array<int64_t, kNumOperations> interventions_applied{};
  int64_t captured_bytes = 0;
  int64_t prefix_hit_tokens = 0;          // found in the cache and not run again
  int64_t steered_prefix_hit_tokens = 0;  // of them, by requests that are steered
  int64_t preemptions = 0;                // background requests that gave way
  int64_t admissions = 0;                 // times that a request began to run

  void Add(const EngineTotals& other);
};

struct EngineStatistics : EngineTotals {
  int64_t running = 0;               // requests in the batch
  int64_t waiting = 0;               // admitted, not started
  int64_t batch_rows = 0;            // tokens of the last step
  int64_t cache_bytes = 0;           // of the key/value cache
  int64_t intervention_bytes = 0;    // of the intervention tables
  int64_t capture_memory_bytes = 0;  // held now by captures that run or were not yet delivered
  int64_t request_memory_bytes = 0;  // held now by what requests and calls took for themselves
  // Parts of the key/value cache's blocks, each 0 to 1.
  double cache_used_ratio = 0;          // held by running requests
  double cache_promised_ratio = 0;      // held by running requests or kept free for them
  double cache_cached_ratio = 0;        // held by nobody, kept for requests that begin alike
  int64_t distinct_rows_last_step = 0;  // intervention rows other than 0 in the last step
  int64_t distinct_rows_max = 0;        // the most that ever shared one step
  absl::Time step_began = absl::InfiniteFuture();  // of the step that runs now, if one does
  bool device_failed = false;  // for good: every request ends with UNAVAILABLE (DEVICE_FAILED)
};

// Held as long as the captures are that it was taken for.
using KeptCaptures = std::shared_ptr<const void>;

class Engine {
 public:
  virtual ~Engine() = default;

  virtual const model::Architecture& architecture() const = 0;

  // Validates at once: INVALID_ARGUMENT naming the field ("prompt", "sampling.top_p",
  // "interventions[0].layers[1]", "taps[2].site") and its range; RESOURCE_EXHAUSTED with a retry
  // delay when the queue is full or the tenant had its tokens (reason TOKEN_QUOTA), without one
  // when the request can never fit. After OK the observer gets exactly one OnFinish.
  virtual absl::StatusOr<std::unique_ptr<Running>> Submit(Request request,
                                                          std::shared_ptr<Observer> observer) = 0;

  // What Submit would say of the request if nothing else ran: its errors without those that pass
  // by themselves. Costs about as much as Submit does, so that a list can be refused before the
  // first of it runs.
  virtual absl::Status Check(const Request& request) const = 0;

  // Whether Submit would take a request now: what Drain was given while draining,
  // RESOURCE_EXHAUSTED with a retry delay when the queue is full. Costs nothing, so callers ask
  // before they prepare one.
  virtual absl::Status CheckAccepts() const { return absl::OkStatus(); }

  // Host memory for what a call makes of its request, given back when the last copy of the lease
  // is gone. RESOURCE_EXHAUSTED: reason REQUEST_TOO_LARGE where nobody could ever have `bytes`,
  // with a retry delay (reason REQUEST_MEMORY_FULL) where others hold too much now.
  virtual absl::StatusOr<std::shared_ptr<MemoryLedger::Lease>> TakeRequestMemory(int64_t bytes);

  // RESOURCE_EXHAUSTED, reason INTERVENTIONS_TOO_LARGE, where interventions whose rows have `bytes`
  // bytes, each counted once, can never fit the tables.
  virtual absl::Status CheckInterventionBytes(int64_t) const { return absl::OkStatus(); }

  // The interventions of a call for Request::prepared, made once for all of its requests. They
  // keep `memory`, which may be null, and take no more of it than they hold. Errors: those of
  // PreparedInterventions::Prepare.
  virtual absl::StatusOr<std::shared_ptr<const PreparedInterventions>> Prepare(
      std::vector<Intervention> interventions,
      std::shared_ptr<MemoryLedger::Lease> memory = nullptr) const;

  // Room for captures that a caller keeps together after the requests that made them: counted like
  // the captures of requests until the result is gone. At most half of the capture memory goes to
  // those who keep some, so that the requests of others, and their own, find the rest.
  // RESOURCE_EXHAUSTED: above that half (reason CAPTURES_TOO_LARGE), or, with a retry delay, while
  // others have what is asked for (reason CAPTURE_MEMORY_FULL). Engines that do not count keep
  // anything.
  virtual absl::StatusOr<KeptCaptures> KeepCaptures(int64_t) { return KeptCaptures(); }

  // What single neurons come to, of each request in order: passes of the engine's own between its
  // steps, one at a time, so that those who generate go on. The requests have the same layers, kind
  // of target and question. INVALID_ARGUMENT naming a field of the request at fault ("[3].tokens");
  // RESOURCE_EXHAUSTED, with a retry delay where others hold the device's memory;
  // FAILED_PRECONDITION where the model's files changed. CANCELLED between two passes. Not for the
  // engine's own thread. Engines without such passes: UNIMPLEMENTED.
  virtual absl::StatusOr<std::vector<NeuronScores>> NeuronScoresOf(
      std::span<const NeuronRequest> requests, const Cancellation& cancellation);
  // What NeuronScoresOf needs for such requests beside the model, and might make anew each time if
  // nobody kept it, as who asks often does with the result: null where that is nothing. Its errors.
  virtual absl::StatusOr<std::shared_ptr<const void>> KeepNeuronWeights(
      const NeuronRequest& request, const Cancellation& cancellation);
  // What NeuronScoresOf would say of the request itself.
  virtual absl::Status CheckNeurons(const NeuronRequest& request) const;

  // Write directions of one block's neurons: float32 [hidden, intermediate]. 0 <= layer <
  // num_layers.
  virtual absl::StatusOr<HostTensor> WriteDirections(int layer) const = 0;

  // The unembedding of tokens first_token .. first_token + count - 1, the final norm's gain in it:
  // float32 [count, hidden]. They are tokens of the vocabulary.
  virtual absl::StatusOr<HostTensor> UnembeddingRows(int64_t first_token, int64_t count) const = 0;

  virtual EngineStatistics statistics() const = 0;

  // Takes nothing new, finishes running requests until `deadline`, then ends the rest. Those that
  // are refused or ended hear `why`. May be called again, also while a call waits: the earliest
  // deadline counts, and the last `why` that came with it.
  virtual void Drain(absl::Time deadline, const absl::Status& why) = 0;
  // Because the server shuts down: UNAVAILABLE, reason DRAINING.
  void Drain(absl::Time deadline);
};

// What is done with the completion of request `index`, on the thread that waits for all. Its memory
// is given back with it.
using TakeCompletion = std::function<absl::Status(size_t index, Completion completion)>;

// Runs requests together and waits for all of them; each completion is taken as soon as it is
// there, in any order, so that what is large in it need not wait for the others. None runs before
// all were checked. The first error cancels the others and is returned with the index of its
// request in the field path ("[3].prompt"). Raising `cancellation` cancels all of them: CANCELLED.
// Submits at most `max_in_flight` at a time, so that a long list does not fill the queue, and waits
// where it is full, or where the tenant had its tokens when something of the list has run: a list
// of which nothing has hears that. Not for the engine's own thread.
absl::Status RunEach(Engine& engine, std::vector<Request> requests,
                     const Cancellation& cancellation, const TakeCompletion& take,
                     int max_in_flight = 32);
// The same; results in the order of `requests`.
absl::StatusOr<std::vector<Completion>> RunAll(Engine& engine, std::vector<Request> requests,
                                               const Cancellation& cancellation,
                                               int max_in_flight = 32);

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_ENGINE_H_
