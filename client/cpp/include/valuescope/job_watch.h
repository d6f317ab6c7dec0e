// A job as it changes, for as long as it takes: over lost connections, restarts of the server, and
// from one server of a store to another.
#ifndef VALUESCOPE_JOB_WATCH_H_
#define VALUESCOPE_JOB_WATCH_H_

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "valuescope/internal/attempts.h"
#include "valuescope/v1/jobs.grpc.pb.h"

namespace valuescope {

// Each Read gives what WatchJob tells next. Where the stream is lost the watch begins another one
// behind the revision that was read last, so nothing comes twice and no change of state is missed:
// `transitions` has those of the time between. Read, Finish and destruction, which cancels the
// call, belong to one thread; Cancel to any.
//
//   auto watch = client.FollowJob(request);
//   v1::WatchJobResponse change;
//   while (watch.Read(&change)) { ... }   // change.job() is finished in the last one
//   absl::Status status = watch.Finish();
class JobWatch {
 public:
  using Reader = grpc::ClientReader<v1::WatchJobResponse>;
  using Open = std::function<std::unique_ptr<Reader>(grpc::ClientContext*, int64_t last_revision)>;
  // Hears what ended a stream, before it is opened again; once until the next Read gives something.
  using OnLost = std::function<void(const absl::Status& why)>;

  // Opens it at once. Use Client::FollowJob.
  JobWatch(std::unique_ptr<internal::Attempts> attempts, int64_t last_revision, Open open,
           OnLost on_lost);
  JobWatch(JobWatch&&) = default;
  JobWatch& operator=(JobWatch&&) = delete;
  ~JobWatch();

  // The next change, or false at the end: then Finish tells why.
  bool Read(v1::WatchJobResponse* response);

  // OK where the job is finished, or what ended the watch. Reads what is left.
  absl::Status Finish();

  // Read then returns false and Finish CANCELLED.
  void Cancel() { attempts_->Cancel(); }

 private:
  void Reopen(absl::Status status);

  std::unique_ptr<internal::Attempts> attempts_;
  int64_t last_revision_;
  Open open_;
  OnLost on_lost_;
  std::unique_ptr<Reader> reader_;
  bool lost_ = false;                   // and nothing was read since
  bool finished_ = false;               // the job
  std::optional<absl::Status> status_;  // once it ended
};

}  // namespace valuescope

#endif  // VALUESCOPE_JOB_WATCH_H_
