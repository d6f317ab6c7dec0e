// Loaded models by id: everything a request needs to know of one (engine, text, digests), and the
// registry that loads them in the background. A ServedModel is shared: whoever holds it may use it,
// even while it is being replaced.
#ifndef VALUESCOPE_ENGINE_SERVED_MODEL_H_
#define VALUESCOPE_ENGINE_SERVED_MODEL_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/dtype.h"
#include "engine/engine.h"
#include "engine/work_recorder.h"
#include "model/architecture.h"
#include "text/text_model.h"

namespace valuescope::engine {

struct ServedModel {
  std::string id;  // without "models/"
  model::Architecture architecture;
  DType dtype = DType::kFloat32;
  std::string device;            // "cpu", "cuda:0"
  std::string device_name;       // kind of a GPU, such as "NVIDIA H200"; empty for a CPU
  bool batch_invariant = false;  // a request's bits never depend on who is beside it
  std::string weights_digest;    // SHA-256, hexadecimal
  int64_t num_parameters = 0;
  int64_t weight_bytes = 0;  // of the weights in `dtype`
  absl::Time load_time;      // when it became ready
  std::shared_ptr<const text::TextModel> text;
  std::shared_ptr<Engine> engine;
};

enum class ModelState : uint8_t { kAvailable, kLoading, kReady, kFailed, kUnloading };

struct ModelEntry {
  std::string id;
  ModelState state = ModelState::kAvailable;
  double progress = 0;                       // 0 .. 1 while loading
  DType dtype = DType::kFloat32;             // in which it is or would be loaded
  absl::Status error;                        // when failed
  std::shared_ptr<const ServedModel> model;  // when ready, and while its requests end
};

struct EngineOptions {
  std::string device = "cpu";  // or "cuda:N", once its library is open
  std::string device_name;     // ServedModel has it
  std::function<absl::StatusOr<int64_t>()> free_memory =
      nullptr;  // bytes on it; null: main memory's
  // Of what records steps on the device, one an engine; null: nothing is recorded.
  std::function<std::unique_ptr<WorkRecorder>()> make_recorder = nullptr;
  // Called after a load or unload has ended, however it did; must not block. Null: nobody asks.
  std::function<void()> on_change = nullptr;
  DType dtype = DType::kFloat32;
  bool batch_invariant = false;                   // LoadOptions has it
  int threads = 0;                                // 0: one a core
  int64_t kv_cache_bytes = 1LL << 30;             // untouched pages cost nothing on a CPU
  int max_batch_rows = 64;                        // requests decoded in one step
  int max_step_tokens = 256;                      // prompt and decode tokens of one step
  int max_waiting = 1024;                         // requests admitted and not started
  int64_t capture_memory_bytes = 1LL << 30;       // of captures on the host, over all requests
  int64_t intervention_memory_bytes = 1LL << 30;  // of intervention tables, over all requests
  int64_t request_memory_bytes = 1LL << 30;       // of what requests are made of on the host
};

class ModelRegistry {
 public:
  // `model_root` holds a folder a model. Ids are checked against the allow-list pattern (base/id.h)
  // before a path is made.
  static std::unique_ptr<ModelRegistry> Create(std::string model_root, EngineOptions options);
  virtual ~ModelRegistry() = default;

  // Starts loading in the background, in `dtype` or that of the options. NOT_FOUND for an unknown
  // id; ALREADY_EXISTS while it is loading or loaded in this dtype, FAILED_PRECONDITION (reason
  // OTHER_DTYPE) in another; FAILED_PRECONDITION (reason MODEL_UNLOADING) while it is unloading;
  // RESOURCE_EXHAUSTED (reason MODEL_TOO_LARGE) where what config.json describes would not fit the
  // memory that is free and that no other load still takes, and with a retry delay (reason
  // TOO_MANY_THREADS) where the machine has no thread for it.
  virtual absl::Status StartLoading(absl::string_view id, std::optional<DType> dtype) = 0;
  absl::Status StartLoading(absl::string_view id) { return StartLoading(id, std::nullopt); }

  // Takes a model out of service: Get refuses it at once, while those who got it before may go on
  // until they let go of it. Where it is still loading the load is cancelled. Once nothing of it is
  // left `gone` is called, if it still exists, from any thread, and in here where the model is not
  // loaded; it must not block or call back. After an error it never is called. NOT_FOUND for an
  // unknown id; RESOURCE_EXHAUSTED with a retry delay (reason TOO_MANY_THREADS) where the machine
  // has no thread for it.
  virtual absl::Status StartUnloading(absl::string_view id,
                                      std::weak_ptr<const std::function<void()>> gone) = 0;

  // What StartUnloading does, and waits for the end of it. DEADLINE_EXCEEDED if that takes longer
  // than until `deadline`, and then it goes on in the background.
  absl::Status Unload(absl::string_view id, absl::Time deadline);

  // The folders under the root with a config.json, in name order, each with its state.
  virtual std::vector<ModelEntry> List() const = 0;
  virtual absl::StatusOr<ModelEntry> Find(absl::string_view id) const = 0;

  // The model, if READY; else NOT_FOUND (unknown id) or FAILED_PRECONDITION with a reason
  // (MODEL_NOT_LOADED, MODEL_LOADING, MODEL_FAILED).
  virtual absl::StatusOr<std::shared_ptr<const ServedModel>> Get(absl::string_view id) const = 0;

  // The models that have an engine, which are those READY and those whose requests end before they
  // are unloaded, in name order. Reads no directory.
  virtual std::vector<std::shared_ptr<const ServedModel>> Served() const = 0;

  // What the engines of all models did since the registry was made, models that were unloaded
  // included: no number ever falls.
  virtual EngineTotals Totals() const = 0;

  // True once nothing is loading and nothing that was asked for failed.
  virtual bool Settled() const = 0;
  // Blocks until nothing is loading.
  virtual void WaitUntilSettled() const = 0;

  // Cancels what is loading, without waiting for its end, and lets nothing load any more.
  virtual void StopLoading() = 0;

  // Drains every engine, also those that are unloading.
  virtual void Drain(absl::Time deadline) = 0;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_SERVED_MODEL_H_
