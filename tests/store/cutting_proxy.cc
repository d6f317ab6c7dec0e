#include "tests/store/cutting_proxy.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace valuescope::store {
namespace {

constexpr int kLook = 50;         // milliseconds between looks at whether the proxy is to end
constexpr int kAnswerTime = 300;  // milliseconds for an answer that should not come

sockaddr_un AddressIn(const std::string& folder) {
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
  const std::string path = absl::StrCat(folder, "/.s.PGSQL.5432");
  VS_CHECK(path.size() < sizeof(address.sun_path));
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

int Connected(const std::string& folder) {
  const int server = socket(AF_UNIX, SOCK_STREAM, 0);
  const sockaddr_un address = AddressIn(folder);
  VS_CHECK(connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  return server;
}

}  // namespace

CuttingProxy::CuttingProxy(const std::string& folder)
    : server_(folder), listener_(socket(AF_UNIX, SOCK_STREAM, 0)) {
  const sockaddr_un address = AddressIn(folder_ / "");
  VS_CHECK(bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  VS_CHECK(listen(listener_, /*backlog=*/16) == 0);
  accepting_ = std::thread([this] { Accept(); });
}

CuttingProxy::~CuttingProxy() {
  ended_ = true;
  accepting_.join();
  for (std::thread& thread : forwarding_) thread.join();
  close(listener_);
}

void CuttingProxy::Accept() {
  while (!ended_) {
    pollfd waited = {.fd = listener_, .events = POLLIN};
    if (poll(&waited, 1, kLook) != 1) continue;
    const int client = accept(listener_, nullptr, nullptr);
    forwarding_.emplace_back([this, client] { Forward(client, Connected(server_)); });
  }
}

void CuttingProxy::Forward(int client, int server) {
  bool open = true, asked = false;
  while (open && !ended_) {
    std::array<pollfd, 2> waited = {pollfd{.fd = client, .events = POLLIN},
                                    pollfd{.fd = server, .events = POLLIN}};
    poll(waited.data(), waited.size(), kLook);
    if (waited[0].revents != 0) open = PassOn(client, server, /*to_server=*/true, asked);
    if (open && waited[1].revents != 0) open = PassOn(server, client, /*to_server=*/false, asked);
  }
  close(client);
  close(server);
}

bool CuttingProxy::PassOn(int from, int to, bool to_server, bool& asked) {
  std::string bytes(1 << 16, '\0');
  const ssize_t count = read(from, bytes.data(), bytes.size());
  if (count <= 0) return false;
  journeys_ += to_server && !asked;
  asked = to_server;
  bytes.resize(static_cast<size_t>(count));
  const bool commits = to_server && absl::StrContains(bytes, absl::string_view("COMMIT\0", 7));
  const Cut cut = commits ? cut_.exchange(Cut::kNone) : Cut::kNone;
  if (cut != Cut::kNone) ++cuts_;
  if (cut == Cut::kBefore) return false;
  if (cut == Cut::kLate) {
    HoldBack(dup(to), std::move(bytes));
    return false;
  }
  if (write(to, bytes.data(), bytes.size()) != count) return false;
  if (to_server && absl::StrContains(bytes, " commits ")) PassOnLate(to);
  // Its answer says that it is committed, and is not passed on.
  if (cut == Cut::kBehind) return read(to, bytes.data(), bytes.size()) < 0;
  return true;
}

void CuttingProxy::HoldBack(int server, std::string bytes) {
  absl::MutexLock lock(&mutex_);
  late_ = {server, std::move(bytes)};
}

void CuttingProxy::PassOnLate(int asked) {
  absl::MutexLock lock(&mutex_);
  if (!late_) return;
  pollfd answer = {.fd = asked, .events = POLLIN};
  poll(&answer, 1, kAnswerTime);
  const auto& [server, bytes] = *late_;
  VS_CHECK(write(server, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  close(server);
  late_.reset();
}

}  // namespace valuescope::store
