#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/check.h"
#include "base/failpoint.h"

namespace valuescope {
namespace {

struct Order {
  std::string name;
  int64_t count = 0;
  int trace = -1;  // descriptor
};

Order ReadOrder() {
  Order order;
  if (const char* given = getenv("VALUESCOPE_FAILPOINT")) {
    const absl::string_view text = given;
    const size_t colon = text.find(':');
    VS_CHECK(colon != text.npos && absl::SimpleAtoi(text.substr(colon + 1), &order.count));
    order.name = std::string(text.substr(0, colon));
  }
  if (const char* file = getenv("VALUESCOPE_FAILPOINT_TRACE")) {
    order.trace = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    VS_CHECK(order.trace >= 0);
  }
  return order;
}

}  // namespace

void ReachFailpoint(const char* name) {
  static const Order order = ReadOrder();
  static std::atomic<int64_t> reached = 0;
  if (order.trace >= 0) {
    const std::string line = absl::StrCat(name, "\n");
    VS_CHECK(write(order.trace, line.data(), line.size()) == static_cast<ssize_t>(line.size()));
  }
  if (order.name == name && ++reached == order.count) kill(getpid(), SIGKILL);
}

}  // namespace valuescope
