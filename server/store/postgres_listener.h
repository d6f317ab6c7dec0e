// Hears what other processes change in a store that several share.
//
// LISTEN belongs to a session, so the listener has a connection of its own; whenever it is made
// anew, what happened meanwhile is told as "any job may have changed". Behind a pooler that gives a
// session to one client after the other there is no LISTEN: there the same is told every second.
#ifndef VALUESCOPE_STORE_POSTGRES_LISTENER_H_
#define VALUESCOPE_STORE_POSTGRES_LISTENER_H_

#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "absl/strings/string_view.h"
#include "absl/synchronization/notification.h"
#include "store/postgres_connection.h"
#include "store/store.h"

namespace valuescope::store {

// Where changes are announced: NOTIFY valuescope_jobs.
inline constexpr char kJobsChannel[] = "valuescope_jobs";

// A change as the text of a notification by `process`, and back; nullopt for text of `process`
// itself, and for what is no such text.
std::string TextOfChange(absl::string_view process, const JobChange& change);
std::optional<JobChange> ChangeOfOthers(absl::string_view process, absl::string_view text);

class PostgresListener {
 public:
  // Calls `on_change` from a thread of its own until it is destroyed, but not of what `process` has
  // announced itself.
  PostgresListener(std::string url, std::string process,
                   std::function<void(const JobChange&)> on_change);
  ~PostgresListener();
  PostgresListener(const PostgresListener&) = delete;
  PostgresListener& operator=(const PostgresListener&) = delete;

 private:
  void Run();
  // Until the connection is lost or the listener ends. Throws PostgresError.
  void Listen();
  void TellUntilQuiet(PostgresConnection& connection);
  void Poll();

  const std::string url_;
  const std::string process_;
  const std::function<void(const JobChange&)> on_change_;
  const int wake_;  // an eventfd, readable once the listener is to end; -1 costs it a second
  absl::Notification ended_;
  std::thread thread_;
};

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_POSTGRES_LISTENER_H_
