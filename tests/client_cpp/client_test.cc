// Calls and streams against a server that is full, draining, slow or gone.
#include "valuescope/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tests/client_cpp/fake_server.h"

namespace valuescope {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Le;
using ::testing::SizeIs;

constexpr absl::Duration kLong = absl::Seconds(60);

grpc::Status Full(absl::Duration wait) {
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(absl::ToInt64Seconds(wait));
  google::rpc::Status rich;
  rich.set_code(grpc::StatusCode::RESOURCE_EXHAUSTED);
  rich.add_details()->PackFrom(retry);
  return {grpc::StatusCode::RESOURCE_EXHAUSTED, "full", rich.SerializeAsString()};
}

grpc::Status BadField() {
  google::rpc::BadRequest bad;
  auto* violation = bad.add_field_violations();
  violation->set_field("sampling.top_p");
  violation->set_description("allowed range (0, 1]");
  google::rpc::ErrorInfo info;
  info.set_reason("OUT_OF_RANGE");
  (*info.mutable_metadata())["field"] = "sampling.top_p";
  google::rpc::Status rich;
  rich.add_details()->PackFrom(bad);
  rich.add_details()->PackFrom(info);
  return {grpc::StatusCode::INVALID_ARGUMENT, "bad request", rich.SerializeAsString()};
}

const grpc::Status kDraining(grpc::StatusCode::UNAVAILABLE, "draining");

// Holds a call until its client is gone.
grpc::Status HoldUntilCancelled(grpc::ServerContext* context, std::atomic<int>& held) {
  ++held;
  while (!context->IsCancelled()) std::this_thread::yield();
  --held;
  return grpc::Status::CANCELLED;
}

// A call's metadata under `key`; empty where it has none.
std::string Sent(const grpc::ServerContext& context, const char* key) {
  const auto found = context.client_metadata().find(key);
  if (found == context.client_metadata().end()) return "";
  return {found->second.data(), found->second.size()};
}

// Until the call's deadline.
double SecondsLeft(const grpc::ServerContext& context) {
  return absl::ToDoubleSeconds(absl::FromChrono(context.deadline()) - absl::Now());
}

class Models : public v1::ModelService::Service {
 public:
  grpc::Status GetModel(grpc::ServerContext* context, const v1::GetModelRequest* request,
                        v1::GetModelResponse* response) override {
    ++calls;
    if (hold) return HoldUntilCancelled(context, held);
    authorization = Sent(*context, "authorization");
    model = Sent(*context, "x-valuescope-model");
    response->mutable_model()->set_name(request->name());
    return Answer(context);
  }
  grpc::Status LoadModel(grpc::ServerContext* context, const v1::LoadModelRequest* request,
                         v1::LoadModelResponse*) override {
    ++calls;
    request_ids.push_back(request->request_id());
    return Answer(context);
  }
  grpc::Status UnloadModel(grpc::ServerContext* context, const v1::UnloadModelRequest*,
                           v1::UnloadModelResponse*) override {
    ++calls;
    return Answer(context);
  }

  std::atomic<int> calls{0};
  std::atomic<bool> hold{false};
  std::atomic<int> held{0};
  int refusals = 0;
  grpc::Status refusal = kDraining;
  bool wordless = false;  // as where no method has seen the call
  std::string pushback;
  std::string authorization, model;
  std::vector<std::string> request_ids;
  std::atomic<double> seconds_left{0};

 private:
  grpc::Status Answer(grpc::ServerContext* context) {
    seconds_left = SecondsLeft(*context);
    if (refusals-- <= 0) return grpc::Status::OK;
    if (!pushback.empty()) context->AddTrailingMetadata("grpc-retry-pushback-ms", pushback);
    if (!wordless) context->AddTrailingMetadata("x-request-id", "r-17");
    return refusal;
  }
};

class Generation : public v1::GenerationService::Service {
 public:
  grpc::Status StreamGenerate(grpc::ServerContext* context, const v1::StreamGenerateRequest*,
                              grpc::ServerWriter<v1::StreamGenerateResponse>* writer) override {
    ++calls;
    if (refusals-- > 0) return kDraining;
    v1::StreamGenerateResponse event;
    event.mutable_delta()->set_text("sea");
    v1::StreamGenerateResponse heartbeat;
    heartbeat.mutable_heartbeat();
    writer->Write(heartbeat);
    for (int i = 0; i < deltas; ++i) writer->Write(event);
    seconds_left = SecondsLeft(*context);
    return hold ? HoldUntilCancelled(context, held) : end;
  }

  std::atomic<int> calls{0};
  int refusals = 0;
  int deltas = 2;  // after a heartbeat
  std::atomic<double> seconds_left{0};
  grpc::Status end;
  std::atomic<bool> hold{false};
  std::atomic<int> held{0};
};

class ClientTest : public ::testing::Test {
 protected:
  void WaitUntil(const std::function<bool()>& condition) {
    const absl::Time end = absl::Now() + kLong;
    while (!condition()) {
      ASSERT_LT(absl::Now(), end);
      std::this_thread::yield();
    }
  }

  Models models_;
  Generation generation_;
  FakeServer server_{&models_, &generation_};
  std::shared_ptr<NotingClock> clock_ = std::make_shared<NotingClock>();
  Client client_{server_.address(), {.clock = clock_}};
};

TEST_F(ClientTest, ServersOfOneNameAreCalledInTurn) {
  Models others;
  const FakeServer other({&others});
  Client client("ipv4:" + server_.address() + "," + other.address());
  const absl::Time deadline = absl::Now() + kLong;
  while ((models_.calls < 3 || others.calls < 3) && absl::Now() < deadline) {
    ASSERT_TRUE(client.GetModel({}).ok());
  }
  EXPECT_THAT((std::vector<int>{models_.calls, others.calls}), Each(Ge(3)));
}

TEST_F(ClientTest, ComesBackToAFullServerAfterTheDelayItNamed) {
  models_.refusals = 2;
  models_.refusal = Full(absl::Seconds(7));
  v1::GetModelRequest request;
  request.set_name("models/x");
  const auto response = client_.GetModel(request);
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->model().name(), "models/x");
  EXPECT_EQ(models_.calls, 3);
  EXPECT_THAT(clock_->waits(), ElementsAre(absl::Seconds(7), absl::Seconds(7)));
}

TEST_F(ClientTest, TakesThePushbackOfTheTrailingMetadataWhereItIsLonger) {
  models_.refusals = 1;
  models_.refusal = Full(absl::Seconds(2));
  models_.pushback = "2500";
  EXPECT_TRUE(client_.GetModel({}).ok());
  EXPECT_THAT(clock_->waits(), ElementsAre(absl::Milliseconds(2500)));
}

TEST_F(ClientTest, DoesNotComeBackWhereTheServerForbidsItOrAsksForTooLong) {
  models_.refusals = 1;
  models_.pushback = "-1";
  const auto refused = client_.GetModel({});
  EXPECT_TRUE(ErrorDetailsOf(refused.status()).retry_refused);
  models_.refusals = 1;
  models_.pushback.clear();
  models_.refusal = Full(absl::Seconds(3600));
  const auto late = client_.GetModel({});
  EXPECT_EQ(ErrorDetailsOf(late.status()).retry_after, absl::Seconds(3600));
  EXPECT_EQ(models_.calls, 2);
  EXPECT_THAT(clock_->waits(), IsEmpty());
}

TEST_F(ClientTest, BacksOffFromADrainingServerAndGivesUpInTheEnd) {
  models_.refusals = 100;
  const auto response = client_.GetModel({});
  EXPECT_EQ(response.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(models_.calls, 8);
  EXPECT_THAT(clock_->waits(),
              ElementsAre(absl::Milliseconds(50), absl::Milliseconds(100), absl::Milliseconds(200),
                          absl::Milliseconds(400), absl::Milliseconds(800),
                          absl::Milliseconds(1600), absl::Milliseconds(2500)));
}

TEST_F(ClientTest, NeverWaitsPastTheDeadline) {
  models_.refusals = 100;
  models_.refusal = Full(absl::Seconds(20));
  const auto response = client_.GetModel({}, {.timeout = absl::Seconds(50)});
  EXPECT_EQ(response.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(models_.calls, 3);
}

TEST_F(ClientTest, ObeysTheDeadlineOfTheCall) {
  models_.hold = true;
  const auto response = client_.GetModel({}, {.timeout = absl::Milliseconds(50)});
  EXPECT_EQ(response.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(models_.calls, 1);
}

TEST_F(ClientTest, RepeatsWhatCreatesUnderOneRequestIdAndNeverWhatUnloads) {
  models_.refusals = 1;
  EXPECT_TRUE(client_.LoadModel({}).ok());
  ASSERT_THAT(models_.request_ids, SizeIs(2));
  EXPECT_THAT(models_.request_ids[0], SizeIs(36));
  EXPECT_EQ(models_.request_ids[0], models_.request_ids[1]);

  models_.refusals = 1;
  models_.calls = 0;
  EXPECT_EQ(client_.UnloadModel({}).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(models_.calls, 1);
}

TEST_F(ClientTest, DoesNotRepeatWhatCanNeverWorkAndShowsAllThatTheServerSaid) {
  models_.refusals = 1;
  models_.refusal = BadField();
  const absl::Status status = client_.GetModel({}).status();
  EXPECT_EQ(models_.calls, 1);
  const ErrorDetails details = ErrorDetailsOf(status);
  EXPECT_EQ(details.reason, "OUT_OF_RANGE");
  EXPECT_EQ(details.metadata.at("field"), "sampling.top_p");
  ASSERT_THAT(details.violations, SizeIs(1));
  EXPECT_EQ(details.violations[0].field, "sampling.top_p");
  EXPECT_EQ(details.request_id, "r-17");
  EXPECT_TRUE(status.GetPayload("type.googleapis.com/google.rpc.BadRequest"));
  EXPECT_EQ(ErrorText(status),
            "bad request [OUT_OF_RANGE]\n  sampling.top_p: allowed range (0, 1]");
}

TEST_F(ClientTest, EndsACallThatAnotherThreadCancels) {
  models_.hold = true;
  CallOptions options;
  options.cancellation = std::make_shared<Cancellation>();
  std::thread other([&] {
    WaitUntil([&] { return models_.held > 0; });
    options.cancellation->Cancel();
  });
  EXPECT_EQ(client_.GetModel({}, options).status().code(), absl::StatusCode::kCancelled);
  other.join();
  WaitUntil([&] { return models_.held == 0; });

  EXPECT_EQ(client_.GetModel({}, options).status().code(), absl::StatusCode::kCancelled);
  models_.hold = false;
  EXPECT_TRUE(client_.GetModel({}).ok());
}

TEST_F(ClientTest, EndsAWaitThatAnotherThreadCancels) {
  models_.refusals = 100;
  models_.refusal = Full(absl::Seconds(50));
  Client client(server_.address());
  CallOptions options;
  options.cancellation = std::make_shared<Cancellation>();
  std::thread other([&] {
    WaitUntil([&] { return models_.calls > 0; });
    options.cancellation->Cancel();
  });
  const absl::Time start = absl::Now();
  EXPECT_EQ(client.GetModel({}, options).status().code(), absl::StatusCode::kCancelled);
  EXPECT_LT(absl::Now() - start, absl::Seconds(40));
  other.join();
}

TEST_F(ClientTest, AStreamThatOnlySentAHeartbeatIsOpenedAgain) {
  generation_.deltas = 0;
  generation_.end = kDraining;
  auto stream = client_.StreamGenerate({});
  v1::StreamGenerateResponse event;
  EXPECT_FALSE(stream.Read(&event));
  EXPECT_EQ(stream.Finish().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(generation_.calls, RetryPolicy().attempts);
}

TEST_F(ClientTest, EveryCallEndsSometimeUnlessItIsAskedNotTo) {
  ASSERT_TRUE(client_.GetModel({}).ok());
  EXPECT_GT(models_.seconds_left, 60);
  EXPECT_LE(models_.seconds_left, 130);  // on the wire timeouts are rounded up
  auto stream = client_.StreamGenerate({});
  EXPECT_TRUE(stream.Finish().ok());
  EXPECT_GT(generation_.seconds_left, 3600);
  EXPECT_LE(generation_.seconds_left, 25 * 3600);
  ASSERT_TRUE(client_.GetModel({}, {.timeout = absl::InfiniteDuration()}).ok());
  EXPECT_GT(models_.seconds_left, 1e6);
}

TEST_F(ClientTest, ACallThatAServerTookBackAsItEndedIsMadeAgain) {
  models_.refusals = 1;
  models_.refusal = grpc::Status::CANCELLED;
  models_.wordless = true;
  EXPECT_TRUE(client_.GetModel({}).ok());
  EXPECT_EQ(models_.calls, 2);
  models_.refusals = 1;
  EXPECT_EQ(client_.UnloadModel({}).status().code(), absl::StatusCode::kUnavailable);
  models_.wordless = false;
  models_.refusals = 1;
  EXPECT_EQ(client_.GetModel({}).status().code(), absl::StatusCode::kCancelled);
}

TEST_F(ClientTest, OpensAStreamAgainOnlyWhileNothingCame) {
  generation_.refusals = 2;
  auto stream = client_.StreamGenerate({});
  v1::StreamGenerateResponse event;
  int events = 0;
  while (stream.Read(&event)) {
    EXPECT_TRUE(event.has_delta());
    ++events;
  }
  EXPECT_TRUE(stream.Finish().ok()) << stream.Finish();
  EXPECT_EQ(events, 2);
  EXPECT_EQ(generation_.calls, 3);

  generation_.calls = 0;
  generation_.end = kDraining;
  auto broken = client_.StreamGenerate({});
  events = 0;
  while (broken.Read(&event)) ++events;
  EXPECT_EQ(events, 2);
  EXPECT_EQ(broken.Finish().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(generation_.calls, 1);
}

TEST_F(ClientTest, AStreamThatGoesOutOfScopeIsCancelledOnTheServer) {
  generation_.hold = true;
  {
    auto stream = client_.StreamGenerate({});
    v1::StreamGenerateResponse event;
    ASSERT_TRUE(stream.Read(&event));
    const auto moved = std::move(stream);
    WaitUntil([&] { return generation_.held == 1; });
  }
  WaitUntil([&] { return generation_.held == 0; });
}

TEST_F(ClientTest, AStreamIsCancelledByAnotherThreadWhileItIsRead) {
  generation_.hold = true;
  auto stream = client_.StreamGenerate({});
  std::thread other([&] {
    WaitUntil([&] { return generation_.held == 1; });
    stream.Cancel();
  });
  EXPECT_EQ(stream.Finish().code(), absl::StatusCode::kCancelled);
  other.join();
}

TEST_F(ClientTest, SendsTheTokenWhereThereIsOne) {
  EXPECT_TRUE(client_.GetModel({}).ok());
  EXPECT_EQ(models_.authorization, "");
  Client client(server_.address(), {.token = "secret", .clock = clock_});
  EXPECT_TRUE(client.GetModel({}).ok());
  EXPECT_EQ(models_.authorization, "Bearer secret");
}

TEST_F(ClientTest, TellsGatewaysWhichModelACallIsAbout) {
  v1::GetModelRequest request;
  EXPECT_TRUE(client_.GetModel(request).ok());
  EXPECT_EQ(models_.model, "");
  for (const std::string name : {"models/x", "models/folder/x-1.5"}) {
    request.set_name(name);
    EXPECT_TRUE(client_.GetModel(request).ok());
    EXPECT_EQ(models_.model, name);
  }
  for (const std::string unsendable : {"models/\n", "models/a b", "models/\xc3\xbc"}) {
    request.set_name(unsendable);
    EXPECT_TRUE(client_.GetModel(request).ok());
    EXPECT_EQ(models_.model, "");
  }
}

TEST_F(ClientTest, ReadsTheTokenFromItsFileForEachCall) {
  const std::string path = testing::TempDir() + "/token_" + std::to_string(getpid());
  Client client(server_.address(), {.token_file = path, .clock = clock_});
  for (const std::string token : {"first", "second"}) {
    std::ofstream(path) << " " << token << "\n";
    EXPECT_TRUE(client.GetModel({}).ok());
    EXPECT_EQ(models_.authorization, "Bearer " + token);
  }
  models_.authorization = "nothing was sent";
  for (const bool there : {true, false}) {
    if (there) std::ofstream(path, std::ios::trunc) << "\n";
    if (!there) std::filesystem::remove(path);
    const absl::Status status = client.GetModel({}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_NE(status.message().find(path), std::string::npos) << status;
  }
  EXPECT_EQ(models_.authorization, "nothing was sent");
}

TEST(TlsCredentials, SayWhichFileIsMissing) {
  EXPECT_TRUE(TlsCredentials({}).ok());
  const auto unreadable = TlsCredentials({.ca = "/nowhere/ca.pem"}).status();
  EXPECT_EQ(unreadable.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(unreadable.message().find("/nowhere/ca.pem"), std::string::npos);
  EXPECT_FALSE(TlsCredentials({.certificate = "c.pem"}).ok());
  EXPECT_FALSE(TlsCredentials({.key = "k.pem"}).ok());
}

TEST(RetryDelays, GrowToTheirLimitAndStayWithinTheirUpperHalf) {
  const RetryPolicy policy{.attempts = 100};
  const absl::Status gone = absl::UnavailableError("gone");
  std::vector<double> seconds;
  for (int failures = 1; failures < 100; ++failures) {
    const absl::Duration low = *RetryDelay(policy, gone, failures, 0.0);
    const absl::Duration high = *RetryDelay(policy, gone, failures, 0.999);
    EXPECT_LT(low, high);
    seconds.push_back(absl::ToDoubleSeconds(high));
  }
  EXPECT_THAT(seconds, Each(AllOf(Ge(0.05), Le(5.0))));
  EXPECT_FALSE(RetryDelay(policy, gone, 100, 0.5));
  EXPECT_FALSE(RetryDelay(policy, absl::InternalError(""), 1, 0.5));
  EXPECT_FALSE(RetryDelay(policy, absl::ResourceExhaustedError("never fits"), 1, 0.5));
}

TEST(ErrorText, NamesTheCodeWhereNothingWasSaid) {
  EXPECT_THAT(ErrorText(absl::Status(absl::StatusCode::kUnavailable, "")),
              HasSubstr("UNAVAILABLE"));
  EXPECT_EQ(ErrorText(absl::OkStatus()), "OK");
}

}  // namespace
}  // namespace valuescope
