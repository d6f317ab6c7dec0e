// How the program starts, answers health checks and stops.
#include "tests/rpc/server_process.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "valuescope/v1/models.grpc.pb.h"

namespace valuescope::rpc {
namespace {

using testing::HasSubstr;

grpc::Status ListModels(const std::string& address) {
  const auto stub =
      v1::ModelService::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  v1::ListModelsResponse response;
  return stub->ListModels(&context, {}, &response);
}

TEST(ServerProcessTest, ServesWithoutModelsAndLeavesWithZeroOnSigterm) {
  for (const int signal : {SIGTERM, SIGINT}) {
    ServerProcess server;
    const std::string address = server.WaitForAddress();
    ASSERT_NE(address, "") << server.Log();
    EXPECT_TRUE(ListModels(address).ok());
    server.Signal(signal);
    EXPECT_EQ(server.WaitForExit(), 0) << server.Log();
  }
}

TEST(ServerProcessTest, AnAddressInUseIsToldInOneLine) {
  ServerProcess first;
  const std::string address = first.WaitForAddress();
  ASSERT_NE(address, "");
  ServerProcess second({"--listen=" + address});
  EXPECT_EQ(second.WaitForAddress(), "");
  EXPECT_EQ(second.WaitForExit(), 2);
  const std::string log = second.Log();
  const std::string last = log.substr(log.rfind("valuescope-server: "));
  EXPECT_THAT(last, HasSubstr(address));
  EXPECT_EQ(std::count(last.begin(), last.end(), '\n'), 1);
}

TEST(ServerProcessTest, ABadFlagIsToldInOneLineAndNothingElse) {
  ServerProcess server({"--threads=x"});
  EXPECT_EQ(server.WaitForExit(), 2);
  const std::string log = server.Log();
  EXPECT_THAT(log, HasSubstr("--threads"));
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 1);
}

// The wheel that tests are built with has no CUDA libraries beside it.
TEST(ServerProcessTest, AGpuThatCannotBeUsedIsToldInOneLineWithWhatIsMissing) {
  ServerProcess server({"--device=cuda"});
  EXPECT_EQ(server.WaitForExit(), 2);
  const std::string log = server.Log();
  EXPECT_THAT(log, HasSubstr("--device: CUDA cannot be used: "));
  EXPECT_THAT(log, HasSubstr(".so"));
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 1);
}

TEST(ServerProcessTest, AnUnknownModelStopsTheStart) {
  ServerProcess server({"--models=nobody"});
  EXPECT_EQ(server.WaitForExit(), 2);
  EXPECT_THAT(server.Log(), HasSubstr("models/nobody"));
}

}  // namespace
}  // namespace valuescope::rpc
