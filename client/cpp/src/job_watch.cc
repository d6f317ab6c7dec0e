#include "valuescope/job_watch.h"

#include <utility>

namespace valuescope {
namespace {

bool IsFinished(v1::JobState state) {
  return state == v1::JOB_STATE_SUCCEEDED || state == v1::JOB_STATE_FAILED ||
         state == v1::JOB_STATE_CANCELLED;
}

}  // namespace

JobWatch::JobWatch(std::unique_ptr<internal::Attempts> attempts, int64_t last_revision, Open open,
                   OnLost on_lost)
    : attempts_(std::move(attempts)),
      last_revision_(last_revision),
      open_(std::move(open)),
      on_lost_(std::move(on_lost)),
      reader_(open_(attempts_->Begin(), last_revision_)) {}

JobWatch::~JobWatch() {
  if (attempts_ == nullptr || status_) return;
  attempts_->Cancel();
  static_cast<void>(Finish());
}

bool JobWatch::Read(v1::WatchJobResponse* response) {
  while (!status_) {
    if (reader_->Read(response)) {
      attempts_->Progressed();
      if (response->has_heartbeat()) continue;
      lost_ = false;
      last_revision_ = response->job().revision();
      finished_ = IsFinished(response->job().state());
      return true;
    }
    const absl::Status status = attempts_->End(reader_->Finish());
    reader_.reset();
    if (status.ok() || finished_) {
      status_ = absl::OkStatus();
    } else {
      Reopen(status);
    }
  }
  return false;
}

void JobWatch::Reopen(absl::Status status) {
  if (!std::exchange(lost_, true) && on_lost_ && absl::IsUnavailable(status)) on_lost_(status);
  if (attempts_->Again(&status)) {
    reader_ = open_(attempts_->Begin(), last_revision_);
  } else {
    status_ = std::move(status);
  }
}

absl::Status JobWatch::Finish() {
  v1::WatchJobResponse rest;
  while (Read(&rest)) {
  }
  return *status_;
}

}  // namespace valuescope
