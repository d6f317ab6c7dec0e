// How a service registers its methods: one line an RPC. The base class answers what a service does
// not register with UNIMPLEMENTED, so a service can be written method by method.
//
//   class VectorService : public RpcService {
//    public:
//     VectorService(CallRuntime* runtime, store::Store* store)
//         : RpcService("valuescope.v1.VectorService", runtime), store_(store) {
//       Unary("GetVector", Lane::kQuick, this, &VectorService::GetVector);
//       Unary("ExtractVectors", Lane::kLong, this, &VectorService::ExtractVectors);
//       ServerStream("ExportVectors", Lane::kLong, this, &VectorService::ExportVectors);
//       ClientStream("ImportVectors", Lane::kLong, this, &VectorService::ImportVectors);
//     }
//
//    private:
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
#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/impl/codegen/server_callback_handlers.h>
#include <grpcpp/impl/service_type.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <string>
#include <vector>

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

 protected:
  template <typename Service, typename Request, typename Response>
  void Unary(absl::string_view name, Lane lane, Service* service,
             absl::Status (Service::*handler)(const CallContext&, const Request&, Response*)) {
    const int index = IndexOf(name, Request::descriptor(), Response::descriptor(),
                              {.client_streams = false, .server_streams = false});
    Method* method = SetLane(index, lane);
    UnaryHandler<Request, Response> bound = [service, handler](const auto&... arguments) {
      return (service->*handler)(arguments...);
    };
    MarkMethodCallback(index, new grpc::internal::CallbackUnaryHandler<Request, Response>(
                                  [runtime = runtime_, method, bound = std::move(bound)](
                                      grpc::CallbackServerContext* context, const Request* request,
                                      Response* response) -> grpc::ServerUnaryReactor* {
                                    return new UnaryReactor<Request, Response>(
                                        runtime, method, context, request, response, &bound);
                                  }));
  }

  template <typename Service, typename Request, typename Response>
  void ServerStream(absl::string_view name, Lane lane, Service* service,
                    absl::Status (Service::*handler)(const CallContext&, const Request&,
                                                     StreamWriter<Response>&)) {
    const int index = IndexOf(name, Request::descriptor(), Response::descriptor(),
                              {.client_streams = false, .server_streams = true});
    Method* method = SetLane(index, lane);
    ServerStreamHandler<Request, Response> bound =
        [service, handler](const CallContext& context, const Request& request,
                           StreamWriter<Response>& writer) {
          return (service->*handler)(context, request, writer);
        };
    MarkMethodCallback(index,
                       new grpc::internal::CallbackServerStreamingHandler<Request, Response>(
                           [runtime = runtime_, method, bound = std::move(bound)](
                               grpc::CallbackServerContext* context,
                               const Request* request) -> grpc::ServerWriteReactor<Response>* {
                             return new ServerStreamReactor<Request, Response>(
                                 runtime, method, context, request, &bound);
                           }));
  }

  // Methods that wait for something to happen, without a thread (waiter.h).
  template <typename Service, typename Request, typename Response>
  void WaitingUnary(absl::string_view name, Service* service,
                    absl::StatusOr<std::unique_ptr<Waiter<Response*>>> (Service::*handler)(
                        const CallContext&, const Request&, Wake)) {
    const int index = IndexOf(name, Request::descriptor(), Response::descriptor(),
                              {.client_streams = false, .server_streams = false});
    Method* method = SetLane(index, Lane::kWaiting);
    WaitingHandler<Request, Response*> bound = [service, handler](const auto&... arguments) {
      return (service->*handler)(arguments...);
    };
    MarkMethodCallback(index, new grpc::internal::CallbackUnaryHandler<Request, Response>(
                                  [runtime = runtime_, method, bound = std::move(bound)](
                                      grpc::CallbackServerContext* context, const Request* request,
                                      Response* response) -> grpc::ServerUnaryReactor* {
                                    return new WaitingUnaryReactor<Request, Response>(
                                        runtime, method, context, request, response, &bound);
                                  }));
  }

  template <typename Service, typename Request, typename Response>
  void WaitingStream(absl::string_view name, Service* service,
                     absl::StatusOr<std::unique_ptr<Waiter<StreamWriter<Response>&>>> (
                         Service::*handler)(const CallContext&, const Request&, Wake)) {
    const int index = IndexOf(name, Request::descriptor(), Response::descriptor(),
                              {.client_streams = false, .server_streams = true});
    Method* method = SetLane(index, Lane::kWaiting);
    WaitingHandler<Request, StreamWriter<Response>&> bound =
        [service, handler](const auto&... arguments) { return (service->*handler)(arguments...); };
    MarkMethodCallback(index,
                       new grpc::internal::CallbackServerStreamingHandler<Request, Response>(
                           [runtime = runtime_, method, bound = std::move(bound)](
                               grpc::CallbackServerContext* context,
                               const Request* request) -> grpc::ServerWriteReactor<Response>* {
                             return new WaitingStreamReactor<Request, Response>(
                                 runtime, method, context, request, &bound);
                           }));
  }

  template <typename Service, typename Request, typename Response>
  void ClientStream(absl::string_view name, Lane lane, Service* service,
                    absl::Status (Service::*handler)(const CallContext&, StreamReader<Request>&,
                                                     Response*)) {
    const int index = IndexOf(name, Request::descriptor(), Response::descriptor(),
                              {.client_streams = true, .server_streams = false});
    Method* method = SetLane(index, lane);
    ClientStreamHandler<Request, Response> bound = [service, handler](const CallContext& context,
                                                                      StreamReader<Request>& reader,
                                                                      Response* response) {
      return (service->*handler)(context, reader, response);
    };
    MarkMethodCallback(index, new grpc::internal::CallbackClientStreamingHandler<Request, Response>(
                                  [runtime = runtime_, method, bound = std::move(bound)](
                                      grpc::CallbackServerContext* context,
                                      Response* response) -> grpc::ServerReadReactor<Request>* {
                                    return new ClientStreamReactor<Request, Response>(
                                        runtime, method, context, response, &bound);
                                  }));
  }

 private:
  struct Shape {
    bool client_streams = false;
    bool server_streams = false;
  };

  // Index of a method in the service, which must have exactly this signature.
  int IndexOf(absl::string_view name, const google::protobuf::Descriptor* request,
              const google::protobuf::Descriptor* response, Shape shape) const;
  Method* SetLane(int index, Lane lane);
  void RefuseMethod(int index);

  CallRuntime* const runtime_;
  const google::protobuf::ServiceDescriptor* const descriptor_;
  std::deque<Method> methods_;     // by index; handlers keep pointers to them
  std::deque<std::string> paths_;  // "/package.Service/Method": gRPC keeps pointers into them
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_RPC_SERVICE_H_
