#include "services/replica_record.h"

#include <algorithm>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "services/idempotency.h"
#include "services/model_needs.h"
#include "services/request_codec.h"
#include "services/study_codec.h"
#include "studies/contract_enums.h"
#include "studies/provenance.h"

namespace valuescope::services {
namespace {

// Tokens whose time tells how fast a model is.
constexpr int64_t kFewestMeasured = 256;

v1::ModelReplica DescribeModel(absl::string_view replica, const engine::ServedModel& model,
                               bool ready) {
  const v1::Provenance provenance = studies::ProvenanceOf(model, /*rendered_chat=*/false);
  v1::ModelReplica proto;
  proto.set_replica(std::string(replica));
  proto.set_model(absl::StrCat("models/", model.id));
  proto.set_state(ready ? v1::MODEL_STATE_READY : v1::MODEL_STATE_UNLOADING);
  proto.set_dtype(provenance.compute_dtype());
  proto.set_device(model.device);
  proto.set_weights_digest(model.weights_digest);
  proto.set_hardware_class(provenance.hardware_class());
  proto.set_determinism(provenance.determinism());
  proto.set_numerics_version(kNumericsVersion);
  if (const auto time = MeasuredTimeOfToken(model)) {
    proto.set_tokens_per_second(1 / absl::ToDoubleSeconds(*time));
  }
  return proto;
}

absl::StatusOr<v1::Replica> RecordOf(const store::Replica& stored) {
  v1::Replica replica;
  if (!replica.ParseFromString(stored.record)) {
    return ErrorWithReason(absl::StatusCode::kDataLoss, "METADATA_DAMAGED",
                           "the stored record of a server is damaged");
  }
  *replica.mutable_start_time() = TimeToProto(stored.started_at);
  *replica.mutable_heartbeat_time() = TimeToProto(stored.seen_at);
  return replica;
}

// Of the model that the first of `needs` names; nullopt where nothing was measured of it.
std::optional<double> SpeedAt(const v1::Replica& replica, absl::string_view needs) {
  const absl::string_view first = needs.substr(0, needs.find(kNeedsSeparator));
  for (const v1::ModelReplica& model : replica.models()) {
    if (model.model() == ModelNameOf(first) && model.has_tokens_per_second()) {
      return model.tokens_per_second();
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<absl::Duration> MeasuredTimeOfToken(const engine::ServedModel& model) {
  const engine::EngineStatistics measured = model.engine->statistics();
  if (measured.prompt_step_tokens < kFewestMeasured ||
      measured.prompt_step_time <= absl::ZeroDuration()) {
    return std::nullopt;
  }
  return measured.prompt_step_time / static_cast<double>(measured.prompt_step_tokens);
}

store::Replica DescribeReplica(absl::string_view name, absl::string_view version,
                               const std::vector<std::string>& kinds,
                               const engine::ModelRegistry& models) {
  v1::Replica proto;
  proto.set_name(std::string(name));
  proto.set_version(std::string(version));
  proto.mutable_kinds()->Assign(kinds.begin(), kinds.end());
  store::Replica replica;
  for (const auto& model : models.Served()) {
    const bool ready = models.Get(model->id).ok();
    *proto.add_models() = DescribeModel(name, *model, ready);
    if (!ready) continue;
    replica.has.push_back(NeedOfModel(*model));
    // What jobs of earlier versions need.
    replica.has.push_back(absl::StrCat("models/", model->id));
  }
  for (int format = kFirstWorkToldOf; format <= kLatestWork; ++format) {
    replica.has.push_back(NeedOfWork(format));
  }
  replica.kinds = kinds;
  replica.record = DeterministicBytes(proto);
  return replica;
}

absl::StatusOr<std::vector<v1::Replica>> Replicas::List() const {
  std::vector<v1::Replica> replicas;
  for (const store::Replica& one : known_()) {
    VS_ASSIGN_OR_RETURN(replicas.emplace_back(), RecordOf(one));
  }
  absl::c_stable_sort(replicas, [](const auto& a, const auto& b) { return a.name() < b.name(); });
  return replicas;
}

std::vector<std::string> Replicas::OthersWith(absl::string_view model_id) const {
  std::vector<std::string> names;
  for (const store::Replica& one : known_()) {
    const bool has = absl::c_linear_search(one.has, absl::StrCat("models/", model_id));
    if (one.id == own_ || !has) continue;
    const absl::StatusOr<v1::Replica> replica = RecordOf(one);
    if (replica.ok()) names.push_back(replica->name());
  }
  absl::c_sort(names);
  return names;
}

bool Replicas::AnyKnows(absl::string_view kind) const {
  return absl::c_any_of(
      known_(), [&](const store::Replica& one) { return absl::c_linear_search(one.kinds, kind); });
}

absl::StatusOr<double> Replicas::SpeedTogether(absl::string_view kind,
                                               absl::string_view needs) const {
  std::optional<double> own;
  double measured = 0, unmeasured = 0, count = 0;
  for (const store::Replica& one : known_()) {
    if (one.id != own_ && !store::CanRun(one, kind, needs)) continue;
    VS_ASSIGN_OR_RETURN(const v1::Replica replica, RecordOf(one));
    const std::optional<double> speed = SpeedAt(replica, needs);
    if (one.id == own_) own = speed;
    measured += speed.value_or(0);
    unmeasured += speed ? 0 : 1;
    count += 1;
  }
  // Without a measure of its own a server takes the others to be as fast as it is.
  if (!own) return std::max(1.0, count);
  return std::max(1.0, measured / *own + unmeasured);
}

}  // namespace valuescope::services
