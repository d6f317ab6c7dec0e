// What tenants use of a server, counted where it happens, until somebody writes it down.
#ifndef VALUESCOPE_BASE_USAGE_TALLY_H_
#define VALUESCOPE_BASE_USAGE_TALLY_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

namespace valuescope {

struct UsageCounts {
  int64_t calls = 0;             // that ended
  int64_t prompt_tokens = 0;     // of prompts and given responses that an engine took in
  int64_t generated_tokens = 0;  // that it generated

  bool operator==(const UsageCounts&) const = default;
};

using UsageByTenant = std::map<std::string, UsageCounts, std::less<>>;

// Thread-safe. Who counts takes a lock for a moment, so engines count at the end of a request.
class UsageTally {
 public:
  void CountCall(absl::string_view tenant);
  void CountTokens(absl::string_view tenant, int64_t prompt, int64_t generated);
  // What was counted since it was last taken, without those who used nothing.
  UsageByTenant Take();

 private:
  UsageCounts& Of(absl::string_view tenant) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  UsageByTenant counted_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_USAGE_TALLY_H_
