// What a job needs of a model: not its name alone but the weights, and that they are computed with
// in the same way, so that shards of one job give the same numbers on whichever server they run. A
// need is text that nobody splits but this file; several stand in store::NewJob::needs. Beside
// models a job may need a server that knows how its work was stored: one of an earlier version does
// not, and leaves it to those that do.
#ifndef VALUESCOPE_SERVICES_MODEL_NEEDS_H_
#define VALUESCOPE_SERVICES_MODEL_NEEDS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "engine/model_registry.h"
#include "engine/served_model.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::services {

// Version of this server's arithmetic, ModelReplica.numerics_version. Raise it with every change
// after which the same request can have other bits.
inline constexpr int kNumericsVersion = 2;

// Between several needs.
inline constexpr char kNeedsSeparator = ' ';

// The model as it is here and now.
std::string NeedOfModel(const engine::ServedModel& model);
// The same, from what was kept of it: its id, the digest of its weights, and the provenance of what
// it computed.
std::string NeedOfModel(absl::string_view id, absl::string_view weights_digest,
                        const v1::Provenance& provenance);

// Formats of stored work that servers tell of each other; those before went unsaid.
inline constexpr int kFirstWorkToldOf = 8;
inline constexpr int kLatestWork = 8;

// A server that knows work of this format, kFirstWorkToldOf .. kLatestWork.
std::string NeedOfWork(int format);

// "models/ID"; empty where no model is needed.
absl::string_view ModelNameOf(absl::string_view need);

// OK where the model is as it was; else jobs::NotReady, which says what differs. A need of jobs
// that earlier versions made names a model alone, however it computes.
absl::Status CheckNeed(const engine::ServedModel& model, absl::string_view need);

// OK where every model that is needed, perhaps none, is READY and as it was, and the format known;
// else jobs::NotReady, which says of the first what is missing.
absl::Status CheckNeeds(const engine::ModelRegistry& models, absl::string_view needs);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_MODEL_NEEDS_H_
