// Stands between a client and PostgreSQL's socket, counts how often the client waits for an answer,
// and cuts the connection when a COMMIT passes.
#ifndef VALUESCOPE_TESTS_STORE_CUTTING_PROXY_H_
#define VALUESCOPE_TESTS_STORE_CUTTING_PROXY_H_

#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::store {

class CuttingProxy {
 public:
  // What becomes of the COMMIT: it never arrives; it arrives and its answer does not; or it arrives
  // when somebody on another connection has asked what became of it, and gets no answer for now.
  enum class Cut { kNone, kBefore, kBehind, kLate };

  // `folder`: that of the server's socket.
  explicit CuttingProxy(const std::string& folder);
  ~CuttingProxy();
  CuttingProxy(const CuttingProxy&) = delete;
  CuttingProxy& operator=(const CuttingProxy&) = delete;

  std::string folder() const { return folder_ / ""; }

  // What is done to the next COMMIT, and to no other.
  void CutNext(Cut cut) { cut_ = cut; }
  int cuts() const { return cuts_; }

  // Of clients that sent something, were answered, and then sent something more or were quiet.
  int journeys() const { return journeys_; }

 private:
  void Accept();
  void Forward(int client, int server);
  // False where the connection ends.
  bool PassOn(int from, int to, bool to_server, bool& asked);
  // Holds a COMMIT to `server` back, and passes it on after a question to `asked`.
  void HoldBack(int server, std::string bytes);
  void PassOnLate(int asked);

  const TemporaryFolder folder_;
  const std::string server_;
  std::atomic<Cut> cut_ = Cut::kNone;
  std::atomic<int> cuts_ = 0, journeys_ = 0;
  std::atomic<bool> ended_ = false;
  absl::Mutex mutex_;
  std::optional<std::pair<int, std::string>> late_ ABSL_GUARDED_BY(mutex_);  // a server, and what
  int listener_ = -1;
  std::thread accepting_;
  std::vector<std::thread> forwarding_;  // of the accepting thread, until that has ended
};

}  // namespace valuescope::store

#endif  // VALUESCOPE_TESTS_STORE_CUTTING_PROXY_H_
