// A job before it is stored: its spec resolved by its kind, what it will cost, and the row of the
// queue that comes of it. Users' jobs and those that other jobs are made of begin in the same way.
#ifndef VALUESCOPE_SERVICES_JOB_DRAFTS_H_
#define VALUESCOPE_SERVICES_JOB_DRAFTS_H_

#include <string>

#include "absl/status/statusor.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "rpc/call_context.h"
#include "services/kind.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "valuescope/v1/jobs.pb.h"

namespace valuescope::services {

// The field of the spec that is set; null where none is.
const google::protobuf::FieldDescriptor* FieldOf(const v1::JobSpec& spec);
// The message in it; it is set.
const google::protobuf::Message& WorkOf(const v1::JobSpec& spec);

struct JobDraft {
  std::string kind;
  std::string display_name;
  v1::JobSpec kept;  // of the spec, what is sent back
  ResolvedWork resolved;
};

// `kind` is that of the spec. Errors of Kind::Resolve, naming fields of its message.
absl::StatusOr<JobDraft> DraftJob(Kind& kind, const v1::JobSpec& spec,
                                  const std::string& display_name, const rpc::CallContext& context);

// `speed`: of all servers that can run it, over this one's.
v1::JobEstimate EstimateOfDraft(const JobDraft& draft, double speed);

// The tenant's job, of priority 0, once its bytes are in `blobs`.
absl::StatusOr<store::NewJob> NewJobOf(const JobDraft& draft, const v1::JobEstimate& estimate,
                                       const std::string& tenant, store::BlobStore& blobs);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_JOB_DRAFTS_H_
