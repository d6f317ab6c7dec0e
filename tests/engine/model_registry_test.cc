// How models come into service and leave it, with small ones: loads and unloads that others wait
// for, memory that two of them want, and threads that the machine does not have.
#include "engine/model_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/memory_ledger.h"
#include "engine/model_memory.h"
#include "model/kernels.h"
#include "tests/engine/engine_harness.h"
#include "tests/engine/fake_transformer.h"
#include "tests/model/model_folder.h"

namespace valuescope::engine {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

constexpr int64_t kPlenty = int64_t{1} << 50;

// Holds its request where it is until it is let go on: the news of a step wait for those before.
class HeldRecorder : public Recorder {
 public:
  void OnDelta(const Delta& delta) override {
    Recorder::OnDelta(delta);
    go_on_.WaitForNotification();
  }
  void GoOn() { go_on_.Notify(); }

 private:
  absl::Notification go_on_;
};

// A load that stands still once the weights are read.
class HeldLoad {
 public:
  void Hold() {
    reached_.Notify();
    go_on_.WaitForNotification();
  }
  void AwaitReached() { reached_.WaitForNotification(); }
  void GoOn() { go_on_.Notify(); }

 private:
  absl::Notification reached_, go_on_;
};

int64_t AddressSpace() {
  int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

// While it lives no thread can be started: none has room for such a stack.
class NoThreads {
 public:
  NoThreads() {
    pthread_attr_t huge;
    EXPECT_EQ(pthread_getattr_default_np(&before_), 0);
    EXPECT_EQ(pthread_getattr_default_np(&huge), 0);
    EXPECT_EQ(pthread_attr_setstacksize(&huge, size_t{1} << 47), 0);
    EXPECT_EQ(pthread_setattr_default_np(&huge), 0);
    pthread_attr_destroy(&huge);
  }
  ~NoThreads() {
    EXPECT_EQ(pthread_setattr_default_np(&before_), 0);
    pthread_attr_destroy(&before_);
  }

 private:
  pthread_attr_t before_;
};

class ModelRegistryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    AddModel("small");
    AddModel("other");
    fs::create_directory(root_ / "broken");
    root_.Write("broken/config.json", R"({"model_type": "gpt2"})");
    registry_ = Create({});
  }

  std::unique_ptr<ModelRegistry> Create(EngineOptions options) {
    options.threads = 1;
    options.kv_cache_bytes = 1 << 20;
    options.max_batch_rows = 2;
    if (!options.free_memory) options.free_memory = [this] { return free_.load(); };
    return ModelRegistry::Create(root_.path(), std::move(options));
  }
  // Whose loads stand still, each in its turn.
  std::unique_ptr<ModelRegistry> CreateHolding(std::vector<HeldLoad*> holds) {
    EngineOptions options;
    options.make_recorder = [holds, turn = std::make_shared<size_t>(0)] {
      holds.at((*turn)++)->Hold();
      return nullptr;
    };
    return Create(std::move(options));
  }

  void AddModel(const std::string& id) {
    fs::copy(std::string(VALUESCOPE_SOURCE_DIR) + "/tests/golden/families/llama_tied", root_ / id);
  }
  json Config(const std::string& id) const {
    return json::parse(model::ReadFile(root_ / id / "config.json"));
  }
  void WriteConfig(const std::string& id, const json& config) const {
    root_.Write(id + "/config.json", config.dump());
  }

  void Load(const std::string& id) {
    ASSERT_EQ(registry_->StartLoading(id), absl::OkStatus());
    registry_->WaitUntilSettled();
    ASSERT_EQ(StateOf(id), ModelState::kReady);
  }
  ModelState StateOf(const std::string& id) const { return registry_->Find(id)->state; }
  std::string ReasonOfGet(const std::string& id) const {
    return DetailsOf(registry_->Get(id).status()).reason;
  }

  // A request that runs on the model and does not end by itself.
  std::shared_ptr<HeldRecorder> StartHeldRequest(const std::string& id) {
    auto recorder = std::make_shared<HeldRecorder>();
    Request request = Generation({3, 4, 5}, 40);
    request.sampling->ignore_eos = true;
    const auto running = (*registry_->Get(id))->engine->Submit(std::move(request), recorder);
    EXPECT_TRUE(running.ok()) << running.status();
    EXPECT_TRUE(recorder->AwaitDelta());
    return recorder;
  }

  const model::ModelFolder root_;
  std::atomic<int64_t> free_ = kPlenty;
  std::unique_ptr<ModelRegistry> registry_;
};

// --- Loads that throw -----------------------------------------------------------------------

TEST_F(ModelRegistryTest, WhateverALoadThrowsIsTheModelsStateAndOthersGoOn) {
  struct Case {
    std::function<void()> thrown;
    absl::StatusCode code;
    std::string reason;
  };
  const std::vector<Case> cases = {
      {[] { throw std::bad_alloc(); }, absl::StatusCode::kResourceExhausted, "MODEL_TOO_LARGE"},
      {[] { throw std::system_error(EAGAIN, std::generic_category()); },
       absl::StatusCode::kResourceExhausted, "MODEL_LOAD_FAILED"},
      {[] { throw std::runtime_error("something"); }, absl::StatusCode::kInternal,
       "MODEL_LOAD_FAILED"}};
  EngineOptions options;
  options.make_recorder = [&cases, turn = std::make_shared<size_t>(0)] {
    if (*turn < cases.size()) cases[(*turn)++].thrown();
    return nullptr;
  };
  registry_ = Create(std::move(options));
  for (const Case& one : cases) {
    ASSERT_EQ(registry_->StartLoading("small"), absl::OkStatus());
    registry_->WaitUntilSettled();
    const auto entry = registry_->Find("small");
    EXPECT_EQ(entry->state, ModelState::kFailed);
    EXPECT_EQ(entry->error.code(), one.code) << entry->error;
    EXPECT_EQ(DetailsOf(entry->error).reason, one.reason) << entry->error;
  }
  Load("small");  // the next time it may work
}

// --- Unloading ------------------------------------------------------------------------------

TEST_F(ModelRegistryTest, AnUnloadWhoseCallerIsGoneLetsRequestsEndAndRefusesNewOnes) {
  Load("small");
  const auto engine = (*registry_->Get("small"))->engine;
  const auto request = StartHeldRequest("small");
  const absl::Status late = registry_->Unload("small", absl::Now());
  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(StateOf("small"), ModelState::kUnloading);
  EXPECT_EQ(ReasonOfGet("small"), "MODEL_NOT_LOADED");
  EXPECT_EQ(registry_->Served().size(), 1u);

  EXPECT_TRUE(Becomes([&] { return !engine->CheckAccepts().ok(); }));
  EXPECT_EQ(DetailsOf(engine->CheckAccepts()).reason, "MODEL_UNLOADING");
  const absl::Status again = registry_->StartLoading("small");
  EXPECT_EQ(again.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(DetailsOf(again).reason, "MODEL_UNLOADING");

  request->GoOn();
  const auto completion = request->Await();
  ASSERT_TRUE(completion.ok()) << completion.status();
  EXPECT_EQ(completion->token_ids.size(), 40u);
  EXPECT_EQ(registry_->Unload("small", absl::InfiniteFuture()), absl::OkStatus());
  EXPECT_EQ(StateOf("small"), ModelState::kAvailable);
  EXPECT_EQ(registry_->Served().size(), 0u);
  Load("small");
}

TEST_F(ModelRegistryTest, EveryLoadAndUnloadThatEndedIsToldOfAfterItsStateChanged) {
  absl::Mutex mutex;
  std::vector<ModelState> told;
  EngineOptions options;
  options.on_change = [&] {
    absl::MutexLock lock(&mutex);
    told.push_back(StateOf("small"));
  };
  const auto becomes = [&](const std::vector<ModelState>& expected) {
    return Becomes([&] {
      absl::MutexLock lock(&mutex);
      return told == expected;
    });
  };
  registry_ = Create(options);
  Load("small");
  EXPECT_TRUE(becomes({ModelState::kReady}));
  ASSERT_EQ(registry_->Unload("small", absl::InfiniteFuture()), absl::OkStatus());
  EXPECT_TRUE(becomes({ModelState::kReady, ModelState::kAvailable}));
  ASSERT_EQ(registry_->StartLoading("broken"), absl::OkStatus());
  EXPECT_TRUE(becomes({ModelState::kReady, ModelState::kAvailable, ModelState::kAvailable}));
  registry_ = nullptr;
}

// A call has one request after the other to make.
TEST_F(ModelRegistryTest, WhoGotAModelGoesOnWithItWhileItUnloads) {
  Load("small");
  auto model = *registry_->Get("small");
  EXPECT_EQ(registry_->Unload("small", absl::Now()).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ReasonOfGet("small"), "MODEL_NOT_LOADED");
  for (int i = 0; i < 2; ++i) {
    const auto recorder = std::make_shared<Recorder>();
    ASSERT_TRUE(model->engine->Submit(Generation({3, 4, 5}, 4), recorder).ok());
    EXPECT_TRUE(recorder->Await().ok());
  }
  EXPECT_EQ(StateOf("small"), ModelState::kUnloading);
  model = nullptr;
  EXPECT_EQ(registry_->Unload("small", absl::InfiniteFuture()), absl::OkStatus());
}

TEST_F(ModelRegistryTest, TotalsKeepWhatAModelDidThatIsUnloaded) {
  Load("small");
  Load("other");
  const auto request = StartHeldRequest("small");
  EXPECT_EQ(registry_->Unload("small", absl::Now()).code(), absl::StatusCode::kDeadlineExceeded);
  const EngineTotals unloading = registry_->Totals();
  EXPECT_EQ(unloading.prompt_tokens, 3);
  request->GoOn();
  ASSERT_TRUE(request->Await().ok());
  ASSERT_EQ(registry_->Unload("small", absl::InfiniteFuture()), absl::OkStatus());
  const EngineTotals unloaded = registry_->Totals();
  EXPECT_EQ(unloaded.prompt_tokens, 3);
  EXPECT_EQ(unloaded.generated_tokens, 40);
  EXPECT_GE(unloaded.steps, unloading.steps);
  Load("small");
  const auto recorder = std::make_shared<Recorder>();
  ASSERT_TRUE((*registry_->Get("small"))->engine->Submit(Generation({3, 4, 5}, 1), recorder).ok());
  ASSERT_TRUE(recorder->Await().ok());
  EXPECT_EQ(registry_->Totals().prompt_tokens, 6);
  EXPECT_EQ(registry_->Totals().generated_tokens, 41);
}

TEST_F(ModelRegistryTest, ARegistryThatEndsDoesNotWaitForWhoHasAModel) {
  Load("small");
  const auto model = *registry_->Get("small");
  EXPECT_EQ(registry_->Unload("small", absl::Now()).code(), absl::StatusCode::kDeadlineExceeded);
  registry_ = nullptr;
  // Whichever of the two came last.
  EXPECT_THAT(DetailsOf(model->engine->CheckAccepts()).reason,
              testing::AnyOf("DRAINING", "MODEL_UNLOADING"));
}

TEST_F(ModelRegistryTest, AServerThatStopsEndsRequestsOfAModelThatIsUnloading) {
  Load("small");
  const auto request = StartHeldRequest("small");
  EXPECT_EQ(registry_->Unload("small", absl::Now()).code(), absl::StatusCode::kDeadlineExceeded);
  std::thread drain([&] { registry_->Drain(absl::InfinitePast()); });
  request->GoOn();
  drain.join();
  const absl::Status end = request->Await().status();
  // All its steps may have run before the drain began.
  EXPECT_TRUE(end.ok() || DetailsOf(end).reason == "DRAINING") << end;
  EXPECT_EQ(registry_->Unload("small", absl::InfiniteFuture()), absl::OkStatus());
}

TEST_F(ModelRegistryTest, ARegistryEndsWhatUnloadsInTheBackground) {
  Load("small");
  const auto request = StartHeldRequest("small");
  EXPECT_EQ(registry_->Unload("small", absl::Now()).code(), absl::StatusCode::kDeadlineExceeded);
  std::thread end([&] { registry_.reset(); });
  request->GoOn();
  end.join();
  const absl::Status status = request->Await().status();
  EXPECT_TRUE(status.ok() || DetailsOf(status).reason == "DRAINING") << status;
}

TEST_F(ModelRegistryTest, AModelWhoseFolderIsGoneIsUnloaded) {
  Load("small");
  fs::remove_all(root_ / "small");
  EXPECT_EQ(registry_->StartLoading("small").code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(registry_->Unload("small", absl::InfiniteFuture()), absl::OkStatus());
  EXPECT_EQ(registry_->Find("small").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ModelRegistryTest, ALoadThatIsCancelledIsUnloadingUntilItEnded) {
  HeldLoad load;
  registry_ = CreateHolding({&load});
  ASSERT_EQ(registry_->StartLoading("small"), absl::OkStatus());
  load.AwaitReached();
  EXPECT_EQ(registry_->Unload("small", absl::Now()).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(StateOf("small"), ModelState::kUnloading);
  EXPECT_EQ(DetailsOf(registry_->StartLoading("small")).reason, "MODEL_UNLOADING");
  load.GoOn();
  EXPECT_EQ(registry_->Unload("small", absl::InfiniteFuture()), absl::OkStatus());
  EXPECT_EQ(StateOf("small"), ModelState::kAvailable);
  EXPECT_TRUE(registry_->Settled());
}

TEST_F(ModelRegistryTest, AnUnloadWaitsForTheLoadThatItCancelledAndForNoOther) {
  HeldLoad first, second;
  registry_ = CreateHolding({&first, &second});
  ASSERT_EQ(registry_->StartLoading("small"), absl::OkStatus());
  first.AwaitReached();
  absl::Status unloaded;
  std::thread unload([&] { unloaded = registry_->Unload("small", absl::Now() + kPatience); });
  EXPECT_TRUE(Becomes([&] { return StateOf("small") == ModelState::kUnloading; }));
  first.GoOn();
  absl::Status again = registry_->StartLoading("small");
  while (DetailsOf(again).reason == "MODEL_UNLOADING") again = registry_->StartLoading("small");
  ASSERT_EQ(again, absl::OkStatus());
  second.AwaitReached();
  unload.join();
  EXPECT_EQ(unloaded, absl::OkStatus());
  EXPECT_EQ(StateOf("small"), ModelState::kLoading);
  second.GoOn();
  registry_->WaitUntilSettled();
  EXPECT_EQ(StateOf("small"), ModelState::kReady);
}

// --- Memory ---------------------------------------------------------------------------------

TEST_F(ModelRegistryTest, LoadingWhatIsLoadedChangesNothingHoweverLittleMemoryIsFree) {
  Load("small");
  free_ = 0;
  EXPECT_EQ(registry_->StartLoading("small").code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(DetailsOf(registry_->StartLoading("other")).reason, "MODEL_TOO_LARGE");
  EXPECT_EQ(StateOf("small"), ModelState::kReady);
}

TEST_F(ModelRegistryTest, CountsTheRotationsOfEveryPosition) {
  json config = Config("small");
  config["max_position_embeddings"] = 1 << 24;
  WriteConfig("small", config);
  free_ = 400'000'000;  // 2 tables x 2^24 positions x 3 x 4 bytes are a little more
  EXPECT_EQ(DetailsOf(registry_->StartLoading("small")).reason, "MODEL_TOO_LARGE");
  EXPECT_EQ(registry_->StartLoading("other"), absl::OkStatus());
}

// A second embedding is what packing makes of a tied one, which float16 is not.
TEST_F(ModelRegistryTest, CountsATiedEmbeddingTwiceOnlyWhereItIsPacked) {
  for (const char* id : {"small", "other"}) {
    json config = Config(id);
    config["vocab_size"] = 1 << 20;  // x 36 numbers: 151 MB in float32
    config["tie_word_embeddings"] = true;
    WriteConfig(id, config);
  }
  free_ = 250'000'000;
  EXPECT_EQ(DetailsOf(registry_->StartLoading("small", DType::kFloat32)).reason, "MODEL_TOO_LARGE");
  free_ = 100'000'000;
  EXPECT_EQ(registry_->StartLoading("other", DType::kFloat16), absl::OkStatus());
}

TEST_F(ModelRegistryTest, CountsTheKernelsThatALibraryMakesForItsProducts) {
  free_ = 60'000'000;  // a thousand times the weights
  if (model::CanPack(c10::kCPU, c10::ScalarType::BFloat16)) {
    EXPECT_EQ(DetailsOf(registry_->StartLoading("small", DType::kBFloat16)).reason,
              "MODEL_TOO_LARGE");
  }
  EXPECT_EQ(registry_->StartLoading("other", DType::kFloat16), absl::OkStatus());
}

TEST_F(ModelRegistryTest, CountsTheCacheWhereItIsTakenAtOnce) {
  EngineOptions options;
  options.device = "cuda:0";
  const auto registry = Create(std::move(options));
  free_ = 1 << 20;  // of which the cache takes all
  // Of a type that no library makes kernels for, on any processor.
  EXPECT_EQ(DetailsOf(registry->StartLoading("small", DType::kFloat16)).reason, "MODEL_TOO_LARGE");
  EXPECT_EQ(registry_->StartLoading("small", DType::kFloat16), absl::OkStatus());
}

// Weights, cache and step are promised to a model from before it loads until it is gone.
TEST_F(ModelRegistryTest, ModelsTogetherHoldNoMoreThanTheirPlaceHas) {
  EngineOptions options;
  options.kv_cache_bytes = 1 << 20;
  const int64_t one =
      MemoryNeeded(*model::ReadArchitecture((root_ / "small").string()), options).InAll();
  EXPECT_GT(one, 1 << 20);
  MemoryLedger place({.capacity = 2 * one - 1, .name = "the place"});
  options.device_memory = &place;
  registry_ = Create(std::move(options));
  Load("small");
  EXPECT_EQ(place.used(), one);
  const absl::Status refused = registry_->StartLoading("other");
  EXPECT_EQ(DetailsOf(refused).reason, "MODEL_TOO_LARGE");
  EXPECT_FALSE(DetailsOf(refused).retry_after.has_value());
  EXPECT_THAT(std::string(refused.message()), HasSubstr("the place"));
  EXPECT_EQ(StateOf("other"), ModelState::kAvailable);
  EXPECT_EQ(registry_->Unload("small", absl::InfiniteFuture()), absl::OkStatus());
  EXPECT_EQ(place.used(), 0);
  // A load that fails gives it back as well.
  fs::resize_file(root_ / "small/model.safetensors", 100);
  ASSERT_EQ(registry_->StartLoading("small"), absl::OkStatus());
  registry_->WaitUntilSettled();
  EXPECT_EQ(StateOf("small"), ModelState::kFailed);
  EXPECT_EQ(place.used(), 0);
  Load("other");
  EXPECT_EQ(place.used(), one);
  registry_ = nullptr;
  EXPECT_EQ(place.used(), 0);
}

// 0.4 GB of zeros, which the file system does not have to keep.
void MakeLarge(const fs::path& folder, json config) {
  constexpr int64_t kLayers = 8, kHidden = 36, kIntermediate = 1 << 17;
  config["num_hidden_layers"] = kLayers;
  config["intermediate_size"] = kIntermediate;
  config["attention_bias"] = config["mlp_bias"] = false;
  std::ofstream(folder / "config.json") << config.dump();
  json header = json::object();
  int64_t end = 0;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    int64_t bytes = 4;
    for (const int64_t size : shape) bytes *= size;
    header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {end, end + bytes}}};
    end += bytes;
  };
  add("model.embed_tokens.weight", {97, kHidden});
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const std::string block = absl::StrCat("model.layers.", layer, ".");
    add(block + "input_layernorm.weight", {kHidden});
    add(block + "self_attn.q_proj.weight", {36, kHidden});
    add(block + "self_attn.k_proj.weight", {18, kHidden});
    add(block + "self_attn.v_proj.weight", {18, kHidden});
    add(block + "self_attn.o_proj.weight", {kHidden, 36});
    add(block + "post_attention_layernorm.weight", {kHidden});
    add(block + "mlp.gate_proj.weight", {kIntermediate, kHidden});
    add(block + "mlp.up_proj.weight", {kIntermediate, kHidden});
    add(block + "mlp.down_proj.weight", {kHidden, kIntermediate});
  }
  add("model.norm.weight", {kHidden});
  const std::string file = model::Safetensors(header.dump(), "");
  fs::remove(folder / "model.safetensors");
  std::ofstream(folder / "model.safetensors", std::ios::binary) << file;
  fs::resize_file(folder / "model.safetensors", file.size() + static_cast<uintmax_t>(end));
}

TEST_F(ModelRegistryTest, TwoLoadsAreNotGivenTheSameMemory) {
  for (const char* id : {"small", "other"}) MakeLarge(root_ / id, Config(id));
  free_ = 600'000'000;  // one and a third of what each needs
  ASSERT_EQ(registry_->StartLoading("small"), absl::OkStatus());
  const absl::Status beside = registry_->StartLoading("other");
  const auto small = registry_->Find("small");
  ASSERT_TRUE(small->state == ModelState::kLoading && small->progress < 0.5)
      << "the load was too far before the test could ask for another";
  EXPECT_EQ(DetailsOf(beside).reason, "MODEL_TOO_LARGE");
  EXPECT_THAT(std::string(beside.message()), HasSubstr("models that are loading"));
  EXPECT_EQ(registry_->Unload("small", absl::InfiniteFuture()), absl::OkStatus());
  EXPECT_EQ(registry_->StartLoading("other"), absl::OkStatus());
  EXPECT_EQ(registry_->Unload("other", absl::InfiniteFuture()), absl::OkStatus());
}

// --- Threads --------------------------------------------------------------------------------

TEST_F(ModelRegistryTest, LoadsThatEndedHoldNoStacks) {
  const auto load = [&](int times) {
    for (int i = 0; i < times; ++i) {
      ASSERT_EQ(registry_->StartLoading("broken"), absl::OkStatus());
      registry_->WaitUntilSettled();
    }
  };
  load(10);  // the C library keeps some stacks for threads to come
  const int64_t before = AddressSpace();
  load(100);
  EXPECT_LT(AddressSpace() - before, int64_t{200} << 20);
}

TEST_F(ModelRegistryTest, AModelThatGetsNoThreadStaysAsItIsAndMayTryAgain) {
  Load("other");
  {
    const NoThreads none;
    for (const absl::Status& status :
         {registry_->StartLoading("small"), registry_->Unload("other", absl::InfiniteFuture())}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
      EXPECT_EQ(DetailsOf(status).reason, "TOO_MANY_THREADS");
      EXPECT_EQ(DetailsOf(status).retry_after, absl::Seconds(1));
    }
  }
  EXPECT_TRUE(registry_->Settled());
  EXPECT_EQ(StateOf("small"), ModelState::kAvailable);
  EXPECT_EQ(StateOf("other"), ModelState::kReady);
  EXPECT_TRUE(registry_->Get("other").ok());
  Load("small");
  EXPECT_EQ(registry_->Unload("other", absl::InfiniteFuture()), absl::OkStatus());
}

// --- What the engine says -------------------------------------------------------------------

TEST(Draining, TellsWhyItEndsAndTheLastWordCounts) {
  absl::Notification stuck, go_on;
  const auto engine = StartFake({.threads = 1, .kv_cache_bytes = 1 << 16, .max_batch_rows = 2},
                                [&](const model::StepBatch&) {
                                  if (!stuck.HasBeenNotified()) stuck.Notify();
                                  go_on.WaitForNotification();
                                });
  auto recorder = std::make_shared<Recorder>();
  Request request = Generation({3, 40, 50}, 60);
  request.sampling->ignore_eos = true;
  ASSERT_TRUE(engine->Submit(std::move(request), recorder).ok());
  stuck.WaitForNotification();
  std::thread unload([&] {
    engine->Drain(absl::InfiniteFuture(),
                  ErrorWithReason(absl::StatusCode::kUnavailable, "MODEL_UNLOADING", "unloading"));
  });
  EXPECT_TRUE(
      Becomes([&] { return DetailsOf(engine->CheckAccepts()).reason == "MODEL_UNLOADING"; }));
  std::thread stop([&] { engine->Drain(absl::InfinitePast()); });
  EXPECT_TRUE(Becomes([&] { return DetailsOf(engine->CheckAccepts()).reason == "DRAINING"; }));
  go_on.Notify();
  unload.join();
  stop.join();
  EXPECT_EQ(DetailsOf(recorder->Await().status()).reason, "DRAINING");
}

}  // namespace
}  // namespace valuescope::engine
