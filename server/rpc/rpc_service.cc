#include "rpc/rpc_service.h"

#include <grpcpp/support/byte_buffer.h>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/error.h"
#include "rpc/health.h"
#include "rpc/status_to_grpc.h"

namespace valuescope::rpc {
namespace {

using grpc::ByteBuffer;

// Answers without looking at a message: the bytes of a method that nobody serves stay bytes.
class RefusingReactor : public grpc::ServerBidiReactor<ByteBuffer, ByteBuffer> {
 public:
  explicit RefusingReactor(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace

RpcService::RpcService(absl::string_view full_name, CallRuntime* runtime)
    : runtime_(runtime),
      descriptor_(google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(
          std::string(full_name))) {
  VS_CHECK(descriptor_ != nullptr);
  for (int index = 0; index < descriptor_->method_count(); ++index) {
    const google::protobuf::MethodDescriptor& method = *descriptor_->method(index);
    VS_CHECK(!(method.client_streaming() && method.server_streaming()));
    methods_.push_back({.name = absl::StrCat(descriptor_->name(), ".", method.name()),
                        .bounded = full_name != kHealthService});
    methods_.back().least_role = LeastRole(methods_.back().name).value_or(Role::kAdmin);
    methods_.back().runs_models = RunsModels(methods_.back().name);
    paths_.push_back(absl::StrCat("/", descriptor_->full_name(), "/", method.name()));
    // To gRPC they all stream: it reads the message of another shape before anybody is asked.
    AddMethod(new grpc::internal::RpcServiceMethod(paths_.back().c_str(),
                                                   grpc::internal::RpcMethod::BIDI_STREAMING,
                                                   /*handler=*/nullptr));
    RefuseMethod(index);
  }
}

void RpcService::RefuseMethod(int index) {
  const grpc::Status refusal =
      ToGrpcStatus(ErrorWithReason(absl::StatusCode::kUnimplemented, "RPC_NOT_SERVED",
                                   absl::StrCat(methods_[static_cast<size_t>(index)].name,
                                                " is not served by this version of the server")));
  MarkMethodRawCallback(index, new Handler([refusal](grpc::CallbackServerContext*) {
                          return new RefusingReactor(refusal);
                        }));
}

int RpcService::IndexOf(const Registration& registration,
                        const google::protobuf::Descriptor* request,
                        const google::protobuf::Descriptor* response) const {
  const google::protobuf::MethodDescriptor* method =
      descriptor_->FindMethodByName(std::string(registration.name));
  VS_CHECK(method != nullptr);
  VS_CHECK(method->input_type() == request && method->output_type() == response);
  VS_CHECK(method->client_streaming() == registration.client_streams &&
           method->server_streaming() == registration.server_streams);
  return method->index();
}

const Method* RpcService::SetUp(int index, const Registration& registration) {
  Method& method = methods_[static_cast<size_t>(index)];
  method.lane = registration.lane;
  method.message_bytes = registration.message_bytes;
  return &method;
}

}  // namespace valuescope::rpc
