// What an engine is started with: where it runs, and the bounds of what it may take and do at once.
#ifndef VALUESCOPE_ENGINE_ENGINE_OPTIONS_H_
#define VALUESCOPE_ENGINE_ENGINE_OPTIONS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/dtype.h"
#include "base/memory_ledger.h"
#include "base/usage_tally.h"
#include "engine/work_recorder.h"

namespace valuescope::engine {

class TokenQuotas;

struct EngineOptions {
  std::string device = "cpu";  // or "cuda:N", once its library is open
  std::string device_name;     // ServedModel has it
  std::function<absl::StatusOr<int64_t>()> free_memory =
      nullptr;  // bytes on it; null: main memory's
  // Of what records steps on the device, one an engine; null: nothing is recorded.
  std::function<std::unique_ptr<WorkRecorder>()> make_recorder = nullptr;
  // Called after a load or unload has ended, however it did; must not block. Null: nobody asks.
  std::function<void()> on_change = nullptr;
  // Other servers that have a model READY, by name, for errors of requests for one that is not
  // here; may read what they told last. Null: there are none.
  std::function<std::vector<std::string>(absl::string_view id)> ready_elsewhere = nullptr;
  DType dtype = DType::kFloat32;
  bool batch_invariant = false;        // LoadOptions has it
  int threads = 0;                     // 0: one a core
  int64_t kv_cache_bytes = 1LL << 30;  // untouched pages cost nothing on a CPU
  int max_batch_rows = 64;             // requests decoded in one step
  int max_step_tokens = 256;           // prompt and decode tokens of one step
  int max_waiting = 1024;              // requests admitted and not started
  // Of a tenant's part of what runs, > 0, while it may change; empty: all weigh the same.
  std::function<double(const std::string& tenant)> weight_of = nullptr;
  // The most of the queue, and of the key/value cache, that a tenant's requests have, > 0 to 1;
  // empty: all, as far as the queue leaves others their part (queue_shares.h).
  std::function<double(const std::string& tenant)> queue_share_of = nullptr;
  std::function<double(const std::string& tenant)> cache_share_of = nullptr;
  // Of tenants' tokens; outlives the engine. Null: nothing bounds them.
  TokenQuotas* token_quotas = nullptr;
  int64_t capture_memory_bytes = 1LL << 30;       // of captures on the host, over all requests
  int64_t intervention_memory_bytes = 1LL << 30;  // of intervention tables, over all requests
  int64_t request_memory_bytes = 1LL << 30;       // of what requests are made of on the host
  // What the model, its requests and its steps take counts in these, which outlive it; one and the
  // same where the device is a CPU. Null: nothing bounds the whole.
  const MemoryLedger* host_memory = nullptr;
  const MemoryLedger* device_memory = nullptr;
  // Counts what each tenant's requests took in and generated, when they end, however they do;
  // outlives the engine. Null: nobody does.
  UsageTally* usage = nullptr;
  // How long what gradients need beside the model is kept behind its last use, unless somebody
  // needs the room.
  absl::Duration neuron_weights_kept = absl::Minutes(1);
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_ENGINE_OPTIONS_H_
