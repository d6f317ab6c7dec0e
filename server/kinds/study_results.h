// What the finished parts of a study left, by their names.
#ifndef VALUESCOPE_KINDS_STUDY_RESULTS_H_
#define VALUESCOPE_KINDS_STUDY_RESULTS_H_

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"
#include "kinds/sources.h"
#include "store/store.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::kinds {

class PartResults {
 public:
  // `parts` by phase, those that have begun.
  PartResults(const Sources& sources, std::string tenant, std::map<std::string, store::Job> parts)
      : sources_(sources), tenant_(std::move(tenant)), parts_(std::move(parts)) {}

  const std::map<std::string, store::Job>& parts() const { return parts_; }
  const std::string& tenant() const { return tenant_; }
  // The id of the study's job, once a part has begun.
  const std::string& study() const;

  // "artifacts/ID" of what a part that has begun leaves.
  std::string ArtifactName(const std::string& phase, absl::string_view role) const;
  // NOT_FOUND where it was deleted.
  absl::StatusOr<store::Resource> Artifact(const std::string& phase, absl::string_view role) const;
  // Who labelled, as the provenance of a data set tells it.
  absl::StatusOr<std::string> JudgeOf(const std::string& phase) const;

  // The artifact "summary", as far as the message has its fields. DATA_LOSS.
  absl::Status ReadSummary(const std::string& phase, google::protobuf::Message& message) const;
  // The only vector or neuron set that a part made, "vectors" or "neuron_sets" of its summary.
  absl::StatusOr<std::string> Made(const std::string& phase, const char* collection) const;
  // Each line of an artifact of JSON Lines, in order.
  template <typename Message>
  absl::Status ForEachLine(const std::string& phase, absl::string_view role,
                           const std::function<absl::Status(const Message&)>& take) const {
    Message line;
    return ReadLines(phase, role, line, [&] { return take(line); });
  }

 private:
  absl::Status ReadLines(const std::string& phase, absl::string_view role,
                         google::protobuf::Message& line,
                         const std::function<absl::Status()>& take) const;

  const Sources sources_;
  const std::string tenant_;
  const std::map<std::string, store::Job> parts_;
};

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_STUDY_RESULTS_H_
