#include "engine/engine_memory.h"

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "engine/intervention_table.h"

namespace valuescope::engine {
namespace {

constexpr absl::Duration kMemoryRetry = absl::Seconds(1);

}  // namespace

EngineMemory::EngineMemory(const EngineOptions& options)
    : tables_bytes_(options.intervention_memory_bytes),
      requests_(options.request_memory_bytes),
      captures_(options.capture_memory_bytes),
      kept_captures_(options.capture_memory_bytes / 2) {}

absl::StatusOr<std::shared_ptr<MemoryLedger::Lease>> EngineMemory::TakeForRequest(int64_t bytes) {
  if (bytes > requests_.capacity()) {
    return NeverFits("REQUEST_TOO_LARGE",
                     absl::StrCat("the request takes ", bytes, " bytes of memory, which has ",
                                  requests_.capacity(), " for all of this model"));
  }
  std::shared_ptr<MemoryLedger::Lease> lease = requests_.Take(bytes);
  if (lease != nullptr) return lease;
  return RetryLater(
      "REQUEST_MEMORY_FULL",
      absl::StrCat("the requests that run or wait hold ", requests_.used(), " of this model's ",
                   requests_.capacity(), " bytes, and this one needs ", bytes),
      kMemoryRetry);
}

absl::StatusOr<std::shared_ptr<MemoryLedger::Lease>> EngineMemory::TakeForCaptures(int64_t bytes) {
  std::shared_ptr<MemoryLedger::Lease> lease = captures_.Take(bytes);
  if (lease != nullptr) return lease;
  return CaptureMemoryFull();
}

absl::StatusOr<KeptCaptures> EngineMemory::KeepCaptures(int64_t bytes) {
  if (bytes > kept_captures_.capacity()) {
    return NeverFits(
        "CAPTURES_TOO_LARGE",
        absl::StrCat("captures that are kept together take ", bytes, " bytes, allowed are ",
                     kept_captures_.capacity(), "; give fewer responses or fewer layers at once"));
  }
  using Leases = std::array<std::shared_ptr<const MemoryLedger::Lease>, 2>;
  auto leases = std::make_shared<Leases>(Leases{kept_captures_.Take(bytes), captures_.Take(bytes)});
  if ((*leases)[0] != nullptr && (*leases)[1] != nullptr) return leases;
  return CaptureMemoryFull();
}

absl::Status EngineMemory::CaptureMemoryFull() const {
  return RetryLater("CAPTURE_MEMORY_FULL",
                    absl::StrCat("the captures of other requests hold ", captures_.used(),
                                 " of this model's ", captures_.capacity(), " bytes"),
                    kMemoryRetry);
}

absl::Status EngineMemory::CheckInterventionRows(int64_t bytes) const {
  constexpr int64_t kRows = InterventionTables::kLeastCapacity;
  return CheckInterventionTables(bytes > INT64_MAX / kRows ? INT64_MAX : bytes * kRows);
}

absl::Status EngineMemory::CheckInterventionTables(int64_t bytes) const {
  if (bytes <= tables_bytes_) return absl::OkStatus();
  return NeverFits("INTERVENTIONS_TOO_LARGE",
                   absl::StrCat("`interventions`: take ", bytes, " bytes of tables, allowed are ",
                                tables_bytes_, "; use fewer positions, directions or layers"));
}

void EngineMemory::Report(EngineStatistics& statistics) const {
  statistics.capture_memory_bytes = captures_.used();
  statistics.request_memory_bytes = requests_.used();
}

}  // namespace valuescope::engine
