// The wrapper around every RPC, over real gRPC inside the process, with handlers made for the test.
#include "rpc/reactors.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "base/error.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "rpc/rpc_service.h"
#include "valuescope/v1/artifacts.grpc.pb.h"
#include "valuescope/v1/jobs.grpc.pb.h"

namespace valuescope::rpc {
namespace {

using testing::HasSubstr;
using testing::Not;

// One method of each shape, doing what the test says.
class FakeService : public RpcService {
 public:
  explicit FakeService(CallRuntime* runtime)
      : RpcService("valuescope.v1.ArtifactService", runtime) {
    Unary("GetArtifact", Lane::kLong, this, &FakeService::Get);
    Unary("ListArtifacts", Lane::kQuick, this, &FakeService::List);
    ServerStream("ReadArtifact", Lane::kLong, this, &FakeService::Read);
    ClientStream("WriteArtifact", Lane::kLong, /*message_bytes=*/1 << 20, this,
                 &FakeService::Write);
  }

  std::function<absl::Status(const CallContext&, v1::GetArtifactResponse*)> get;
  std::function<absl::Status(const CallContext&, StreamWriter<v1::ReadArtifactResponse>&)> read;
  std::function<absl::Status(const CallContext&, StreamReader<v1::WriteArtifactRequest>&,
                             v1::WriteArtifactResponse*)>
      write;
  std::atomic<int> ended = 0;  // handlers that returned

 private:
  absl::Status Get(const CallContext& context, const v1::GetArtifactRequest&,
                   v1::GetArtifactResponse* response) {
    return Count(get(context, response));
  }
  absl::Status List(const CallContext&, const v1::ListArtifactsRequest&,
                    v1::ListArtifactsResponse*) {
    return absl::OkStatus();
  }
  absl::Status Read(const CallContext& context, const v1::ReadArtifactRequest&,
                    StreamWriter<v1::ReadArtifactResponse>& writer) {
    return Count(read(context, writer));
  }
  absl::Status Write(const CallContext& context, StreamReader<v1::WriteArtifactRequest>& reader,
                     v1::WriteArtifactResponse* response) {
    return Count(write(context, reader, response));
  }
  absl::Status Count(absl::Status status) {
    ++ended;
    return status;
  }
};

// A job's watchers, without jobs: what they are told, by the name that they watch.
class FakeWatchService : public RpcService {
 public:
  explicit FakeWatchService(CallRuntime* runtime)
      : RpcService("valuescope.v1.JobService", runtime) {
    WaitingStream("WatchJob", this, &FakeWatchService::WatchJob);
  }

  // Tells the watchers of `name` that so much is done; the last time they end.
  void Tell(const std::string& name, int64_t done, bool last = false) {
    absl::MutexLock lock(&mutex_);
    News& news = news_[name];
    ++news.version;
    news.done = done;
    news.last = last;
    for (const Wake& wake : news.wakes) wake();
  }

 private:
  using Output = StreamWriter<v1::WatchJobResponse>&;
  struct News {
    int64_t version = 0, done = 0;
    bool last = false;
    std::vector<Wake> wakes;
  };

  class Watching : public Waiter<Output> {
   public:
    Watching(FakeWatchService* service, std::string name)
        : service_(service), name_(std::move(name)) {}
    std::optional<absl::Status> Look(Output writer) override {
      v1::WatchJobResponse response;
      bool last;
      {
        absl::MutexLock lock(&service_->mutex_);
        const News& news = service_->news_[name_];
        if (news.version == seen_) return std::nullopt;
        seen_ = news.version;
        last = news.last;
        response.mutable_job()->set_name(name_);
        response.mutable_job()->mutable_progress()->set_done(news.done);
      }
      VS_RETURN_IF_ERROR(writer.Write(std::move(response)));
      if (last) return absl::OkStatus();
      return std::nullopt;
    }

   private:
    FakeWatchService* const service_;
    const std::string name_;
    int64_t seen_ = 0;
  };

  absl::StatusOr<std::unique_ptr<Waiter<Output>>> WatchJob(const CallContext&,
                                                           const v1::WatchJobRequest& request,
                                                           Wake wake) {
    if (request.name().empty()) return InvalidField("name", "must be set");
    absl::MutexLock lock(&mutex_);
    news_[request.name()].wakes.push_back(std::move(wake));
    return std::make_unique<Watching>(this, request.name());
  }

  absl::Mutex mutex_;
  std::map<std::string, News> news_ ABSL_GUARDED_BY(mutex_);
};

std::string ReasonOf(const grpc::Status& status) {
  google::rpc::Status details;
  details.ParseFromString(status.error_details());
  google::rpc::ErrorInfo info;
  for (const auto& detail : details.details()) {
    if (detail.UnpackTo(&info)) return info.reason();
  }
  return "";
}

class ReactorsTest : public testing::Test {
 protected:
  void Start(CallRuntimeOptions options = {}) {
    runtime_ = std::make_unique<CallRuntime>(&authenticator_, &metrics_, options);
    service_ = std::make_unique<FakeService>(runtime_.get());
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(service_.get());
    watches_ = std::make_unique<FakeWatchService>(runtime_.get());
    builder.RegisterService(watches_.get());
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    channel_ = grpc::CreateChannel("127.0.0.1:" + std::to_string(port),
                                   grpc::InsecureChannelCredentials());
    stub_ = v1::ArtifactService::NewStub(channel_);
    watch_stub_ = v1::JobService::NewStub(channel_);
  }

  // A client's stream and its first message.
  struct Watcher {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::WatchJobResponse>> reader;
    v1::WatchJobResponse response;
  };
  std::unique_ptr<Watcher> Watch(const std::string& name) {
    auto watcher = std::make_unique<Watcher>();
    v1::WatchJobRequest request;
    request.set_name(name);
    watcher->reader = watch_stub_->WatchJob(&watcher->context, request);
    return watcher;
  }

  void TearDown() override {
    if (server_ == nullptr) return;
    // Every call is over: a reactor that never finished would keep the runtime busy.
    EXPECT_TRUE(runtime_->WaitUntilIdle(absl::Now() + absl::Seconds(20)));
    server_->Shutdown();
  }

  grpc::Status Get(grpc::ClientContext* context) {
    v1::GetArtifactResponse response;
    return stub_->GetArtifact(context, {}, &response);
  }
  grpc::Status Get() {
    grpc::ClientContext context;
    return Get(&context);
  }

  void WaitForStop(const CallContext& context) {
    absl::Notification stopped;
    StopCallback stop(&context, [&] { stopped.Notify(); });
    stopped.WaitForNotification();
  }

  OpenAuthenticator authenticator_;
  observability::Metrics metrics_{"test"};
  std::unique_ptr<CallRuntime> runtime_;
  std::unique_ptr<FakeService> service_;
  std::unique_ptr<FakeWatchService> watches_;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::ArtifactService::Stub> stub_;
  std::unique_ptr<v1::JobService::Stub> watch_stub_;
};

TEST_F(ReactorsTest, TheHandlerKnowsItsCallerAndTheRequestIdComesBack) {
  Start();
  std::string seen;
  service_->get = [&](const CallContext& context, v1::GetArtifactResponse* response) {
    seen = context.tenant + "/" + context.request_id;
    EXPECT_LT(context.deadline, absl::InfiniteFuture());
    response->mutable_artifact()->set_name("artifacts/a");
    return absl::OkStatus();
  };
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "abc-1");
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  v1::GetArtifactResponse response;
  ASSERT_TRUE(stub_->GetArtifact(&context, {}, &response).ok());
  EXPECT_EQ(response.artifact().name(), "artifacts/a");
  EXPECT_EQ(seen, "default/abc-1");
  EXPECT_EQ(context.GetServerInitialMetadata().find("x-request-id")->second, "abc-1");
  EXPECT_EQ(context.GetServerTrailingMetadata().find("x-request-id")->second, "abc-1");
}

TEST_F(ReactorsTest, ACallWhoseMetadataNamesAnotherModelThanItsRequestIsRefused) {
  Start();
  v1::ListArtifactsRequest request;
  request.set_model("models/a");
  for (const std::string sent : {"", "models/a", "models/b"}) {
    grpc::ClientContext context;
    if (!sent.empty()) context.AddMetadata("x-valuescope-model", sent);
    v1::ListArtifactsResponse response;
    const grpc::Status status = stub_->ListArtifacts(&context, request, &response);
    const bool refused = sent == "models/b";
    EXPECT_EQ(status.error_code(),
              refused ? grpc::StatusCode::INVALID_ARGUMENT : grpc::StatusCode::OK)
        << sent;
    EXPECT_EQ(ReasonOf(status), refused ? "MODEL_METADATA_DIFFERS" : "");
  }
}

TEST_F(ReactorsTest, AnUnusableRequestIdIsReplaced) {
  Start();
  service_->get = [](const CallContext&, v1::GetArtifactResponse*) { return absl::OkStatus(); };
  for (const std::string& bad : {std::string(500, 'a'), std::string("a b")}) {
    grpc::ClientContext context;
    context.AddMetadata("x-request-id", bad);
    ASSERT_TRUE(Get(&context).ok());
    EXPECT_EQ(context.GetServerInitialMetadata().find("x-request-id")->second.size(), 36u);
  }
}

TEST_F(ReactorsTest, AnExceptionIsAnsweredInternalWithoutItsWordsAndTheServerGoesOn) {
  Start();
  service_->get = [](const CallContext&, v1::GetArtifactResponse*) -> absl::Status {
    throw std::runtime_error("secret");
  };
  const grpc::Status status = Get();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_THAT(status.error_message(), Not(HasSubstr("secret")));
  service_->get = [](const CallContext&, v1::GetArtifactResponse*) { return absl::OkStatus(); };
  EXPECT_TRUE(Get().ok());
  EXPECT_THAT(metrics_.Page({}),
              HasSubstr("code=\"INTERNAL\",method=\"ArtifactService.GetArtifact\""));
}

TEST_F(ReactorsTest, ACancelledCallReachesItsHandlerAndIsFinishedOnce) {
  Start();
  absl::Notification entered;
  service_->get = [&](const CallContext& context, v1::GetArtifactResponse*) {
    entered.Notify();
    WaitForStop(context);
    return context.Why();
  };
  grpc::ClientContext context;
  std::thread canceller([&] {
    entered.WaitForNotification();
    context.TryCancel();
  });
  EXPECT_EQ(Get(&context).error_code(), grpc::StatusCode::CANCELLED);
  canceller.join();
  EXPECT_TRUE(runtime_->WaitUntilIdle(absl::Now() + absl::Seconds(20)));
  EXPECT_EQ(service_->ended, 1);
}

TEST_F(ReactorsTest, ADeadlineStopsTheHandler) {
  Start();
  absl::Status why;
  service_->get = [&](const CallContext& context, v1::GetArtifactResponse*) {
    WaitForStop(context);
    why = context.Why();
    return why;
  };
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  EXPECT_EQ(Get(&context).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(runtime_->WaitUntilIdle(absl::Now() + absl::Seconds(20)));
  EXPECT_EQ(why.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ReactorsTest, AFullQueueRefusesAtOnceAndTheQuickLaneStaysOpen) {
  Start({.long_running = {.max_threads = 1, .max_queued = 0}});
  absl::Notification entered, release;
  service_->get = [&](const CallContext&, v1::GetArtifactResponse*) {
    entered.Notify();
    release.WaitForNotification();
    return absl::OkStatus();
  };
  std::thread first([&] { EXPECT_TRUE(Get().ok()); });
  entered.WaitForNotification();
  grpc::ClientContext context;
  const grpc::Status status = Get(&context);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ReasonOf(status), "QUEUE_FULL");
  EXPECT_EQ(context.GetServerTrailingMetadata().find("grpc-retry-pushback-ms")->second, "1000");
  grpc::ClientContext quick;
  v1::ListArtifactsResponse response;
  EXPECT_TRUE(stub_->ListArtifacts(&quick, {}, &response).ok());
  release.Notify();
  first.join();
}

TEST_F(ReactorsTest, AMethodThatNobodyServesSaysSo) {
  Start();
  grpc::ClientContext context;
  v1::DeleteArtifactResponse response;
  const grpc::Status status = stub_->DeleteArtifact(&context, {}, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(ReasonOf(status), "RPC_NOT_SERVED");
  EXPECT_THAT(status.error_message(), HasSubstr("ArtifactService.DeleteArtifact"));
}

TEST_F(ReactorsTest, AStreamComesInOrderAndItsErrorAfterItsMessages) {
  Start();
  service_->read = [](const CallContext&, StreamWriter<v1::ReadArtifactResponse>& writer) {
    for (int i = 0; i < 100; ++i) {
      v1::ReadArtifactResponse message;
      message.mutable_chunk()->set_offset(i);
      VS_RETURN_IF_ERROR(writer.Write(std::move(message)));
    }
    return ResourceNotFound("artifacts/a");
  };
  grpc::ClientContext context;
  const auto reader = stub_->ReadArtifact(&context, {});
  v1::ReadArtifactResponse message;
  int count = 0;
  while (reader->Read(&message)) EXPECT_EQ(message.chunk().offset(), count++);
  EXPECT_EQ(count, 100);
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ReactorsTest, AClientThatLeavesItsStreamStopsTheWriter) {
  Start();
  service_->read = [](const CallContext&, StreamWriter<v1::ReadArtifactResponse>& writer) {
    v1::ReadArtifactResponse message;
    message.mutable_chunk()->set_data(std::string(1 << 20, 'x'));
    while (true) VS_RETURN_IF_ERROR(writer.Write(message));
  };
  grpc::ClientContext context;
  const auto reader = stub_->ReadArtifact(&context, {});
  v1::ReadArtifactResponse message;
  EXPECT_TRUE(reader->Read(&message));
  context.TryCancel();
  while (reader->Read(&message)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(runtime_->WaitUntilIdle(absl::Now() + absl::Seconds(20)));
  EXPECT_EQ(service_->ended, 1);
}

TEST_F(ReactorsTest, AClientThatNeverReadsIsEndedAndHoldsABoundedOutbox) {
  Start({.stall_timeout = absl::Milliseconds(200)});
  std::atomic<int> written = 0;
  absl::Notification entered;
  absl::Status why;
  service_->read = [&](const CallContext&, StreamWriter<v1::ReadArtifactResponse>& writer) {
    entered.Notify();
    v1::ReadArtifactResponse message;
    message.mutable_chunk()->set_data(std::string(1 << 20, 'x'));
    while (true) {
      why = writer.Write(message);
      if (!why.ok()) return why;
      ++written;
    }
  };
  grpc::ClientContext context;
  const auto reader = stub_->ReadArtifact(&context, {});
  entered.WaitForNotification();
  ASSERT_TRUE(runtime_->WaitUntilIdle(absl::Now() + absl::Seconds(20)));
  EXPECT_EQ(DetailsOf(why).reason, "STREAM_STALLED");
  EXPECT_LT(written, 64);
  v1::ReadArtifactResponse message;
  while (reader->Read(&message)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
}

TEST_F(ReactorsTest, AnUploadIsReadToItsEnd) {
  Start();
  service_->write = [](const CallContext&, StreamReader<v1::WriteArtifactRequest>& reader,
                       v1::WriteArtifactResponse* response) -> absl::Status {
    int64_t size = 0;
    while (true) {
      VS_ASSIGN_OR_RETURN(std::optional<v1::WriteArtifactRequest> message, reader.Read());
      if (!message) break;
      size += static_cast<int64_t>(message->ByteSizeLong());
    }
    response->mutable_artifact()->set_size_bytes(size);
    return absl::OkStatus();
  };
  grpc::ClientContext context;
  v1::WriteArtifactResponse response;
  const auto writer = stub_->WriteArtifact(&context, &response);
  v1::WriteArtifactRequest message;
  message.mutable_chunk()->set_data(std::string(1000, 'x'));
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(writer->Write(message));
  writer->WritesDone();
  ASSERT_TRUE(writer->Finish().ok());
  EXPECT_EQ(response.artifact().size_bytes(), 50 * static_cast<int64_t>(message.ByteSizeLong()));
}

TEST_F(ReactorsTest, AnUploadCanBeRefusedBeforeItsEndAndAnIdleOneIsEnded) {
  Start({.stall_timeout = absl::Milliseconds(200)});
  service_->write = [](const CallContext&, StreamReader<v1::WriteArtifactRequest>& reader,
                       v1::WriteArtifactResponse*) -> absl::Status {
    VS_ASSIGN_OR_RETURN(std::optional<v1::WriteArtifactRequest> message, reader.Read());
    return InvalidField("sha256", "does not match");
  };
  v1::WriteArtifactResponse response;
  {
    grpc::ClientContext context;
    const auto writer = stub_->WriteArtifact(&context, &response);
    writer->Write({});
    EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  }
  grpc::ClientContext idle;
  const auto writer = stub_->WriteArtifact(&idle, &response);
  const grpc::Status status = writer->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(ReasonOf(status), "STREAM_STALLED");
}

TEST_F(ReactorsTest, ADrainLetsCallsFinishAndEndsTheRestWithUnavailable) {
  Start();
  absl::Notification entered;
  service_->read = [&](const CallContext& context,
                       StreamWriter<v1::ReadArtifactResponse>& writer) -> absl::Status {
    VS_RETURN_IF_ERROR(writer.Write({}));
    entered.Notify();
    WaitForStop(context);
    return absl::CancelledError();
  };
  grpc::ClientContext context;
  const auto reader = stub_->ReadArtifact(&context, {});
  entered.WaitForNotification();
  runtime_->StopAccepting();
  EXPECT_EQ(ReasonOf(Get()), "DRAINING");
  EXPECT_FALSE(runtime_->WaitUntilIdle(absl::Now() + absl::Milliseconds(50)));
  runtime_->StopRunning();
  v1::ReadArtifactResponse message;
  int count = 0;
  while (reader->Read(&message)) ++count;
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(count, 1);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ReasonOf(status), "DRAINING");
}

// A client that opens calls of a unary method by hand, as no stub does.
class ByHand {
 public:
  ByHand(const std::shared_ptr<grpc::Channel>& channel, const std::string& method)
      : stub_(channel), call_(stub_.PrepareCall(&context_, method, &queue_)) {
    call_->StartCall(this);
    Wait();
  }
  void SendEmptyMessage() {
    const grpc::Slice nothing;
    call_->Write(grpc::ByteBuffer(&nothing, 1), this);
    Wait();
  }
  void EndWithoutAMessage() {
    call_->WritesDone(this);
    Wait();
  }
  void Leave() {
    context_.TryCancel();
    Finish();
  }
  grpc::Status Finish() {
    grpc::Status status;
    call_->Finish(&status, this);
    Wait();
    return status;
  }

 private:
  void Wait() {
    void* tag = nullptr;
    bool ok = false;
    EXPECT_TRUE(queue_.Next(&tag, &ok));
  }

  grpc::CompletionQueue queue_;
  grpc::ClientContext context_;
  grpc::GenericStub stub_;
  const std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
};

constexpr char kGet[] = "/valuescope.v1.ArtifactService/GetArtifact";

TEST_F(ReactorsTest, ACallThatEndsWithoutAMessageIsTold) {
  Start();
  for (const char* method : {kGet, "/valuescope.v1.ArtifactService/ReadArtifact",
                             "/valuescope.v1.JobService/WatchJob"}) {
    ByHand client(channel_, method);
    client.EndWithoutAMessage();
    const grpc::Status status = client.Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << method;
    EXPECT_EQ(ReasonOf(status), "MESSAGE_MISSING") << method;
  }
}

TEST_F(ReactorsTest, CallsWhoseMessageIsStillToComeHearOfADrain) {
  Start({.receiving = {.max_fresh = 1, .fresh_time = absl::Hours(1)}});
  std::deque<ByHand> clients;
  // Of the first the message has begun to come, as far as the server knows.
  for (int i = 0; i < 3; ++i) clients.emplace_back(channel_, kGet);
  runtime_->StopAccepting();
  runtime_->StopRunning();
  for (ByHand& client : clients) EXPECT_EQ(ReasonOf(client.Finish()), "DRAINING");
  EXPECT_TRUE(runtime_->WaitUntilIdle(absl::Now() + absl::Seconds(20)));
}

TEST_F(ReactorsTest, AReplyThatNobodyTakesIsHeldForTheStallTimeoutOnly) {
  Start({.stall_timeout = absl::Milliseconds(50)});
  absl::Notification entered;
  service_->get = [&](const CallContext&, v1::GetArtifactResponse* response) {
    response->mutable_artifact()->set_name(std::string(size_t{3} << 20, 'a'));
    entered.Notify();
    return absl::OkStatus();
  };
  ByHand client(channel_, kGet);
  client.SendEmptyMessage();
  entered.WaitForNotification();
  // Nothing asks for the reply, so the connection takes the beginning of it and no more.
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  EXPECT_TRUE(runtime_->WaitUntilIdle(deadline));
  // A call counts as ended a moment before what it held is back.
  const auto all = *runtime_->memory()->Take(0);
  EXPECT_TRUE(all->GrowInTurn(runtime_->memory()->capacity(), deadline, [] { return false; }).ok());
  client.Leave();
}

TEST_F(ReactorsTest, WhatTakesMoreThanAllCallsMayHoldIsRefusedUnread) {
  Start({.call_bytes = 1 << 20});
  service_->get = [](const CallContext&, v1::GetArtifactResponse*) {
    ADD_FAILURE() << "it was read";
    return absl::OkStatus();
  };
  grpc::ClientContext context;
  v1::GetArtifactRequest request;
  request.set_name(std::string(size_t{2} << 20, 'a'));
  v1::GetArtifactResponse response;
  const grpc::Status status = stub_->GetArtifact(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ReasonOf(status), "REQUEST_TOO_LARGE");
  EXPECT_EQ(runtime_->memory()->used(), 0);
}

TEST_F(ReactorsTest, ACrowdOfWatchersTakesNoThreadAndHearsOfItsOwnJobOnly) {
  Start({.quick = {.max_threads = 1, .max_queued = 1},
         .long_running = {.max_threads = 1, .max_queued = 1},
         .waiting_threads = 1});
  service_->get = [](const CallContext&, v1::GetArtifactResponse*) { return absl::OkStatus(); };
  std::vector<std::unique_ptr<Watcher>> crowd;
  for (int i = 0; i < 300; ++i) {
    const std::string name = absl::StrCat("jobs/", i);
    watches_->Tell(name, 1);
    crowd.push_back(Watch(name));
  }
  for (const auto& watcher : crowd) ASSERT_TRUE(watcher->reader->Read(&watcher->response));
  EXPECT_TRUE(Get().ok());
  watches_->Tell("jobs/7", 2, /*last=*/true);
  ASSERT_TRUE(crowd[7]->reader->Read(&crowd[7]->response));
  EXPECT_EQ(crowd[7]->response.job().progress().done(), 2);
  EXPECT_FALSE(crowd[7]->reader->Read(&crowd[7]->response));
  EXPECT_TRUE(crowd[7]->reader->Finish().ok());
  runtime_->StopAccepting();
  for (size_t i = 0; i < crowd.size(); ++i) {
    if (i == 7) continue;
    EXPECT_FALSE(crowd[i]->reader->Read(&crowd[i]->response)) << "news of another";
    EXPECT_EQ(ReasonOf(crowd[i]->reader->Finish()), "DRAINING");
  }
}

TEST_F(ReactorsTest, AWatcherHearsTheLastNewsAgainWhileThereIsNone) {
  Start({.heartbeat = absl::Milliseconds(5)});
  watches_->Tell("jobs/a", 3);
  const auto watcher = Watch("jobs/a");
  ASSERT_TRUE(watcher->reader->Read(&watcher->response));
  EXPECT_FALSE(watcher->response.has_heartbeat());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(watcher->reader->Read(&watcher->response));
    EXPECT_TRUE(watcher->response.has_heartbeat());
    EXPECT_EQ(watcher->response.job().progress().done(), 3);
  }
  watches_->Tell("jobs/a", 4, /*last=*/true);
  while (watcher->reader->Read(&watcher->response)) {
  }
  EXPECT_EQ(watcher->response.job().progress().done(), 4);
  EXPECT_FALSE(watcher->response.has_heartbeat());
  EXPECT_TRUE(watcher->reader->Finish().ok());
}

TEST_F(ReactorsTest, AWatcherMayLeaveAtAnyTimeAndABadOneIsRefused) {
  Start({.heartbeat = absl::Milliseconds(1)});
  watches_->Tell("jobs/a", 1);
  for (int i = 0; i < 30; ++i) {
    const auto watcher = Watch("jobs/a");
    if (i % 3 > 0) {
      EXPECT_TRUE(watcher->reader->Read(&watcher->response));
    }
    if (i % 3 > 1) watches_->Tell("jobs/a", i);
    watcher->context.TryCancel();
    while (watcher->reader->Read(&watcher->response)) {
    }
    EXPECT_EQ(watcher->reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  const auto bad = Watch("");
  EXPECT_FALSE(bad->reader->Read(&bad->response));
  EXPECT_EQ(bad->reader->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ReactorsTest, ManyCancelledCallsOfEveryShapeAllEnd) {
  Start();
  service_->get = [&](const CallContext& context, v1::GetArtifactResponse*) {
    WaitForStop(context);
    return context.Why();
  };
  service_->read = [](const CallContext&, StreamWriter<v1::ReadArtifactResponse>& writer) {
    while (true) VS_RETURN_IF_ERROR(writer.Write({}));
  };
  service_->write = [](const CallContext&, StreamReader<v1::WriteArtifactRequest>& reader,
                       v1::WriteArtifactResponse*) { return reader.Read().status(); };
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 10; ++round) {
        grpc::ClientContext context;
        context.set_deadline(std::chrono::system_clock::now() +
                             std::chrono::milliseconds(1 + 7 * i));
        if (i % 3 == 0) {
          EXPECT_FALSE(Get(&context).ok());
        } else if (i % 3 == 1) {
          const auto reader = stub_->ReadArtifact(&context, {});
          v1::ReadArtifactResponse message;
          while (reader->Read(&message)) {
          }
          EXPECT_FALSE(reader->Finish().ok());
        } else {
          v1::WriteArtifactResponse response;
          const auto writer = stub_->WriteArtifact(&context, &response);
          EXPECT_FALSE(writer->Finish().ok());
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace valuescope::rpc
