#include "engine/served_model.h"

#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <set>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/cancellation.h"
#include "base/error.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "engine/engine_loop.h"
#include "model/transformer.h"

namespace valuescope::engine {
namespace {

namespace fs = std::filesystem;

std::string ResourceName(absl::string_view id) { return absl::StrCat("models/", std::string(id)); }

absl::StatusOr<std::shared_ptr<const ServedModel>> LoadModel(
    const std::string& id, const std::string& folder, const EngineOptions& options,
    const std::function<void(double)>& progress, const Cancellation& cancellation) {
  auto served = std::make_shared<ServedModel>();
  served->id = id;
  served->dtype = options.dtype;
  served->device = options.device;
  served->batch_invariant = options.batch_invariant || (c10::Device(options.device).is_cpu() &&
                                                        options.dtype == DType::kFloat32);
  VS_ASSIGN_OR_RETURN(served->text, text::TextModel::Load(folder));
  VS_ASSIGN_OR_RETURN(auto transformer,
                      model::Transformer::Load(folder, {.device = c10::Device(options.device),
                                                        .dtype = options.dtype,
                                                        .threads = options.threads,
                                                        .batch_invariant = options.batch_invariant,
                                                        .progress = progress,
                                                        .cancellation = cancellation}));
  served->architecture = transformer->architecture();
  served->weights_digest = transformer->weights_digest();
  served->num_parameters = model::NumParameters(served->architecture);
  served->weight_bytes = served->num_parameters * SizeOf(options.dtype);
  VS_ASSIGN_OR_RETURN(served->engine, StartEngine(std::move(transformer), served->text, options));
  served->load_time = absl::Now();
  return std::shared_ptr<const ServedModel>(std::move(served));
}

// Bytes that are free where the model goes, swap not counted; nullopt where the system does not
// say.
std::optional<int64_t> FreeMemory(const EngineOptions& options) {
  if (options.free_memory) {
    const absl::StatusOr<int64_t> free = options.free_memory();
    return free.ok() ? std::optional(*free) : std::nullopt;
  }
  std::ifstream file("/proc/meminfo");
  std::string key;
  int64_t kibibytes;
  while (file >> key >> kibibytes) {
    if (key == "MemAvailable:") return kibibytes << 10;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return std::nullopt;
}

// The weights as they are computed with, and the embedding's rows beside a tied unembedding's
// product. What is on disk is mapped and can be dropped, and an untouched cache takes nothing.
int64_t MemoryNeeded(const model::Architecture& architecture, const EngineOptions& options) {
  const int64_t embedding =
      architecture.tied_embeddings ? architecture.vocabulary * architecture.hidden : 0;
  return (model::NumParameters(architecture) + embedding) * SizeOf(options.dtype);
}

absl::Status CheckFits(const fs::path& folder, const EngineOptions& options) {
  VS_ASSIGN_OR_RETURN(const model::Architecture architecture,
                      model::ReadArchitecture(folder.string()));
  const std::optional<int64_t> free = FreeMemory(options);
  const int64_t needed = MemoryNeeded(architecture, options);
  if (!free || needed <= *free) return absl::OkStatus();
  return NeverFits("MODEL_TOO_LARGE",
                   absl::StrCat("the model needs about ", needed, " bytes in ",
                                NameOf(options.dtype), ", ", *free, " are free"));
}

class FolderRegistry : public ModelRegistry {
 public:
  FolderRegistry(std::string root, EngineOptions options)
      : root_(std::move(root)), options_(std::move(options)) {}

  ~FolderRegistry() override {
    StopLoading();
    for (std::thread& thread : threads_) thread.join();
  }

  absl::Status StartLoading(absl::string_view id, std::optional<DType> dtype) override {
    VS_RETURN_IF_ERROR(CheckResourceId("model", id));
    const std::string key(id);
    VS_RETURN_IF_ERROR(CheckFolder(key));
    EngineOptions options = options_;
    if (dtype) options.dtype = *dtype;
    // A folder that cannot be read fails where people look for it: in the model's state.
    const absl::Status fits = CheckFits(fs::path(root_) / key, options);
    if (absl::IsResourceExhausted(fits)) return fits;
    absl::MutexLock lock(&mutex_);
    if (stopped_) {
      return ErrorWithReason(absl::StatusCode::kUnavailable, "DRAINING",
                             "the server is shutting down; retry on another replica");
    }
    ModelEntry& entry = entries_[key];
    if (entry.state == ModelState::kLoading || entry.state == ModelState::kReady) {
      if (entry.dtype != options.dtype) {
        return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "OTHER_DTYPE",
                               absl::StrCat("`", ResourceName(id), "` is loaded or loading in ",
                                            NameOf(entry.dtype), "; unload it first"));
      }
      return ErrorWithReason(absl::StatusCode::kAlreadyExists, "MODEL_ALREADY_LOADED",
                             absl::StrCat("`", ResourceName(id), "` is loaded or loading"));
    }
    entry = {.id = key,
             .state = ModelState::kLoading,
             .progress = 0,
             .dtype = options.dtype,
             .error = {},
             .model = nullptr};
    const Cancellation cancellation;
    loads_.insert_or_assign(key, cancellation);
    threads_.emplace_back([this, key, options, cancellation] { Load(key, options, cancellation); });
    return absl::OkStatus();
  }

  absl::Status Unload(absl::string_view id, absl::Time deadline) override {
    VS_RETURN_IF_ERROR(Find(id).status());
    std::shared_ptr<const ServedModel> model;
    {
      absl::MutexLock lock(&mutex_);
      if (!EndLoad(std::string(id), deadline)) {
        return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "MODEL_LOADING",
                               absl::StrCat("`", ResourceName(id), "` is still loading"));
      }
      const auto entry = entries_.find(std::string(id));
      if (entry == entries_.end()) return absl::OkStatus();
      model = std::move(entry->second.model);
      entries_.erase(entry);
    }
    if (model != nullptr) model->engine->Drain(deadline);
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

  absl::StatusOr<ModelEntry> Find(absl::string_view id) const override {
    VS_RETURN_IF_ERROR(CheckResourceId("model", id));
    const std::string key(id);
    absl::MutexLock lock(&mutex_);
    if (!entries_.contains(key)) VS_RETURN_IF_ERROR(CheckFolder(key));
    return EntryOf(key);
  }

  absl::StatusOr<std::shared_ptr<const ServedModel>> Get(absl::string_view id) const override {
    VS_ASSIGN_OR_RETURN(const ModelEntry entry, Find(id));
    const auto refused = [&](absl::string_view reason, absl::string_view why) {
      return ErrorWithReason(absl::StatusCode::kFailedPrecondition, reason,
                             absl::StrCat("`", ResourceName(id), "` ", why));
    };
    switch (entry.state) {
      case ModelState::kReady:
        return entry.model;
      case ModelState::kLoading:
        return refused("MODEL_LOADING", "is still loading");
      case ModelState::kFailed:
        return refused("MODEL_FAILED", "could not be loaded");
      case ModelState::kAvailable:
        break;
    }
    return refused("MODEL_NOT_LOADED", "is not loaded; start the server with it or call LoadModel");
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
    for (auto& [id, cancellation] : loads_) cancellation.Cancel();
  }

  void Drain(absl::Time deadline) override {
    for (const ModelEntry& entry : List()) {
      if (entry.model != nullptr) entry.model->engine->Drain(deadline);
    }
  }

 private:
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

  // Cancels the load of a model, if one runs, and waits for its end; false if it still runs at
  // `deadline`.
  bool EndLoad(const std::string& id, absl::Time deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto load = loads_.find(id);
    if (load == loads_.end()) return true;
    load->second.Cancel();
    const auto ended = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !loads_.contains(id); };
    return mutex_.AwaitWithDeadline(absl::Condition(&ended), deadline);
  }

  void Load(const std::string& id, const EngineOptions& options, const Cancellation& cancellation) {
    const auto progress = [this, &id](double fraction) {
      absl::MutexLock lock(&mutex_);
      entries_[id].progress = fraction;
    };
    auto loaded = LoadModel(id, (fs::path(root_) / id).string(), options, progress, cancellation);
    absl::MutexLock lock(&mutex_);
    loads_.erase(id);
    if (absl::IsCancelled(loaded.status())) {
      entries_.erase(id);  // as if nobody had asked for it
      return;
    }
    ModelEntry& entry = entries_[id];
    if (loaded.ok()) {
      entry.state = ModelState::kReady;
      entry.progress = 1;
      entry.model = *std::move(loaded);
    } else {
      entry.state = ModelState::kFailed;
      entry.error = loaded.status();
    }
  }

  const std::string root_;
  const EngineOptions options_;
  mutable absl::Mutex mutex_;
  std::map<std::string, ModelEntry> entries_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Cancellation> loads_ ABSL_GUARDED_BY(mutex_);  // that run, by id
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;                       // nothing loads any more
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<ModelRegistry> ModelRegistry::Create(std::string model_root,
                                                     EngineOptions options) {
  return std::make_unique<FolderRegistry>(std::move(model_root), std::move(options));
}

}  // namespace valuescope::engine
