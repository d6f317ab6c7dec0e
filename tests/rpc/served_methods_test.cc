// Walks every RPC of every service of the contract against the running program.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "tests/rpc/server_process.h"
#include "valuescope/v1/activations.pb.h"
#include "valuescope/v1/artifacts.pb.h"
#include "valuescope/v1/evaluation.pb.h"
#include "valuescope/v1/generation.pb.h"
#include "valuescope/v1/jobs.pb.h"
#include "valuescope/v1/models.pb.h"
#include "valuescope/v1/neurons.pb.h"
#include "valuescope/v1/tenants.pb.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::rpc {
namespace {

// The answer to one empty message, whatever the method's shape.
grpc::StatusCode CodeOf(grpc::GenericStub& stub, const std::string& method) {
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  grpc::CompletionQueue queue;
  const auto next = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  const auto call = stub.PrepareCall(&context, method, &queue);
  call->StartCall(nullptr);
  next();
  grpc::Slice empty;
  call->Write(grpc::ByteBuffer(&empty, 1), nullptr);
  if (next()) {
    call->WritesDone(nullptr);
    next();
  }
  grpc::ByteBuffer answer;
  do {
    call->Read(&answer, nullptr);
  } while (next());
  grpc::Status status;
  call->Finish(&status, nullptr);
  next();
  return status.error_code();
}

TEST(ServedMethodsTest, AllAreServed) {
  ServerProcess server;
  const std::string address = server.WaitForAddress();
  ASSERT_NE(address, "") << server.Log();
  grpc::GenericStub stub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  std::set<std::string> unserved;
  int walked = 0;
  for (const google::protobuf::Descriptor* message :
       {v1::CaptureRequest::descriptor(), v1::GetArtifactRequest::descriptor(),
        v1::MeasureTextsRequest::descriptor(), v1::GenerateRequest::descriptor(),
        v1::GetJobRequest::descriptor(), v1::GetModelRequest::descriptor(),
        v1::GetNeuronSetRequest::descriptor(), v1::GetVectorRequest::descriptor(),
        v1::QueryUsageRequest::descriptor()}) {
    const google::protobuf::ServiceDescriptor& service = *message->file()->service(0);
    for (int i = 0; i < service.method_count(); ++i, ++walked) {
      const std::string& name = service.method(i)->name();
      const grpc::StatusCode code = CodeOf(stub, "/" + service.full_name() + "/" + name);
      EXPECT_NE(code, grpc::StatusCode::DEADLINE_EXCEEDED) << service.name() << "." << name;
      if (code == grpc::StatusCode::UNIMPLEMENTED) unserved.insert(service.name() + "." + name);
    }
  }
  EXPECT_GT(walked, 30);
  EXPECT_THAT(unserved, testing::IsEmpty());
}

}  // namespace
}  // namespace valuescope::rpc
