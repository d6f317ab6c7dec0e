#include "rpc/reflection.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <grpcpp/impl/codegen/server_callback_handlers.h>
#include <grpcpp/support/byte_buffer.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "grpc/reflection/v1alpha/reflection.pb.h"
#include "rpc/message_bytes.h"
#include "rpc/reactors.h"

namespace valuescope::rpc {
namespace {

namespace v1alpha = grpc::reflection::v1alpha;
using google::protobuf::DescriptorPool;
using google::protobuf::FileDescriptor;

constexpr char kPath[] = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
constexpr char kName[] = "ServerReflection.ServerReflectionInfo";
constexpr size_t kLongestQuestion = 64 << 10;

// The file, and each that it imports, once.
void AddFile(const FileDescriptor& file, std::set<std::string>& added,
             v1alpha::FileDescriptorResponse& response) {
  if (!added.insert(file.name()).second) return;
  google::protobuf::FileDescriptorProto proto;
  file.CopyTo(&proto);
  response.add_file_descriptor_proto(proto.SerializeAsString());
  for (int i = 0; i < file.dependency_count(); ++i) {
    AddFile(*file.dependency(i), added, response);
  }
}

// The bytes of a call that asks and hears one after the other. What is asked is looked up in
// memory, so gRPC's threads do it.
class ReflectionReactor : public Reactor {
 public:
  ReflectionReactor(CallRuntime* runtime, const Method* method,
                    grpc::CallbackServerContext* context, const std::vector<std::string>* services)
      : Reactor(runtime, method, context), services_(services) {}

  void Open() override {
    if (const absl::Status entered = call_.Enter(); !entered.ok()) return call_.Refuse(entered);
    stop_.emplace(&call_.context(), [this] { peer_.TryCancel(); });  // a drain waits for nobody
    StartRead(&bytes_);
  }
  void OnCancel() override { call_.ClientGone(); }

  void OnReadDone(bool ok) override {
    if (!ok) return call_.Refuse(call_.context().Why());
    v1alpha::ServerReflectionRequest request;
    absl::Status status = call_.context().Why();
    if (status.ok() && bytes_.Length() > kLongestQuestion) {
      status = absl::InvalidArgumentError("the question is longer than any");
    }
    if (status.ok()) status = ParseMessage(bytes_, request);
    if (!status.ok()) return call_.Refuse(status);
    bytes_ = BytesOf(Reflect(request, *services_));
    StartWrite(&bytes_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return call_.Refuse(call_.context().Why());
    StartRead(&bytes_);
  }

 private:
  const std::vector<std::string>* const services_;
  grpc::ByteBuffer bytes_;
  std::optional<StopCallback> stop_;
};

}  // namespace

v1alpha::ServerReflectionResponse Reflect(const v1alpha::ServerReflectionRequest& request,
                                          const std::vector<std::string>& services) {
  const DescriptorPool& pool = *DescriptorPool::generated_pool();
  v1alpha::ServerReflectionResponse response;
  response.set_valid_host(request.host());
  *response.mutable_original_request() = request;
  const FileDescriptor* file = nullptr;
  switch (request.message_request_case()) {
    case v1alpha::ServerReflectionRequest::kListServices:
      for (const std::string& name : services) {
        response.mutable_list_services_response()->add_service()->set_name(name);
      }
      return response;
    case v1alpha::ServerReflectionRequest::kFileByFilename:
      file = pool.FindFileByName(request.file_by_filename());
      break;
    case v1alpha::ServerReflectionRequest::kFileContainingSymbol:
      file = pool.FindFileContainingSymbol(request.file_containing_symbol());
      break;
    default:  // the contract extends nothing
      break;
  }
  if (file == nullptr) {
    response.mutable_error_response()->set_error_code(grpc::StatusCode::NOT_FOUND);
    response.mutable_error_response()->set_error_message("there is no such thing");
    return response;
  }
  std::set<std::string> added;
  AddFile(*file, added, *response.mutable_file_descriptor_response());
  return response;
}

Reflection::Reflection(CallRuntime* runtime, std::vector<std::string> services)
    : method_{.name = kName,
              .lane = Lane::kWaiting,
              .least_role = LeastRole(kName).value_or(Role::kAdmin)},
      services_([&] {
        services.push_back(
            v1alpha::ServerReflectionRequest::descriptor()->file()->service(0)->full_name());
        std::sort(services.begin(), services.end());
        return std::move(services);
      }()) {
  using Handler = grpc::internal::CallbackBidiHandler<grpc::ByteBuffer, grpc::ByteBuffer>;
  AddMethod(new grpc::internal::RpcServiceMethod(kPath, grpc::internal::RpcMethod::BIDI_STREAMING,
                                                 /*handler=*/nullptr));
  MarkMethodRawCallback(0, new Handler([this, runtime](grpc::CallbackServerContext* context) {
                          auto* reactor =
                              new ReflectionReactor(runtime, &method_, context, &services_);
                          reactor->Open();
                          return reactor;
                        }));
}

}  // namespace valuescope::rpc
