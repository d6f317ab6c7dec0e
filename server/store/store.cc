#include "store/store.h"

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace valuescope::store {

absl::string_view CollectionOf(ResourceKind kind) {
  switch (kind) {
    case ResourceKind::kVector:
      return "vectors";
    case ResourceKind::kNeuronSet:
      return "neuronSets";
    case ResourceKind::kArtifact:
      return "artifacts";
  }
  return "";
}

std::string ResourceName(ResourceKind kind, absl::string_view id) {
  return absl::StrCat(CollectionOf(kind), "/", id);
}

absl::string_view NameOf(JobState state) {
  switch (state) {
    case JobState::kQueued:
      return "queued";
    case JobState::kRunning:
      return "running";
    case JobState::kCancelling:
      return "cancelling";
    case JobState::kSucceeded:
      return "succeeded";
    case JobState::kFailed:
      return "failed";
    case JobState::kCancelled:
      return "cancelled";
  }
  return "";
}

bool IsFinished(JobState state) {
  return state == JobState::kSucceeded || state == JobState::kFailed ||
         state == JobState::kCancelled;
}

bool CanRun(const Replica& replica, absl::string_view kind, absl::string_view needs) {
  if (!absl::c_linear_search(replica.kinds, kind)) return false;
  return absl::c_all_of(absl::StrSplit(needs, ' ', absl::SkipEmpty()),
                        [&](auto need) { return absl::c_linear_search(replica.has, need); });
}

}  // namespace valuescope::store
