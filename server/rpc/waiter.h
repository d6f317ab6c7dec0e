// A call that mostly waits, as its handler sees it: an object that looks whether there is news each
// time that somebody said so, and holds no thread in between. A thousand of them cost memory, and
// calls that work have theirs.
#ifndef VALUESCOPE_RPC_WAITER_H_
#define VALUESCOPE_RPC_WAITER_H_

#include <functional>
#include <optional>

#include "absl/status/status.h"
#include "rpc/stream.h"

namespace valuescope::rpc {

// `Output` is where its answer goes: Response* of a unary call, StreamWriter<Response>& of a
// stream.
template <typename Output>
class Waiter {
 public:
  // It may be destroyed before whoever has its `wake` stops calling it.
  virtual ~Waiter() = default;

  // Looks once at first, and then after each wake; the end of the call is not its concern. Must not
  // wait. A status ends the call. A stream's is asked only when the client has taken what was
  // written before, so news in between is seen as one, and writes one message at most; what the
  // last one said is what heartbeats repeat.
  virtual std::optional<absl::Status> Look(Output output) = 0;
};

// Calls the one who waits to look. From any thread, any number of times, also after its end; does
// not block and calls nothing back.
using Wake = std::function<void()>;

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_WAITER_H_
