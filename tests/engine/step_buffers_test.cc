// The tensors of a step stay where they are, whatever the step is.
#include "engine/step_buffers.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/engine/engine_harness.h"
#include "tests/engine/fake_transformer.h"

namespace valuescope::engine {
namespace {

TEST(IndexBuffer, GivesWhatWasWrittenLastAtTheSameAddress) {
  IndexBuffer buffer(4, c10::kCPU);
  buffer.Push(7);
  buffer.Push(8);
  const at::Tensor first = buffer.OnDevice();
  EXPECT_EQ(first.numel(), 2);
  EXPECT_EQ(first[1].item<int64_t>(), 8);
  buffer.Clear();
  buffer.FillZeros(3);
  buffer.values()[2] = 5;
  const at::Tensor second = buffer.OnDevice();
  EXPECT_EQ(second.data_ptr(), first.data_ptr());
  EXPECT_TRUE(second.equal(at::tensor({0, 0, 5}, at::kLong)));
}

// Steps of every kind: one long prompt in chunks, a full batch of decoded tokens, and their
// mixture.
TEST(StepBuffers, KeepTheirAddressesOverAllStepsOfAnEngine) {
  std::map<std::string, std::set<const void*>> addresses;  // the engine's thread alone, until Drain
  std::set<std::vector<int64_t>> shapes;
  // Of the memory behind a tensor: an empty one, as the logits of a prompt's first chunk, shows
  // none.
  const auto address_of = [](const at::Tensor& x) { return x.storage().data(); };
  const auto note = [&](const model::StepBatch& batch) {
    addresses["token_ids"].insert(address_of(batch.token_ids));
    addresses["positions"].insert(address_of(batch.positions));
    addresses["sequences"].insert(address_of(batch.sequences));
    addresses["cache_slots"].insert(address_of(batch.cache_slots));
    addresses["block_tables"].insert(address_of(batch.block_tables));
    addresses["table_rows"].insert(address_of(batch.table_rows));
    addresses["logit_tokens"].insert(address_of(batch.logit_tokens));
    shapes.insert({batch.token_ids.size(0), batch.block_tables.size(0), batch.most_tokens});
  };
  const auto engine = StartFake(
      {.threads = 1, .kv_cache_bytes = 1 << 16, .max_batch_rows = 4, .max_step_tokens = 16}, note);
  ASSERT_NE(engine, nullptr);
  std::vector<std::shared_ptr<Recorder>> recorders;
  for (const int prompt : {50, 3, 1, 20, 33, 2}) {
    Request request = Generation(std::vector<int32_t>(prompt, 5 + prompt), 30);
    request.sampling->ignore_eos = true;
    recorders.push_back(std::make_shared<Recorder>());
    ASSERT_TRUE(engine->Submit(std::move(request), recorders.back()).ok());
  }
  for (const auto& recorder : recorders) EXPECT_TRUE(recorder->Await().ok());
  engine->Drain(absl::InfiniteFuture());
  EXPECT_GE(shapes.size(), 3u);
  EXPECT_EQ(addresses.size(), 7u);
  for (const auto& [name, seen] : addresses) EXPECT_EQ(seen.size(), 1u) << name;
}

}  // namespace
}  // namespace valuescope::engine
