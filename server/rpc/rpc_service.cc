#include "rpc/rpc_service.h"

#include <grpcpp/support/byte_buffer.h>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/error.h"
#include "rpc/status_to_grpc.h"

namespace valuescope::rpc {
namespace {

using grpc::ByteBuffer;

// Answers without looking at a message: the bytes of a method that nobody serves stay bytes.
template <typename Reactor>
class RefusingReactor : public Reactor {
 public:
  explicit RefusingReactor(const grpc::Status& status) { this->Finish(status); }
  void OnDone() override { delete this; }
};

grpc::internal::RpcMethod::RpcType TypeOf(const google::protobuf::MethodDescriptor& method) {
  if (method.client_streaming()) return grpc::internal::RpcMethod::CLIENT_STREAMING;
  if (method.server_streaming()) return grpc::internal::RpcMethod::SERVER_STREAMING;
  return grpc::internal::RpcMethod::NORMAL_RPC;
}

}  // namespace

RpcService::RpcService(absl::string_view full_name, CallRuntime* runtime)
    : runtime_(runtime),
      descriptor_(google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(
          std::string(full_name))) {
  VS_CHECK(descriptor_ != nullptr);
  for (int index = 0; index < descriptor_->method_count(); ++index) {
    const google::protobuf::MethodDescriptor& method = *descriptor_->method(index);
    VS_CHECK(!(method.client_streaming() && method.server_streaming()));
    methods_.push_back({.name = absl::StrCat(descriptor_->name(), ".", method.name())});
    paths_.push_back(absl::StrCat("/", descriptor_->full_name(), "/", method.name()));
    AddMethod(new grpc::internal::RpcServiceMethod(paths_.back().c_str(), TypeOf(method),
                                                   /*handler=*/nullptr));
    RefuseMethod(index);
  }
}

void RpcService::RefuseMethod(int index) {
  const google::protobuf::MethodDescriptor& method = *descriptor_->method(index);
  const grpc::Status refusal =
      ToGrpcStatus(ErrorWithReason(absl::StatusCode::kUnimplemented, "RPC_NOT_SERVED",
                                   absl::StrCat(methods_[static_cast<size_t>(index)].name,
                                                " is not served by this version of the server")));
  if (method.client_streaming()) {
    MarkMethodRawCallback(
        index, new grpc::internal::CallbackClientStreamingHandler<ByteBuffer, ByteBuffer>(
                   [refusal](grpc::CallbackServerContext*, ByteBuffer*) {
                     return new RefusingReactor<grpc::ServerReadReactor<ByteBuffer>>(refusal);
                   }));
  } else if (method.server_streaming()) {
    MarkMethodRawCallback(
        index, new grpc::internal::CallbackServerStreamingHandler<ByteBuffer, ByteBuffer>(
                   [refusal](grpc::CallbackServerContext*, const ByteBuffer*) {
                     return new RefusingReactor<grpc::ServerWriteReactor<ByteBuffer>>(refusal);
                   }));
  } else {
    MarkMethodRawCallback(
        index, new grpc::internal::CallbackUnaryHandler<ByteBuffer, ByteBuffer>(
                   [refusal](grpc::CallbackServerContext*, const ByteBuffer*, ByteBuffer*) {
                     return new RefusingReactor<grpc::ServerUnaryReactor>(refusal);
                   }));
  }
}

int RpcService::IndexOf(absl::string_view name, const google::protobuf::Descriptor* request,
                        const google::protobuf::Descriptor* response, Shape shape) const {
  const google::protobuf::MethodDescriptor* method =
      descriptor_->FindMethodByName(std::string(name));
  VS_CHECK(method != nullptr);
  VS_CHECK(method->input_type() == request && method->output_type() == response);
  VS_CHECK(method->client_streaming() == shape.client_streams &&
           method->server_streaming() == shape.server_streams);
  return method->index();
}

Method* RpcService::SetLane(int index, Lane lane) {
  Method& method = methods_[static_cast<size_t>(index)];
  method.lane = lane;
  return &method;
}

}  // namespace valuescope::rpc
