// The client against a server that misbehaves: full queues, vanishing connections, damaged chunks.
#include "valuescope/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>

#include "base/crc32c.h"
#include "base/sha256.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace valuescope {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

grpc::Status Busy() {
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_nanos(1'000'000);
  google::rpc::Status rich;
  rich.set_code(grpc::StatusCode::RESOURCE_EXHAUSTED);
  rich.add_details()->PackFrom(retry);
  return {grpc::StatusCode::RESOURCE_EXHAUSTED, "full", rich.SerializeAsString()};
}

grpc::Status BadField() {
  google::rpc::BadRequest bad;
  auto* violation = bad.add_field_violations();
  violation->set_field("sampling.top_p");
  violation->set_description("allowed range");
  google::rpc::ErrorInfo info;
  info.set_reason("OUT_OF_RANGE");
  google::rpc::Status rich;
  rich.add_details()->PackFrom(bad);
  rich.add_details()->PackFrom(info);
  return {grpc::StatusCode::INVALID_ARGUMENT, "bad", rich.SerializeAsString()};
}

class MoodyModels : public v1::ModelService::Service {
 public:
  grpc::Status GetModel(grpc::ServerContext*, const v1::GetModelRequest* request,
                        v1::GetModelResponse* response) override {
    ++calls;
    if (refusals-- > 0) return refusal;
    response->mutable_model()->set_name(request->name());
    return grpc::Status::OK;
  }
  std::atomic<int> calls{0};
  std::atomic<int> refusals{0};
  grpc::Status refusal;
};

class BreakingArtifacts : public v1::ArtifactService::Service {
 public:
  grpc::Status GetArtifact(grpc::ServerContext*, const v1::GetArtifactRequest* request,
                           v1::GetArtifactResponse* response) override {
    response->mutable_artifact()->set_name(request->name());
    response->mutable_artifact()->set_size_bytes(static_cast<int64_t>(bytes.size()));
    response->mutable_artifact()->set_sha256(digest);
    return grpc::Status::OK;
  }
  // Sends two chunks of ten bytes a call, then breaks off; the caller has to come back for the
  // rest.
  grpc::Status ReadArtifact(grpc::ServerContext*, const v1::ReadArtifactRequest* request,
                            grpc::ServerWriter<v1::ReadArtifactResponse>* writer) override {
    ++reads;
    int64_t offset = request->offset();
    for (int chunk = 0; chunk < 2 && offset < static_cast<int64_t>(bytes.size()); ++chunk) {
      v1::ReadArtifactResponse part;
      part.mutable_chunk()->set_offset(offset);
      part.mutable_chunk()->set_data(bytes.substr(static_cast<size_t>(offset), 10));
      part.mutable_chunk()->set_crc32c(Crc32c(part.chunk().data()) ^ (damage ? 1u : 0u));
      offset += 10;
      writer->Write(part);
    }
    return offset < static_cast<int64_t>(bytes.size())
               ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone")
               : grpc::Status::OK;
  }
  grpc::Status WriteArtifact(grpc::ServerContext*,
                             grpc::ServerReader<v1::WriteArtifactRequest>* reader,
                             v1::WriteArtifactResponse* response) override {
    v1::WriteArtifactRequest part;
    std::string received;
    while (reader->Read(&part)) {
      if (part.has_header()) {
        header = part.header();
      } else if (part.chunk().crc32c() == Crc32c(part.chunk().data()) &&
                 part.chunk().offset() == static_cast<int64_t>(received.size())) {
        received += part.chunk().data();
      }
    }
    response->mutable_artifact()->set_sha256(Sha256Hex(received));
    return grpc::Status::OK;
  }

  std::string bytes;
  std::string digest;
  bool damage = false;
  std::atomic<int> reads{0};
  v1::WriteArtifactHeader header;
};

class ClientTest : public ::testing::Test {
 protected:
  ClientTest() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&models_);
    builder.RegisterService(&artifacts_);
    server_ = builder.BuildAndStart();
    client_ = std::make_unique<Client>("127.0.0.1:" + std::to_string(port));
  }

  MoodyModels models_;
  BreakingArtifacts artifacts_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Client> client_;
};

TEST_F(ClientTest, ComesBackToAFullServerAfterTheDelayItNamed) {
  models_.refusals = 2;
  models_.refusal = Busy();
  v1::GetModelRequest request;
  request.set_name("models/x");
  const auto response = client_->GetModel(request);
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->model().name(), "models/x");
  EXPECT_EQ(models_.calls, 3);
}

TEST_F(ClientTest, GivesUpInTheEndAndSaysWhy) {
  models_.refusals = 100;
  models_.refusal = Busy();
  const auto response = client_->GetModel({});
  EXPECT_EQ(response.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorDetailsOf(response.status()).retry_after, absl::Milliseconds(1));
  EXPECT_EQ(models_.calls, 5);
}

TEST_F(ClientTest, DoesNotRepeatWhatCanNeverWorkAndShowsTheField) {
  models_.refusals = 1;
  models_.refusal = BadField();
  const auto response = client_->GetModel({});
  EXPECT_EQ(models_.calls, 1);
  const ErrorDetails details = ErrorDetailsOf(response.status());
  EXPECT_EQ(details.reason, "OUT_OF_RANGE");
  ASSERT_THAT(details.violations, SizeIs(1));
  EXPECT_EQ(details.violations[0].field, "sampling.top_p");
}

TEST_F(ClientTest, ReadsAnArtifactOnWhereItsStreamBrokeOff) {
  for (int i = 0; i < 73; ++i) artifacts_.bytes += static_cast<char>('a' + i % 26);
  artifacts_.digest = Sha256Hex(artifacts_.bytes);
  std::string read;
  const auto artifact = client_->ReadArtifact("artifacts/x", [&](const std::string& part) {
    read += part;
    return absl::OkStatus();
  });
  ASSERT_TRUE(artifact.ok()) << artifact.status();
  EXPECT_EQ(read, artifacts_.bytes);
  EXPECT_EQ(artifacts_.reads, 4);
}

TEST_F(ClientTest, RefusesDamagedBytes) {
  artifacts_.bytes = "some bytes";
  artifacts_.digest = Sha256Hex("other bytes");
  const auto ignore = [](const std::string&) { return absl::OkStatus(); };
  EXPECT_EQ(client_->ReadArtifact("artifacts/x", ignore).status().code(),
            absl::StatusCode::kDataLoss);
  artifacts_.damage = true;
  EXPECT_EQ(client_->ReadArtifact("artifacts/x", ignore).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST_F(ClientTest, SendsAnArtifactWithItsSizeItsDigestsAndARequestId) {
  std::string bytes((size_t{5} << 19) + 3, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 >> 3);
  const auto artifact = client_->WriteArtifact(bytes, {});
  ASSERT_TRUE(artifact.ok()) << artifact.status();
  EXPECT_EQ(artifact->sha256(), Sha256Hex(bytes));
  EXPECT_EQ(artifacts_.header.sha256(), Sha256Hex(bytes));
  EXPECT_EQ(artifacts_.header.size_bytes(), static_cast<int64_t>(bytes.size()));
  EXPECT_THAT(artifacts_.header.request_id(), SizeIs(36));
}

TEST(Tensors, GoThereAndBack) {
  const std::vector<float> elements = {1, -2, 3, 4, 5, 6};
  const auto tensor = MakeTensor(elements, {2, 3});
  ASSERT_TRUE(tensor.ok());
  EXPECT_THAT(tensor->shape(), ElementsAre(2, 3));
  EXPECT_EQ(*TensorElements(*tensor), elements);
  EXPECT_FALSE(MakeTensor(elements, {2, 2}).ok());
  EXPECT_FALSE(MakeTensor(elements, {-2, -3}).ok());
  v1::Tensor cut = *tensor;
  cut.mutable_data()->pop_back();
  EXPECT_FALSE(TensorElements(cut).ok());
}

}  // namespace
}  // namespace valuescope
