#include "rpc/health.h"

#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "grpc/health/v1/health.pb.h"

namespace valuescope::rpc {

// Tells a client the state of a part, and each other one behind it.
class Health::Watching : public Waiter<StreamWriter<Response>&> {
 public:
  Watching(Health* health, std::string part, Wake wake) : health_(health), part_(std::move(part)) {
    absl::MutexLock lock(&health_->mutex_);
    id_ = ++health_->last_watcher_;
    health_->watchers_.emplace(id_, std::move(wake));
  }
  ~Watching() override {
    absl::MutexLock lock(&health_->mutex_);
    health_->watchers_.erase(id_);
  }

  std::optional<absl::Status> Look(StreamWriter<Response>& writer) override {
    const int status = health_->StatusOf(part_);
    if (status == told_) return std::nullopt;
    Response response;
    response.set_status(static_cast<Response::ServingStatus>(status));
    VS_RETURN_IF_ERROR(writer.Write(std::move(response)));
    told_ = status;
    return std::nullopt;
  }

 private:
  Health* const health_;
  const std::string part_;
  int64_t id_ = 0;
  int told_ = Response::UNKNOWN;
};

Health::~Health() {
  if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
}

absl::StatusOr<int> Health::Listen(const std::string& address) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
  builder.RegisterCallbackGenericService(&others_);
  server_ = builder.BuildAndStart();
  grpc::EnableDefaultHealthCheckService(false);
  if (server_ == nullptr || port == 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", address, "; is the address in use?"));
  }
  server_->GetHealthCheckService()->SetServingStatus("", false);  // gRPC begins with the opposite
  return port;
}

std::unique_ptr<RpcService> Health::Bind(CallRuntime* runtime) {
  auto binding = std::make_unique<RpcService>(kHealthService, runtime);
  binding->Unary("Check", Lane::kQuick, this, &Health::Check);
  binding->WaitingStream("Watch", this, &Health::Watch);
  return binding;
}

void Health::Set(const std::string& part, bool serving) {
  if (server_ != nullptr) server_->GetHealthCheckService()->SetServingStatus(part, serving);
  absl::MutexLock lock(&mutex_);
  serving_[part] = serving;
  for (const auto& [id, wake] : watchers_) wake();
}

int Health::StatusOf(const std::string& part) const {
  absl::MutexLock lock(&mutex_);
  const auto found = serving_.find(part);
  if (found == serving_.end()) return Response::SERVICE_UNKNOWN;
  return found->second ? Response::SERVING : Response::NOT_SERVING;
}

absl::Status Health::Check(const CallContext&, const Request& request, Response* response) {
  const int status = StatusOf(request.service());
  if (status == Response::SERVICE_UNKNOWN) {
    return ErrorWithReason(absl::StatusCode::kNotFound, "PART_UNKNOWN",
                           "`service` must be readiness, liveness or empty");
  }
  response->set_status(static_cast<Response::ServingStatus>(status));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Waiter<StreamWriter<Health::Response>&>>> Health::Watch(
    const CallContext&, const Request& request, Wake wake) {
  return std::make_unique<Watching>(this, request.service(), std::move(wake));
}

}  // namespace valuescope::rpc
