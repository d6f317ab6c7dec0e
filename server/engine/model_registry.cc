#include "engine/model_registry.h"

#include <filesystem>
#include <map>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "base/cancellation.h"
#include "base/error.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "engine/model_memory.h"
#include "engine/model_use.h"

namespace valuescope::engine {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kThreadRetry = absl::Seconds(1);

std::string ResourceName(absl::string_view id) { return absl::StrCat("models/", std::string(id)); }

void CallIfThere(const std::weak_ptr<const std::function<void()>>& callback) {
  if (const auto there = callback.lock()) (*there)();
}

class FolderRegistry : public ModelRegistry {
 public:
  FolderRegistry(std::string root, EngineOptions options)
      : root_(std::move(root)),
        options_(std::move(options)),
        memory_({.name = "the memory for models", .advice = "unload another model first"},
                options_.device_memory) {}

  ~FolderRegistry() override {
    StopLoading();
    StopUnloading();
    {
      absl::MutexLock lock(&mutex_);
      const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return threads_.empty(); };
      mutex_.Await(absl::Condition(&none));
    }
    if (ended_.joinable()) ended_.join();
  }

  absl::Status StartLoading(absl::string_view id, std::optional<DType> dtype) override {
    VS_RETURN_IF_ERROR(CheckResourceId("model", id));
    const std::string key(id);
    EngineOptions options = options_;
    if (dtype) options.dtype = *dtype;
    {
      absl::MutexLock lock(&mutex_);
      VS_RETURN_IF_ERROR(CheckMayLoad(key, options.dtype));
    }
    VS_RETURN_IF_ERROR(CheckFolder(key));
    // A folder that cannot be read fails where people look for it: in the model's state.
    const auto architecture = model::ReadArchitecture((fs::path(root_) / key).string());
    const MemoryNeed needed =
        architecture.ok() ? MemoryNeeded(*architecture, options) : MemoryNeed();
    absl::MutexLock lock(&mutex_);
    // Somebody else may have been faster.
    VS_RETURN_IF_ERROR(CheckMayLoad(key, options.dtype));
    VS_RETURN_IF_ERROR(CheckFits(needed.ToLoad(), BytesStillToLoad(), options));
    auto memory = memory_.Take(needed.InAll());
    // However long somebody waits, what is loaded stays.
    if (!memory.ok()) return NeverFits("MODEL_TOO_LARGE", memory.status().message());
    return BeginLoad(key, needed, options, *std::move(memory));
  }

  absl::Status StartUnloading(absl::string_view id,
                              std::weak_ptr<const std::function<void()>> gone) override {
    VS_RETURN_IF_ERROR(Find(id).status());
    absl::MutexLock lock(&mutex_);
    VS_ASSIGN_OR_RETURN(RunningUnload* const unload, BeginUnload(std::string(id)));
    if (unload == nullptr) {
      CallIfThere(gone);
      return absl::OkStatus();
    }
    std::erase_if(unload->gone, [](const auto& other) { return other.expired(); });
    unload->gone.push_back(std::move(gone));
    return absl::OkStatus();
  }

  std::vector<ModelEntry> List() const override {
    std::set<std::string> ids;
    std::error_code ignored;
    for (const fs::directory_entry& folder : fs::directory_iterator(root_, ignored)) {
      const std::string id = folder.path().filename().string();
      if (CheckResourceId("model", id).ok() && CheckFolder(id).ok()) ids.insert(id);
    }
    std::vector<ModelEntry> entries;
    absl::MutexLock lock(&mutex_);
    for (const auto& [id, entry] : entries_) ids.insert(id);
    for (const std::string& id : ids) entries.push_back(EntryOf(id));
    return entries;
  }

  std::vector<std::shared_ptr<const ServedModel>> Served() const override {
    std::vector<std::shared_ptr<const ServedModel>> served;
    absl::MutexLock lock(&mutex_);
    for (const auto& [id, entry] : entries_) {
      if (entry.model != nullptr) served.push_back(entry.model);
    }
    return served;
  }

  EngineTotals Totals() const override {
    absl::MutexLock lock(&mutex_);
    EngineTotals totals = unloaded_;
    for (const auto& [id, entry] : entries_) {
      if (entry.model != nullptr) totals.Add(entry.model->engine->statistics());
    }
    return totals;
  }

  absl::StatusOr<ModelEntry> Find(absl::string_view id) const override {
    VS_RETURN_IF_ERROR(CheckResourceId("model", id));
    const std::string key(id);
    absl::MutexLock lock(&mutex_);
    if (!entries_.contains(key)) VS_RETURN_IF_ERROR(CheckFolder(key));
    return EntryOf(key);
  }

  absl::StatusOr<std::shared_ptr<const ServedModel>> Get(absl::string_view id) const override {
    VS_RETURN_IF_ERROR(CheckResourceId("model", id));
    const std::string key(id);
    absl::MutexLock lock(&mutex_);
    if (const auto use = uses_.find(key); use != uses_.end()) {
      return std::shared_ptr<const ServedModel>(use->second, use->second->model.get());
    }
    const auto entry = entries_.find(key);
    if (entry == entries_.end()) VS_RETURN_IF_ERROR(CheckFolder(key));
    const auto refused = [&](absl::string_view reason, absl::string_view why) {
      return ErrorWithReason(absl::StatusCode::kFailedPrecondition, reason,
                             absl::StrCat("`", ResourceName(id), "` ", why));
    };
    switch (entry == entries_.end() ? ModelState::kAvailable : entry->second.state) {
      case ModelState::kLoading:
        return refused("MODEL_LOADING", "is still loading");
      case ModelState::kFailed:
        return refused("MODEL_FAILED", "could not be loaded");
      case ModelState::kUnloading:
        return refused("MODEL_NOT_LOADED", "is not loaded any more; it is unloading");
      case ModelState::kReady:
      case ModelState::kAvailable:
        break;
    }
    return refused("MODEL_NOT_LOADED",
                   "is not loaded; an admin can load it by LoadModel, or start "
                   "the server with it");
  }

  std::vector<std::string> ReadyElsewhere(absl::string_view id) const override {
    return options_.ready_elsewhere ? options_.ready_elsewhere(id) : std::vector<std::string>();
  }

  bool Settled() const override {
    absl::MutexLock lock(&mutex_);
    if (!loads_.empty()) return false;
    for (const auto& [id, entry] : entries_) {
      if (entry.state == ModelState::kFailed) return false;
    }
    return true;
  }

  void WaitUntilSettled() const override {
    absl::MutexLock lock(&mutex_);
    const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return loads_.empty(); };
    mutex_.Await(absl::Condition(&none));
  }

  void StopLoading() override {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
    for (auto& [id, load] : loads_) load.cancellation.Cancel();
  }

  void Drain(absl::Time deadline) override {
    for (const ModelEntry& entry : List()) {
      if (entry.model != nullptr) entry.model->engine->Drain(deadline);
    }
  }

 private:
  struct RunningUnload {
    // Called once nothing of the model is left.
    std::vector<std::weak_ptr<const std::function<void()>>> gone;
    std::shared_ptr<LastUse> last_use;  // null where it was still loading
  };

  // A load that runs.
  struct RunningLoad {
    Cancellation cancellation;
    MemoryNeed needed;
  };

  // NOT_FOUND where the root has no such model. A link to a folder elsewhere is none: what the
  // root's owner may read is not what everybody may load.
  absl::Status CheckFolder(const std::string& id) const {
    const auto refused = [&](absl::string_view why) {
      return ErrorWithReason(absl::StatusCode::kNotFound, "RESOURCE_NOT_FOUND",
                             absl::StrCat("`", ResourceName(id), "` ", why));
    };
    std::error_code error;
    const fs::path folder = fs::canonical(fs::path(root_) / id, error);
    if (error) return ResourceNotFound(ResourceName(id));
    const fs::path root = fs::canonical(root_, error);
    if (error || folder.parent_path() != root) {
      return refused("is a link that leads out of the folder of models");
    }
    if (!fs::is_directory(folder, error)) return refused("is not a folder");
    if (!fs::exists(folder / "config.json", error)) return refused("has no config.json");
    if (!fs::is_regular_file(folder / "config.json", error)) {
      return refused("is unusable: its config.json is not a regular file");
    }
    return absl::OkStatus();
  }

  ModelEntry EntryOf(const std::string& id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto found = entries_.find(id);
    if (found != entries_.end()) return found->second;
    return {.id = id,
            .state = ModelState::kAvailable,
            .progress = 0,
            .dtype = options_.dtype,
            .error = {},
            .model = nullptr};
  }

  absl::Status CheckMayLoad(const std::string& id, DType dtype) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (stopped_) {
      return ErrorWithReason(absl::StatusCode::kUnavailable, "DRAINING",
                             "the server is shutting down; retry on another replica");
    }
    const auto entry = entries_.find(id);
    if (entry == entries_.end() || entry->second.state == ModelState::kFailed) {
      return absl::OkStatus();
    }
    const std::string name = absl::StrCat("`", ResourceName(id), "`");
    if (entry->second.state == ModelState::kUnloading) {
      return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "MODEL_UNLOADING",
                             absl::StrCat(name, " is unloading; load it again once it is gone"));
    }
    if (entry->second.dtype != dtype) {
      return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "OTHER_DTYPE",
                             absl::StrCat(name, " is loaded or loading in ",
                                          NameOf(entry->second.dtype), "; unload it first"));
    }
    return ErrorWithReason(absl::StatusCode::kAlreadyExists, "MODEL_ALREADY_LOADED",
                           absl::StrCat(name, " is loaded or loading"));
  }

  // What loads that run have not taken yet, so that two of them are not given the same memory.
  int64_t BytesStillToLoad() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    double bytes = 0;
    for (const auto& [id, load] : loads_) {
      const double unread = 1 - entries_.at(id).progress;
      bytes += static_cast<double>(load.needed.weights) * unread +
               static_cast<double>(load.needed.ToLoad() - load.needed.weights);
    }
    return static_cast<int64_t>(bytes);
  }

  absl::Status BeginLoad(const std::string& id, MemoryNeed needed, const EngineOptions& options,
                         std::shared_ptr<MemoryLedger::Lease> memory)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const Cancellation cancellation;
    VS_RETURN_IF_ERROR(
        StartThread([this, id, options, cancellation, memory = std::move(memory)]() mutable {
          Load(id, options, cancellation, std::move(memory));
        }));
    entries_.insert_or_assign(id, ModelEntry{.id = id,
                                             .state = ModelState::kLoading,
                                             .progress = 0,
                                             .dtype = options.dtype,
                                             .error = {},
                                             .model = nullptr});
    loads_.insert_or_assign(id, RunningLoad{.cancellation = cancellation, .needed = needed});
    return absl::OkStatus();
  }

  // Cancels the model's load or begins to end its requests; null where it is not loaded.
  absl::StatusOr<RunningUnload*> BeginUnload(const std::string& id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto entry = entries_.find(id);
    if (entry == entries_.end()) return nullptr;
    switch (entry->second.state) {
      case ModelState::kUnloading:
        return &unloads_.at(id);
      case ModelState::kLoading:
        loads_.at(id).cancellation.Cancel();
        break;
      case ModelState::kReady:
        VS_RETURN_IF_ERROR(StartThread([this, id] { EndRequests(id); }));
        break;
      case ModelState::kFailed:
      case ModelState::kAvailable:
        entries_.erase(entry);
        return nullptr;
    }
    entry->second.state = ModelState::kUnloading;
    const auto use = uses_.extract(id);
    RunningUnload& unload = unloads_[id];
    if (!use.empty()) unload.last_use = use.mapped()->last;
    return &unload;
  }

  // As if nobody had asked for the model.
  void Forget(const std::string& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    entries_.erase(id);
    const auto unload = unloads_.extract(id);
    if (unload.empty()) return;
    for (const auto& gone : unload.mapped().gone) CallIfThere(gone);
  }

  void EndRequests(const std::string& id) {
    std::shared_ptr<const ServedModel> model;
    std::shared_ptr<LastUse> last_use;
    {
      absl::MutexLock lock(&mutex_);
      model = entries_.at(id).model;
      last_use = unloads_.at(id).last_use;
    }
    last_use->AwaitEnd();
    model->engine->Drain(absl::InfiniteFuture(),
                         ErrorWithReason(absl::StatusCode::kUnavailable, "MODEL_UNLOADING",
                                         absl::StrCat("`", ResourceName(id), "` is unloading")));
    {
      absl::MutexLock lock(&mutex_);
      unloaded_.Add(model->engine->statistics());
      entries_.at(id).model = nullptr;
    }
    model = nullptr;  // whoever hears that it is gone may count on its memory
    absl::MutexLock lock(&mutex_);
    Forget(id);
  }

  // Ends the requests of models that are unloading.
  void StopUnloading() {
    std::vector<std::shared_ptr<const ServedModel>> unloading;
    {
      absl::MutexLock lock(&mutex_);
      for (const auto& [id, entry] : entries_) {
        if (entry.state != ModelState::kUnloading || entry.model == nullptr) continue;
        unloading.push_back(entry.model);
        unloads_.at(id).last_use->End();
      }
    }
    for (const auto& model : unloading) model->engine->Drain(absl::InfinitePast());
  }

  // Runs `work`, which waits for the lock before it does anything that others can see.
  absl::Status StartThread(std::function<void()> work) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const int64_t number = ++last_thread_;
    std::thread& thread = threads_[number];
    try {
      thread = std::thread([this, number, work = std::move(work)] {
        work();
        if (options_.on_change) options_.on_change();
        EndThread(number);
      });
    } catch (const std::system_error&) {
      threads_.erase(number);
      return RetryLater("TOO_MANY_THREADS",
                        "the machine has no thread to load or unload a model with", kThreadRetry);
    }
    return absl::OkStatus();
  }

  // The last thing that a thread does. One that has ended holds its stack until it is joined, so
  // the next one to end joins it.
  void EndThread(int64_t number) {
    std::thread before;
    {
      absl::MutexLock lock(&mutex_);
      before = std::exchange(ended_, std::move(threads_.at(number)));
      threads_.erase(number);
    }
    if (before.joinable()) before.join();
  }

  void Load(const std::string& id, const EngineOptions& options, const Cancellation& cancellation,
            std::shared_ptr<MemoryLedger::Lease> memory) {
    const auto progress = [this, &id](double fraction) {
      absl::MutexLock lock(&mutex_);
      entries_.at(id).progress = fraction;
    };
    auto loaded = LoadServedModel(id, (fs::path(root_) / id).string(), options, std::move(memory),
                                  progress, cancellation);
    absl::MutexLock lock(&mutex_);
    loads_.erase(id);
    // Also where the load was done before it noticed.
    if (cancellation.cancelled()) return Forget(id);
    ModelEntry& entry = entries_.at(id);
    if (loaded.ok()) {
      entry.state = ModelState::kReady;
      entry.progress = 1;
      entry.model = *std::move(loaded);
      uses_.emplace(id, std::make_shared<Use>(entry.model));
    } else {
      entry.state = ModelState::kFailed;
      entry.error = loaded.status();
    }
  }

  const std::string root_;
  const EngineOptions options_;
  MemoryLedger memory_;  // of weights, caches and steps, for each model from before it loads
  mutable absl::Mutex mutex_;
  std::map<std::string, ModelEntry> entries_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, RunningLoad> loads_ ABSL_GUARDED_BY(mutex_);          // by id
  std::map<std::string, RunningUnload> unloads_ ABSL_GUARDED_BY(mutex_);      // by id
  std::map<std::string, std::shared_ptr<Use>> uses_ ABSL_GUARDED_BY(mutex_);  // of what is READY
  EngineTotals unloaded_ ABSL_GUARDED_BY(mutex_);  // of engines that are gone
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;   // nothing loads any more
  // That load or unload, by number, and the one that ended last.
  std::map<int64_t, std::thread> threads_ ABSL_GUARDED_BY(mutex_);
  std::thread ended_ ABSL_GUARDED_BY(mutex_);
  int64_t last_thread_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace

absl::Status ModelRegistry::Unload(absl::string_view id, absl::Time deadline) {
  const auto gone = std::make_shared<absl::Notification>();
  const auto notify = std::make_shared<const std::function<void()>>([gone] { gone->Notify(); });
  VS_RETURN_IF_ERROR(StartUnloading(id, notify));
  if (gone->WaitForNotificationWithDeadline(deadline)) return absl::OkStatus();
  return ErrorWithReason(absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED",
                         absl::StrCat("`models/", id, "` is still unloading, which goes on"));
}

std::unique_ptr<ModelRegistry> ModelRegistry::Create(std::string model_root,
                                                     EngineOptions options) {
  return std::make_unique<FolderRegistry>(std::move(model_root), std::move(options));
}

}  // namespace valuescope::engine
