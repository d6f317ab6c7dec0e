// Models by id, which load and unload in the background. One whose folder is there is AVAILABLE;
// asked for, it is LOADING until it is READY or FAILED, from where it may be asked for again. One
// that is taken out of service is UNLOADING, also where it was still LOADING, until nothing of it
// is left, and then AVAILABLE.
#ifndef VALUESCOPE_ENGINE_MODEL_REGISTRY_H_
#define VALUESCOPE_ENGINE_MODEL_REGISTRY_H_

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
#include "engine/engine_options.h"
#include "engine/served_model.h"

namespace valuescope::engine {

enum class ModelState : uint8_t { kAvailable, kLoading, kReady, kFailed, kUnloading };

struct ModelEntry {
  std::string id;
  ModelState state = ModelState::kAvailable;
  double progress = 0;                       // 0 .. 1 while loading
  DType dtype = DType::kFloat32;             // in which it is or would be loaded
  absl::Status error;                        // when failed
  std::shared_ptr<const ServedModel> model;  // when ready, and while its requests end
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

  // Other servers that have the model READY, by name, as far as is known: for errors of Get.
  virtual std::vector<std::string> ReadyElsewhere(absl::string_view /*id*/) const { return {}; }

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

#endif  // VALUESCOPE_ENGINE_MODEL_REGISTRY_H_
