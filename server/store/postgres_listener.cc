#include "store/postgres_listener.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <exception>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "observability/log.h"

namespace valuescope::store {
namespace {

// Between looks where there is no LISTEN, and between attempts to connect.
constexpr absl::Duration kPoll = absl::Seconds(1);
constexpr char kWorkersToo[] = "work";

const JobChange kAnything = {.job_id = "", .for_workers = true};

}  // namespace

std::string TextOfChange(absl::string_view process, const JobChange& change) {
  return absl::StrCat(process, " ", change.job_id, " ", change.for_workers ? kWorkersToo : "");
}

std::optional<JobChange> ChangeOfOthers(absl::string_view process, absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ' ');
  if (parts.size() != 3 || parts[0] == process) return std::nullopt;
  return JobChange{.job_id = std::string(parts[1]), .for_workers = parts[2] == kWorkersToo};
}

PostgresListener::PostgresListener(std::string url, std::string process,
                                   std::function<void(const JobChange&)> on_change)
    : url_(std::move(url)),
      process_(std::move(process)),
      on_change_(std::move(on_change)),
      wake_(eventfd(0, EFD_CLOEXEC)),
      thread_([this] { Run(); }) {}

PostgresListener::~PostgresListener() {
  ended_.Notify();
  eventfd_write(wake_, 1);
  thread_.join();
  if (wake_ >= 0) close(wake_);
}

void PostgresListener::Run() {
  std::string told;
  do {
    try {
      Listen();
    } catch (const std::exception& error) {
      // Once, and not every second, for as long as it is the same.
      if (std::exchange(told, error.what()) == error.what()) continue;
      observability::Log(observability::LogLevel::kWarning, "not listening to the store",
                         {{"error", error.what()}});
    }
  } while (!ended_.WaitForNotificationWithTimeout(kPoll));
}

void PostgresListener::Listen() {
  PostgresConnection connection(url_);
  if (!connection.IsDirect()) return Poll();
  connection.Script(absl::StrCat("LISTEN ", kJobsChannel));
  on_change_(kAnything);
  while (!ended_.HasBeenNotified()) {
    TellUntilQuiet(connection);
    std::array<pollfd, 2> waited = {pollfd{.fd = connection.descriptor(), .events = POLLIN},
                                    pollfd{.fd = wake_, .events = POLLIN}};
    poll(waited.data(), waited.size(), static_cast<int>(absl::ToInt64Milliseconds(kPoll)));
  }
}

void PostgresListener::Poll() {
  while (!ended_.WaitForNotificationWithTimeout(kPoll)) on_change_(kAnything);
}

void PostgresListener::TellUntilQuiet(PostgresConnection& connection) {
  while (const std::optional<std::string> text = connection.TakeNotification()) {
    if (const auto change = ChangeOfOthers(process_, *text)) on_change_(*change);
  }
}

}  // namespace valuescope::store
