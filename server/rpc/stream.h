// Streams as handlers see them: blocking calls on the handler's own thread. Behind them stands
// gRPC's callback API with one read or write in flight.
#ifndef VALUESCOPE_RPC_STREAM_H_
#define VALUESCOPE_RPC_STREAM_H_

#include <cstddef>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/error.h"

namespace valuescope::rpc {

// What may wait for a slow client: an outbox holds at least one message, and no more than this many
// or this many bytes beyond it.
inline constexpr size_t kMaxOutboxMessages = 16;
inline constexpr size_t kMaxOutboxBytes = size_t{4} << 20;
// Of them, so many may wait however much all calls hold.
inline constexpr size_t kAlwaysInOutbox = size_t{64} << 10;

// What a stream ends with that moved nothing for the stall timeout.
inline absl::Status StalledStream() {
  return ErrorWithReason(absl::StatusCode::kDeadlineExceeded, "STREAM_STALLED",
                         "nothing moved on the stream for too long");
}

template <typename Response>
class StreamWriter {
 public:
  virtual ~StreamWriter() = default;

  // Puts a message into the outbox; blocks while it is full. Errors mean that nobody will read
  // further messages: return them. CANCELLED (client left), DEADLINE_EXCEEDED (also a client that
  // reads nothing for the stall timeout), UNAVAILABLE (drain).
  virtual absl::Status Write(Response message) = 0;
};

template <typename Request>
class StreamReader {
 public:
  virtual ~StreamReader() = default;

  // The next message; nullopt once the client ended its stream, or vanished: a transport may say
  // that before it says that the call is cancelled, so a stream that has to be whole announces its
  // size. Errors as StreamWriter's.
  virtual absl::StatusOr<std::optional<Request>> Read() = 0;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_STREAM_H_
