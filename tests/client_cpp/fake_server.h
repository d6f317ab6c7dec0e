// A server inside the test whose services are the test's own, and a clock that only notes how long
// the client would have waited.
#ifndef VALUESCOPE_TESTS_CLIENT_CPP_FAKE_SERVER_H_
#define VALUESCOPE_TESTS_CLIENT_CPP_FAKE_SERVER_H_

#include <grpcpp/grpcpp.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "valuescope/client.h"

namespace valuescope {

class FakeServer {
 public:
  explicit FakeServer(std::initializer_list<grpc::Service*> services) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    for (grpc::Service* service : services) builder.RegisterService(service);
    server_ = builder.BuildAndStart();
    address_ = "127.0.0.1:" + std::to_string(port);
  }
  const std::string& address() const { return address_; }

 private:
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

// Waits take no time, but its time moves on by them.
class NotingClock : public RetryClock {
 public:
  absl::Time Now() override {
    absl::MutexLock lock(&mutex_);
    return now_;
  }
  void Wait(absl::Duration duration, const absl::Notification&) override {
    absl::MutexLock lock(&mutex_);
    waits_.push_back(duration);
    now_ += duration;
  }
  double Random() override { return random; }

  std::vector<absl::Duration> waits() {
    absl::MutexLock lock(&mutex_);
    return waits_;
  }
  double random = 0.0;

 private:
  absl::Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_) = absl::Now();
  std::vector<absl::Duration> waits_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace valuescope

#endif  // VALUESCOPE_TESTS_CLIENT_CPP_FAKE_SERVER_H_
