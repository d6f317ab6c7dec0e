// Stands between a client and PostgreSQL's socket, counts how often the client waits for an answer,
// and cuts the connection when a COMMIT passes.
#ifndef VALUESCOPE_TESTS_STORE_CUTTING_PROXY_H_
#define VALUESCOPE_TESTS_STORE_CUTTING_PROXY_H_

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "tests/store/temporary_folder.h"

namespace valuescope::store {

class CuttingProxy {
 public:
  // What becomes of the COMMIT: it never arrives, or it arrives and its answer does not.
  enum class Cut { kNone, kBefore, kBehind };

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

  const TemporaryFolder folder_;
  const std::string server_;
  std::atomic<Cut> cut_ = Cut::kNone;
  std::atomic<int> cuts_ = 0, journeys_ = 0;
  std::atomic<bool> ended_ = false;
  int listener_ = -1;
  std::thread accepting_;
  std::vector<std::thread> forwarding_;  // of the accepting thread, until that has ended
};

}  // namespace valuescope::store

#endif  // VALUESCOPE_TESTS_STORE_CUTTING_PROXY_H_
