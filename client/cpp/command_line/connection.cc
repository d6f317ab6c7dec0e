// How the command line reaches a server, and lets go of it on Ctrl-C.
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <memory>
#include <thread>
#include <utility>

#include "commands.h"
#include "output.h"

namespace valuescope::command_line {
namespace {

// Cancels the process's calls when it is interrupted. A signal handler may not call gRPC, so a
// thread waits for the signal, which every thread has blocked.
class Interrupt {
 public:
  static Interrupt& Get() {
    static auto* interrupt = new Interrupt();
    return *interrupt;
  }

  void Install() {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    std::thread([this, signals] {
      int signal = 0;
      while (sigwait(&signals, &signal) == 0) OnSignal();
    }).detach();
  }

  // What calls from here on are cancelled by.
  std::shared_ptr<Cancellation> Arm() {
    absl::MutexLock lock(&mutex_);
    if (!cancellation_) cancellation_ = std::make_shared<Cancellation>();
    return cancellation_;
  }

 private:
  void OnSignal() {
    absl::MutexLock lock(&mutex_);
    // Nothing to cancel yet (standard input is being read, say), or a second Ctrl-C.
    if (!cancellation_ || cancelled_) _exit(kInterrupted);
    cancelled_ = true;
    cancellation_->Cancel();
  }

  absl::Mutex mutex_;
  std::shared_ptr<Cancellation> cancellation_ ABSL_GUARDED_BY(mutex_);
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

Client Globals::Connect() const {
  ClientOptions options;
  options.token = token;
  options.token_file = token_file;
  if (!tls.ca.empty() || !tls.certificate.empty()) {
    auto credentials = TlsCredentials(tls);
    // Every command would say the same of it.
    if (!credentials.ok()) std::exit(FailUsage(credentials.status()));
    options.credentials = *std::move(credentials);
  }
  if (timeout_seconds > 0) options.timeout = absl::Seconds(timeout_seconds);
  options.cancellation = Interrupt::Get().Arm();
  return Client(server, std::move(options));
}

void HandleSignals() {
  // As every tool in a pipe: `| head` ends it quietly, whatever the parent process ignores.
  std::signal(SIGPIPE, SIG_DFL);
  Interrupt::Get().Install();
}

}  // namespace valuescope::command_line
