#include "base/usage_tally.h"

#include <utility>

namespace valuescope {

void UsageTally::CountCall(absl::string_view tenant) {
  absl::MutexLock lock(&mutex_);
  ++Of(tenant).calls;
}

void UsageTally::CountTokens(absl::string_view tenant, int64_t prompt, int64_t generated) {
  if (prompt == 0 && generated == 0) return;
  absl::MutexLock lock(&mutex_);
  UsageCounts& counts = Of(tenant);
  counts.prompt_tokens += prompt;
  counts.generated_tokens += generated;
}

UsageByTenant UsageTally::Take() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(counted_, {});
}

UsageCounts& UsageTally::Of(absl::string_view tenant) {
  const auto found = counted_.find(tenant);
  return found != counted_.end() ? found->second : counted_[std::string(tenant)];
}

}  // namespace valuescope
