// Messages of a server stream, one at a time, without its heartbeats.
#ifndef VALUESCOPE_STREAM_H_
#define VALUESCOPE_STREAM_H_

#include <grpcpp/support/sync_stream.h>

#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "valuescope/internal/attempts.h"

namespace valuescope {
namespace internal {

// Whether a message says nothing but that its stream lives.
template <typename Response>
bool IsHeartbeat(const Response& response) {
  if constexpr (requires { response.has_heartbeat(); }) {
    return response.has_heartbeat();
  } else {
    return false;
  }
}

}  // namespace internal

// Destroying it cancels the call on the server. Read, Finish and destruction belong to one thread;
// Cancel to any.
//
//   auto stream = client.StreamGenerate(request);
//   v1::StreamGenerateResponse event;
//   while (stream.Read(&event)) { ... }
//   absl::Status status = stream.Finish();
template <typename Response>
class Stream {
 public:
  using Open = std::function<std::unique_ptr<grpc::ClientReader<Response>>(grpc::ClientContext*)>;

  // Opens it at once; `open` is called again where nothing was delivered and the call may be
  // repeated.
  Stream(std::unique_ptr<internal::Attempts> attempts, Open open)
      : attempts_(std::move(attempts)),
        open_(std::move(open)),
        reader_(open_(attempts_->Begin())) {}
  Stream(Stream&&) = default;
  Stream& operator=(Stream&&) = delete;
  ~Stream() {
    if (attempts_ == nullptr || status_) return;
    attempts_->Cancel();
    static_cast<void>(Finish());
  }

  // The next message, or false at the end: then Finish tells why.
  bool Read(Response* response) {
    while (!status_) {
      if (reader_->Read(response)) {
        if (internal::IsHeartbeat(*response)) continue;
        return delivered_ = true;
      }
      absl::Status status = attempts_->End(reader_->Finish());
      reader_.reset();
      if (!delivered_ && attempts_->Again(&status)) {
        reader_ = open_(attempts_->Begin());
      } else {
        status_ = std::move(status);
      }
    }
    return false;
  }

  // OK, or what ended the stream. Reads what is left.
  absl::Status Finish() {
    Response rest;
    while (Read(&rest)) {
    }
    return *status_;
  }

  // Read then returns false and Finish CANCELLED.
  void Cancel() { attempts_->Cancel(); }

 private:
  std::unique_ptr<internal::Attempts> attempts_;
  Open open_;
  std::unique_ptr<grpc::ClientReader<Response>> reader_;
  bool delivered_ = false;
  std::optional<absl::Status> status_;  // once it ended
};

}  // namespace valuescope

#endif  // VALUESCOPE_STREAM_H_
