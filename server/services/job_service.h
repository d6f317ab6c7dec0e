// JobService: the durable queue as users see it.
#ifndef VALUESCOPE_SERVICES_JOB_SERVICE_H_
#define VALUESCOPE_SERVICES_JOB_SERVICE_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "jobs/job_queue.h"
#include "rpc/call_context.h"
#include "rpc/stream.h"
#include "rpc/waiter.h"
#include "services/kind.h"
#include "services/replica_record.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "valuescope/v1/jobs.pb.h"

namespace valuescope::services {

class JobService {
 public:
  // All outlive the service. `keep_jobs`: how long finished jobs are kept, as users are told.
  JobService(const KindRegistry* kinds, jobs::JobQueue* queue, store::Store* store,
             store::BlobStore* blobs, const Replicas* replicas, absl::Duration keep_jobs)
      : kinds_(kinds),
        queue_(queue),
        store_(store),
        blobs_(blobs),
        replicas_(replicas),
        keep_jobs_(keep_jobs) {}

  absl::Status CreateJob(const rpc::CallContext& context, const v1::CreateJobRequest& request,
                         v1::CreateJobResponse* response);
  absl::Status GetJob(const rpc::CallContext& context, const v1::GetJobRequest& request,
                      v1::GetJobResponse* response);
  absl::Status ListJobs(const rpc::CallContext& context, const v1::ListJobsRequest& request,
                        v1::ListJobsResponse* response);
  absl::StatusOr<std::unique_ptr<rpc::Waiter<rpc::StreamWriter<v1::WatchJobResponse>&>>> WatchJob(
      const rpc::CallContext& context, const v1::WatchJobRequest& request, rpc::Wake wake);
  absl::Status CancelJob(const rpc::CallContext& context, const v1::CancelJobRequest& request,
                         v1::CancelJobResponse* response);
  absl::Status RetryJob(const rpc::CallContext& context, const v1::RetryJobRequest& request,
                        v1::RetryJobResponse* response);
  absl::Status DeleteJob(const rpc::CallContext& context, const v1::DeleteJobRequest& request,
                         v1::DeleteJobResponse* response);

 private:
  class Watching;

  // Without spec and result.
  v1::Job Described(const jobs::JobSnapshot& snapshot) const;
  // The same with the jobs that it is made of.
  absl::StatusOr<v1::Job> DescribedWithParts(const jobs::JobSnapshot& snapshot) const;
  // The call holds what the spec takes, before it is parsed.
  absl::StatusOr<v1::Job> DescribedWithSpec(const jobs::JobSnapshot& snapshot,
                                            const rpc::CallContext& context) const;
  // The kind whose field is set.
  absl::StatusOr<Kind*> KindOf(const v1::JobSpec& spec) const;
  absl::Status NotServedKind(absl::string_view what) const;
  absl::StatusOr<store::JobFilter> FilterOf(const v1::ListJobsRequest& request) const;
  // The job as a watcher is told it that was told of revision `told` before.
  absl::StatusOr<v1::WatchJobResponse> ToWatcher(const jobs::JobSnapshot& snapshot,
                                                 int64_t told) const;
  // Whether a job that ran before can run again; OK too where what it needs is not here just now.
  absl::Status CheckCanRun(const store::Job& job, const rpc::CallContext& context) const;
  // What a finished job left: artifacts by role, vectors, neuron sets, the head of the summary.
  absl::StatusOr<v1::JobResult> ResultOf(const store::Job& job) const;

  const KindRegistry* const kinds_;
  jobs::JobQueue* const queue_;
  store::Store* const store_;
  store::BlobStore* const blobs_;
  const Replicas* const replicas_;
  const absl::Duration keep_jobs_;
};

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_JOB_SERVICE_H_
