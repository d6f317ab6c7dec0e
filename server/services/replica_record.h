// What a server tells the others that share its store of itself, and what it knows of them: which
// models each has, how they compute there and how fast.
#ifndef VALUESCOPE_SERVICES_REPLICA_RECORD_H_
#define VALUESCOPE_SERVICES_REPLICA_RECORD_H_

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/model_registry.h"
#include "engine/served_model.h"
#include "store/store.h"
#include "valuescope/v1/models.pb.h"

namespace valuescope::services {

// How long a prompt's token takes alone on this server; nullopt while the model has run next to
// nothing.
std::optional<absl::Duration> MeasuredTimeOfToken(const engine::ServedModel& model);

// This server, whose kinds of jobs are these.
store::Replica DescribeReplica(absl::string_view name, absl::string_view version,
                               const std::vector<std::string>& kinds,
                               const engine::ModelRegistry& models);

// The servers that share a store, as their last heartbeats had them.
class Replicas {
 public:
  // `known` gives them, by any thread; `own` is the id of this server among them.
  Replicas(std::function<std::vector<store::Replica>()> known, std::string own)
      : known_(std::move(known)), own_(std::move(own)) {}

  // By name. DATA_LOSS.
  absl::StatusOr<std::vector<v1::Replica>> List() const;

  // Names of the others that have the model READY, ascending.
  std::vector<std::string> OthersWith(absl::string_view model_id) const;

  // Whether one of the servers, which may be of another version, has jobs of that kind.
  bool AnyKnows(absl::string_view kind) const;

  // How many times as fast as this server alone all are together at work of a kind with such needs:
  // their measured speeds over this one's; of one that has measured nothing this one's is assumed.
  // At least 1.
  absl::StatusOr<double> SpeedTogether(absl::string_view kind, absl::string_view needs) const;

 private:
  const std::function<std::vector<store::Replica>()> known_;
  const std::string own_;
};

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_REPLICA_RECORD_H_
