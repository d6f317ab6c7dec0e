#include "rpc/decoding_failures.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <string>

#include "base/error.h"
#include "observability/log.h"
#include "rpc/status_to_grpc.h"

namespace valuescope::rpc {
namespace {

using grpc::experimental::InterceptionHookPoints;

// Whether `path`, such as "/valuescope.v1.GenerationService/Generate", is a method of the contract.
// Those that are not served say so themselves, in a message.
bool IsInContract(std::string path) {
  std::replace(path.begin(), path.end(), '/', '.');
  return !path.empty() && google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(
                              path.substr(1)) != nullptr;
}

class DecodingFailure : public grpc::experimental::Interceptor {
 public:
  explicit DecodingFailure(std::string method) : method_(std::move(method)) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* batch) override {
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      const grpc::Status status = batch->GetSendStatus();
      if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED &&
          status.error_message().empty() && IsInContract(method_)) {
        const absl::Status why = ErrorWithReason(
            absl::StatusCode::kInvalidArgument, "MESSAGE_NOT_DECODABLE",
            "the message is not one of this method's requests, or one of its strings is not UTF-8");
        batch->ModifySendStatus(ToGrpcStatus(why));
        observability::Log(
            observability::LogLevel::kInfo, "rpc",
            {{"method", method_}, {"code", "INVALID_ARGUMENT"}, {"reason", DetailsOf(why).reason}});
      }
    }
    batch->Proceed();
  }

 private:
  const std::string method_;
};

class Factory : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override {
    return new DecodingFailure(info->method());
  }
};

}  // namespace

std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>>
DecodingFailureInterceptors() {
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> factories;
  factories.push_back(std::make_unique<Factory>());
  return factories;
}

}  // namespace valuescope::rpc
