#include "engine/engine_memory.h"

#include "engine/intervention_table.h"

namespace valuescope::engine {

EngineMemory::EngineMemory(const EngineOptions& options)
    : requests({.capacity = options.request_memory_bytes,
                .name = "this model's request memory",
                .too_large = "REQUEST_TOO_LARGE",
                .full = "REQUEST_MEMORY_FULL",
                .advice = "ask for less at once"},
               options.host_memory),
      captures({.capacity = options.capture_memory_bytes,
                .name = "this model's capture memory",
                .too_large = "CAPTURE_TOO_LARGE",
                .full = "CAPTURE_MEMORY_FULL",
                .advice = "choose fewer layers or tokens, or a reduction"},
               options.host_memory),
      kept_captures(
          {.capacity = options.capture_memory_bytes / 2,
           .name = "this model's memory for captures that are kept together",
           .too_large = "CAPTURES_TOO_LARGE",
           .full = "CAPTURE_MEMORY_FULL",
           .advice = "ask for less at once: fewer responses, layers, sizes or random sets"},
          &captures),
      tables({.capacity = options.intervention_memory_bytes,
              .name = "`interventions`: this model's memory for their tables",
              .too_large = "INTERVENTIONS_TOO_LARGE",
              .full = "INTERVENTION_MEMORY_FULL",
              .advice = "use fewer positions, directions or layers"},
             options.device_memory),
      neuron_runs({.name = "the memory for passes that score neurons",
                   .too_large = "NEURON_RUN_TOO_LARGE",
                   .full = "NEURON_RUN_MEMORY_FULL",
                   .advice = "give shorter responses"},
                  options.device_memory) {}

absl::Status EngineMemory::CheckInterventionRows(int64_t bytes) const {
  constexpr int64_t kRows = InterventionTables::kLeastCapacity;
  return tables.CheckEverFits(bytes > INT64_MAX / kRows ? INT64_MAX : bytes * kRows);
}

void EngineMemory::Report(EngineStatistics& statistics) const {
  statistics.capture_memory_bytes = captures.used();
  statistics.request_memory_bytes = requests.used();
}

}  // namespace valuescope::engine
