#include "engine/served_model.h"

#include <filesystem>
#include <map>
#include <set>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
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
    const std::function<void(double)>& progress) {
  auto served = std::make_shared<ServedModel>();
  served->id = id;
  served->dtype = options.dtype;
  served->device = options.device;
  VS_ASSIGN_OR_RETURN(served->text, text::TextModel::Load(folder));
  VS_ASSIGN_OR_RETURN(auto transformer, model::Transformer::Load(folder, {.device = c10::kCPU,
                                                                          .dtype = options.dtype,
                                                                          .progress = progress}));
  served->architecture = transformer->architecture();
  served->weights_digest = transformer->weights_digest();
  VS_ASSIGN_OR_RETURN(served->engine, StartEngine(std::move(transformer), served->text, options));
  return std::shared_ptr<const ServedModel>(std::move(served));
}

class FolderRegistry : public ModelRegistry {
 public:
  FolderRegistry(std::string root, EngineOptions options)
      : root_(std::move(root)), options_(std::move(options)) {}

  ~FolderRegistry() override {
    for (std::thread& thread : threads_) thread.join();
  }

  absl::Status StartLoading(absl::string_view id) override {
    VS_RETURN_IF_ERROR(CheckResourceId("model", id));
    const std::string key(id);
    if (!HasFolder(key)) return ResourceNotFound(ResourceName(id));
    absl::MutexLock lock(&mutex_);
    ModelEntry& entry = entries_[key];
    if (entry.state == ModelState::kLoading || entry.state == ModelState::kReady) {
      return ErrorWithReason(absl::StatusCode::kAlreadyExists, "MODEL_ALREADY_LOADED",
                             absl::StrCat("`", ResourceName(id), "` is loaded or loading"));
    }
    entry = {
        .id = key, .state = ModelState::kLoading, .progress = 0, .error = {}, .model = nullptr};
    ++loading_;
    threads_.emplace_back([this, key] { Load(key); });
    return absl::OkStatus();
  }

  std::vector<ModelEntry> List() const override {
    std::set<std::string> ids;
    std::error_code ignored;
    for (const fs::directory_entry& folder : fs::directory_iterator(root_, ignored)) {
      const std::string id = folder.path().filename().string();
      if (CheckResourceId("model", id).ok() && HasFolder(id)) ids.insert(id);
    }
    std::vector<ModelEntry> entries;
    absl::MutexLock lock(&mutex_);
    for (const auto& [id, entry] : entries_) ids.insert(id);
    for (const std::string& id : ids) entries.push_back(EntryOf(id));
    return entries;
  }

  absl::StatusOr<ModelEntry> Find(absl::string_view id) const override {
    VS_RETURN_IF_ERROR(CheckResourceId("model", id));
    const std::string key(id);
    absl::MutexLock lock(&mutex_);
    if (!entries_.contains(key) && !HasFolder(key)) return ResourceNotFound(ResourceName(id));
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
    if (loading_ > 0) return false;
    for (const auto& [id, entry] : entries_) {
      if (entry.state == ModelState::kFailed) return false;
    }
    return true;
  }

  void WaitUntilSettled() const override {
    absl::MutexLock lock(&mutex_);
    const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return loading_ == 0; };
    mutex_.Await(absl::Condition(&none));
  }

  void Drain(absl::Time deadline) override {
    for (const ModelEntry& entry : List()) {
      if (entry.model != nullptr) entry.model->engine->Drain(deadline);
    }
  }

 private:
  bool HasFolder(const std::string& id) const {
    std::error_code ignored;
    return fs::is_regular_file(fs::path(root_) / id / "config.json", ignored);
  }

  ModelEntry EntryOf(const std::string& id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto found = entries_.find(id);
    if (found != entries_.end()) return found->second;
    return {
        .id = id, .state = ModelState::kAvailable, .progress = 0, .error = {}, .model = nullptr};
  }

  void Load(const std::string& id) {
    const auto progress = [this, &id](double fraction) {
      absl::MutexLock lock(&mutex_);
      entries_[id].progress = fraction;
    };
    auto loaded = LoadModel(id, (fs::path(root_) / id).string(), options_, progress);
    absl::MutexLock lock(&mutex_);
    ModelEntry& entry = entries_[id];
    --loading_;
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
  int loading_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<ModelRegistry> ModelRegistry::Create(std::string model_root,
                                                     EngineOptions options) {
  return std::make_unique<FolderRegistry>(std::move(model_root), std::move(options));
}

}  // namespace valuescope::engine
