// How a service's methods are registered with gRPC: one line an RPC. What is not registered is
// answered UNIMPLEMENTED, so a service can be written method by method.
//
//   RpcService binding("valuescope.v1.VectorService", &runtime);
//   binding.Unary("GetVector", Lane::kQuick, &service, &VectorService::GetVector);
//   binding.Unary("ExtractVectors", Lane::kLong, &service, &VectorService::ExtractVectors);
//   binding.ServerStream("ExportVectors", Lane::kLong, &service, &VectorService::ExportVectors);
//   binding.ClientStream("ImportVectors", Lane::kLong, kChunk, &service,
//                        &VectorService::ImportVectors);
//
// of a class that knows nothing of gRPC:
//
//   class VectorService {
//    public:
//     absl::Status GetVector(const CallContext& context, const v1::GetVectorRequest& request,
//                            v1::GetVectorResponse* response);
//     absl::Status ExportVectors(const CallContext& context, const v1::ExportVectorsRequest&
//     request,
//                                StreamWriter<v1::ExportVectorsResponse>& writer);
//     absl::Status ImportVectors(const CallContext& context,
//                                StreamReader<v1::ImportVectorsRequest>& reader,
//                                v1::ImportVectorsResponse* response);
//   };
//
// Handlers are called from many threads at once. They may block, but what blocks for more than
// milliseconds belongs on Lane::kLong, watches context.cancellation and returns context.Why(); what
// waits for an event that may be far off is registered by WaitingUnary or WaitingStream.
// Errors come from base/error.h; an exception is answered INTERNAL.
#ifndef VALUESCOPE_RPC_RPC_SERVICE_H_
#define VALUESCOPE_RPC_RPC_SERVICE_H_

#include <google/protobuf/descriptor.h>
#include <grpcpp/impl/codegen/server_callback_handlers.h>
#include <grpcpp/impl/service_type.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "rpc/call_context.h"
#include "rpc/call_runtime.h"
#include "rpc/reactors.h"
#include "rpc/stream.h"

namespace valuescope::rpc {

// Registered with grpc::ServerBuilder; outlives the grpc::Server.
class RpcService : public grpc::Service {
 public:
  // `full_name` is a service of the linked .proto files; `runtime` outlives the service. As it is,
  // every method is answered UNIMPLEMENTED (reason RPC_NOT_SERVED).
  RpcService(absl::string_view full_name, CallRuntime* runtime);

  const std::string& full_name() const { return descriptor_->full_name(); }

  // `service` outlives this, in all of them.
  template <typename Service, typename Request, typename Response>
  void Unary(absl::string_view name, Lane lane, Service* service,
             absl::Status (Service::*handler)(const CallContext&, const Request&, Response*)) {
    UnaryHandler<Request, Response> bound = [service, handler](const auto&... arguments) {
      return (service->*handler)(arguments...);
    };
    Register<UnaryReactor<Request, Response>, Request, Response>({.name = name, .lane = lane},
                                                                 std::move(bound));
  }

  template <typename Service, typename Request, typename Response>
  void ServerStream(absl::string_view name, Lane lane, Service* service,
                    absl::Status (Service::*handler)(const CallContext&, const Request&,
                                                     StreamWriter<Response>&)) {
    ServerStreamHandler<Request, Response> bound =
        [service, handler](const CallContext& context, const Request& request,
                           StreamWriter<Response>& writer) {
          return (service->*handler)(context, request, writer);
        };
    Register<ServerStreamReactor<Request, Response>, Request, Response>(
        {.name = name, .lane = lane, .server_streams = true}, std::move(bound));
  }

  // Methods that wait for something to happen, without a thread (waiter.h).
  template <typename Service, typename Request, typename Response>
  void WaitingUnary(absl::string_view name, Service* service,
                    absl::StatusOr<std::unique_ptr<Waiter<Response*>>> (Service::*handler)(
                        const CallContext&, const Request&, Wake)) {
    WaitingHandler<Request, Response*> bound = [service, handler](const auto&... arguments) {
      return (service->*handler)(arguments...);
    };
    Register<WaitingUnaryReactor<Request, Response>, Request, Response>(
        {.name = name, .lane = Lane::kWaiting}, std::move(bound));
  }

  template <typename Service, typename Request, typename Response>
  void WaitingStream(absl::string_view name, Service* service,
                     absl::StatusOr<std::unique_ptr<Waiter<StreamWriter<Response>&>>> (
                         Service::*handler)(const CallContext&, const Request&, Wake)) {
    WaitingHandler<Request, StreamWriter<Response>&> bound =
        [service, handler](const auto&... arguments) { return (service->*handler)(arguments...); };
    Register<WaitingStreamReactor<Request, Response>, Request, Response>(
        {.name = name, .lane = Lane::kWaiting, .server_streams = true}, std::move(bound));
  }

  // A client's messages have at most `message_bytes` each.
  template <typename Service, typename Request, typename Response>
  void ClientStream(absl::string_view name, Lane lane, int64_t message_bytes, Service* service,
                    absl::Status (Service::*handler)(const CallContext&, StreamReader<Request>&,
                                                     Response*)) {
    ClientStreamHandler<Request, Response> bound = [service, handler](const CallContext& context,
                                                                      StreamReader<Request>& reader,
                                                                      Response* response) {
      return (service->*handler)(context, reader, response);
    };
    Register<ClientStreamReactor<Request, Response>, Request, Response>(
        {.name = name, .lane = lane, .message_bytes = message_bytes, .client_streams = true},
        std::move(bound));
  }

 private:
  using Handler = grpc::internal::CallbackBidiHandler<grpc::ByteBuffer, grpc::ByteBuffer>;

  struct Registration {
    absl::string_view name;
    Lane lane = Lane::kQuick;
    int64_t message_bytes = 0;
    bool client_streams = false;
    bool server_streams = false;
  };

  template <typename ReactorOfShape, typename Request, typename Response>
  void Register(const Registration& registration, typename ReactorOfShape::Handler handler) {
    const int index = IndexOf(registration, Request::descriptor(), Response::descriptor());
    const Method* method = SetUp(index, registration);
    MarkMethodRawCallback(
        index, new Handler([runtime = runtime_, method,
                            bound = std::move(handler)](grpc::CallbackServerContext* context) {
          auto* reactor = new ReactorOfShape(runtime, method, context, &bound);
          reactor->Open();
          return reactor;
        }));
  }

  // Index of a method in the service, which must have exactly this signature.
  int IndexOf(const Registration& registration, const google::protobuf::Descriptor* request,
              const google::protobuf::Descriptor* response) const;
  const Method* SetUp(int index, const Registration& registration);
  void RefuseMethod(int index);

  CallRuntime* const runtime_;
  const google::protobuf::ServiceDescriptor* const descriptor_;
  std::deque<Method> methods_;     // by index; handlers keep pointers to them
  std::deque<std::string> paths_;  // "/package.Service/Method": gRPC keeps pointers into them
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_RPC_SERVICE_H_
