#include "engine/engine.h"

#include <atomic>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "engine/compiled_interventions.h"

namespace valuescope::engine {

uint64_t NewClient() {
  static std::atomic<uint64_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

void EngineTotals::Add(const EngineTotals& other) {
  prompt_tokens += other.prompt_tokens;
  generated_tokens += other.generated_tokens;
  prompt_step_tokens += other.prompt_step_tokens;
  prompt_step_time += other.prompt_step_time;
  steps += other.steps;
  repeated_steps += other.repeated_steps;
  for (size_t i = 0; i < interventions_applied.size(); ++i) {
    interventions_applied[i] += other.interventions_applied[i];
  }
  captured_bytes += other.captured_bytes;
  prefix_hit_tokens += other.prefix_hit_tokens;
  steered_prefix_hit_tokens += other.steered_prefix_hit_tokens;
  preemptions += other.preemptions;
  admissions += other.admissions;
}

absl::StatusOr<std::shared_ptr<const PreparedInterventions>> Engine::Prepare(
    std::vector<Intervention> interventions, std::shared_ptr<MemoryLedger::Lease> memory) const {
  return PreparedInterventions::Prepare(std::move(interventions), architecture(),
                                        std::move(memory));
}

absl::StatusOr<std::shared_ptr<MemoryLedger::Lease>> Engine::TakeRequestMemory(int64_t bytes) {
  return MemoryLedger(bytes).Take(bytes);
}

absl::Status Engine::CheckNeurons(const NeuronRequest&) const {
  return ErrorWithReason(absl::StatusCode::kUnimplemented, "OPTION_NOT_SERVED",
                         "this engine has no passes for single neurons");
}

absl::StatusOr<std::vector<NeuronScores>> Engine::NeuronScoresOf(std::span<const NeuronRequest>,
                                                                 const Cancellation&) {
  return CheckNeurons({});
}

absl::StatusOr<std::shared_ptr<const void>> Engine::KeepNeuronWeights(const NeuronRequest& request,
                                                                      const Cancellation&) {
  VS_RETURN_IF_ERROR(CheckNeurons(request));
  return nullptr;
}

void Engine::Drain(absl::Time deadline) {
  Drain(deadline,
        ErrorWithReason(absl::StatusCode::kUnavailable, "DRAINING", "the server is shutting down"));
}

}  // namespace valuescope::engine
