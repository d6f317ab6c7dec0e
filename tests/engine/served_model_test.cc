// The registry of models: ids become paths only when they are harmless, and every state has its own
// refusal.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/time/clock.h"
#include "base/error.h"
#include "engine/model_registry.h"

namespace valuescope::engine {
namespace {

namespace fs = std::filesystem;

class Registry : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(::testing::TempDir()) / ("served_model_test_" + std::to_string(getpid()));
    fs::remove_all(root_);
    fs::create_directories(root_ / "broken");
    fs::create_directories(root_ / "no-config");
    fs::create_directories(root_ / "another");
    for (const char* id : {"broken", "another"}) {
      std::ofstream(root_ / id / "config.json") << "{\"model_type\":\"gpt2\"}";
    }
    registry_ = ModelRegistry::Create(root_.string(), {});
  }
  void TearDown() override {
    registry_.reset();
    fs::remove_all(root_);
  }

  std::string ReasonOfGet(const char* id) { return DetailsOf(registry_->Get(id).status()).reason; }

  fs::path root_;
  std::unique_ptr<ModelRegistry> registry_;
};

TEST_F(Registry, ListsFoldersWithAConfigInNameOrder) {
  const std::vector<ModelEntry> entries = registry_->List();
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].id, "another");
  EXPECT_EQ(entries[1].id, "broken");
  EXPECT_EQ(entries[0].state, ModelState::kAvailable);
  EXPECT_TRUE(registry_->Settled());
}

TEST_F(Registry, KnowsNothingOfModelsThatAreNotThere) {
  for (const char* id : {"unknown", "no-config"}) {
    EXPECT_EQ(registry_->StartLoading(id).code(), absl::StatusCode::kNotFound) << id;
    EXPECT_EQ(registry_->Find(id).status().code(), absl::StatusCode::kNotFound) << id;
    EXPECT_EQ(registry_->Get(id).status().code(), absl::StatusCode::kNotFound) << id;
  }
}

TEST_F(Registry, MakesNoPathOfAnIdThatIsNoId) {
  for (const char* id : {"", ".", "..", "../broken", "broken/../another", "/etc", "a b", "-a"}) {
    EXPECT_EQ(registry_->StartLoading(id).code(), absl::StatusCode::kInvalidArgument) << id;
    EXPECT_EQ(registry_->Get(id).status().code(), absl::StatusCode::kInvalidArgument) << id;
  }
}

TEST_F(Registry, RemembersWhyAModelFailedAndMayTryAgain) {
  EXPECT_EQ(registry_->Get("broken").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOfGet("broken"), "MODEL_NOT_LOADED");
  for (int attempt = 0; attempt < 2; ++attempt) {
    ASSERT_TRUE(registry_->StartLoading("broken").ok());
    registry_->WaitUntilSettled();
    EXPECT_FALSE(registry_->Settled());
    EXPECT_EQ(ReasonOfGet("broken"), "MODEL_FAILED");
    const auto entry = registry_->Find("broken");
    ASSERT_TRUE(entry.ok());
    EXPECT_EQ(entry->state, ModelState::kFailed);
    EXPECT_FALSE(entry->error.ok());
    EXPECT_EQ(std::string(entry->error.message()).find(root_.string()), std::string::npos)
        << entry->error;
  }
}

TEST_F(Registry, RefusesToLoadTwice) {
  const std::string root = std::string(VALUESCOPE_CACHE_DIR) + "/models";
  const char* id = "SmolLM2-135M-Instruct";
  const auto registry = ModelRegistry::Create(root, {.kv_cache_bytes = 64 << 20});
  ASSERT_TRUE(registry->StartLoading(id).ok()) << "run docker/setup";
  EXPECT_EQ(registry->StartLoading(id).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(DetailsOf(registry->Get(id).status()).reason, "MODEL_LOADING");
  EXPECT_FALSE(registry->Settled());
  registry->WaitUntilSettled();
  EXPECT_TRUE(registry->Settled());
  EXPECT_EQ(registry->StartLoading(id).code(), absl::StatusCode::kAlreadyExists);
  const auto served = registry->Get(id);
  ASSERT_TRUE(served.ok()) << served.status();
  EXPECT_EQ((*served)->id, id);
  EXPECT_EQ((*served)->architecture.num_layers, 30);
  EXPECT_EQ((*served)->weights_digest.size(), 64u);
  const HostTensor directions = *(*served)->engine->WriteDirections(29);
  EXPECT_EQ(directions.shape, (std::vector<int64_t>{576, 1536}));
  registry->Drain(absl::Now());
}

}  // namespace
}  // namespace valuescope::engine
