// Artifacts in checked chunks, over connections that break off and bytes that are damaged.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/crc32c.h"
#include "base/sha256.h"
#include "tests/client_cpp/fake_server.h"
#include "valuescope/client.h"

namespace valuescope {
namespace {

using ::testing::SizeIs;

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
  // The same of a table; without its end where `cut`.
  grpc::Status ReadTable(grpc::ServerContext*, const v1::ReadTableRequest* request,
                         grpc::ServerWriter<v1::ReadTableResponse>* writer) override {
    ++reads;
    const auto size = static_cast<int64_t>(bytes.size());
    v1::ReadTableResponse part;
    part.mutable_chunk()->set_offset(request->offset());
    part.mutable_chunk()->set_data(bytes.substr(static_cast<size_t>(request->offset()), 30));
    part.mutable_chunk()->set_crc32c(Crc32c(part.chunk().data()));
    writer->Write(part);
    if (request->offset() + 30 < size) return {grpc::StatusCode::UNAVAILABLE, "gone"};
    if (cut) return grpc::Status::OK;
    v1::ReadTableResponse last;
    last.mutable_end()->set_rows(7);
    last.mutable_end()->set_size_bytes(size);
    last.mutable_end()->set_sha256(digest);
    writer->Write(last);
    return grpc::Status::OK;
  }
  grpc::Status WriteArtifact(grpc::ServerContext*,
                             grpc::ServerReader<v1::WriteArtifactRequest>* reader,
                             v1::WriteArtifactResponse* response) override {
    v1::WriteArtifactRequest part;
    std::string received;
    while (reader->Read(&part)) {
      if (part.has_header()) {
        header = part.header();
        request_ids.push_back(header.request_id());
        if (refusals-- > 0) return {grpc::StatusCode::UNAVAILABLE, "draining"};
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
  bool cut = false;
  bool damage = false;
  std::atomic<int> reads{0};
  std::atomic<int> refusals{0};
  v1::WriteArtifactHeader header;
  std::vector<std::string> request_ids;
};

class ArtifactsTest : public ::testing::Test {
 protected:
  BreakingArtifacts service_;
  FakeServer server_{&service_};
  std::shared_ptr<NotingClock> clock_ = std::make_shared<NotingClock>();
  Client client_{server_.address(), {.clock = clock_}};
};

TEST_F(ArtifactsTest, ReadsAnArtifactOnWhereItsStreamBrokeOff) {
  for (int i = 0; i < 73; ++i) service_.bytes += static_cast<char>('a' + i % 26);
  service_.digest = Sha256Hex(service_.bytes);
  std::string read;
  const auto artifact = client_.ReadArtifact("artifacts/x", [&](const std::string& part) {
    read += part;
    return absl::OkStatus();
  });
  ASSERT_TRUE(artifact.ok()) << artifact.status();
  EXPECT_EQ(read, service_.bytes);
  EXPECT_EQ(service_.reads, 4);
  EXPECT_THAT(clock_->waits(), SizeIs(3));
}

TEST_F(ArtifactsTest, ReadsATableOnWhereItsStreamBrokeOffAndToItsEnd) {
  for (int i = 0; i < 73; ++i) service_.bytes += static_cast<char>('a' + i % 26);
  service_.digest = Sha256Hex(service_.bytes);
  v1::ReadTableRequest request;
  request.set_artifact("artifacts/x");
  std::string read;
  const auto sink = [&](const std::string& part) {
    read += part;
    return absl::OkStatus();
  };
  const auto end = client_.ReadTable(request, sink);
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(end->rows(), 7);
  EXPECT_EQ(read, service_.bytes);
  EXPECT_EQ(service_.reads, 3);
  service_.cut = true;
  EXPECT_EQ(client_.ReadTable(request, sink).status().code(), absl::StatusCode::kDataLoss);
  service_.cut = false;
  service_.digest = Sha256Hex("other bytes");
  EXPECT_EQ(client_.ReadTable(request, sink).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(ArtifactsTest, RefusesDamagedBytes) {
  service_.bytes = "some bytes";
  service_.digest = Sha256Hex("other bytes");
  const auto ignore = [](const std::string&) { return absl::OkStatus(); };
  EXPECT_EQ(client_.ReadArtifact("artifacts/x", ignore).status().code(),
            absl::StatusCode::kDataLoss);
  service_.damage = true;
  EXPECT_EQ(client_.ReadArtifact("artifacts/x", ignore).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST_F(ArtifactsTest, SendsAnArtifactWithItsSizeItsDigestsAndARequestId) {
  std::string bytes((size_t{5} << 19) + 3, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 >> 3);
  const auto artifact = client_.WriteArtifact(bytes, {});
  ASSERT_TRUE(artifact.ok()) << artifact.status();
  EXPECT_EQ(artifact->sha256(), Sha256Hex(bytes));
  EXPECT_EQ(service_.header.sha256(), Sha256Hex(bytes));
  EXPECT_EQ(service_.header.size_bytes(), static_cast<int64_t>(bytes.size()));
  EXPECT_THAT(service_.header.request_id(), SizeIs(36));
}

TEST_F(ArtifactsTest, StopsWhereTheReaderHasEnough) {
  service_.bytes = std::string(73, 'a');
  service_.digest = Sha256Hex(service_.bytes);
  const auto full = [](const std::string&) { return absl::ResourceExhaustedError("disk full"); };
  EXPECT_EQ(client_.ReadArtifact("artifacts/x", full).status(),
            absl::ResourceExhaustedError("disk full"));
  EXPECT_EQ(service_.reads, 1);
}

TEST_F(ArtifactsTest, SendsAnArtifactAgainUnderTheSameRequestId) {
  service_.refusals = 1;
  const auto artifact = client_.WriteArtifact("some bytes", {});
  ASSERT_TRUE(artifact.ok()) << artifact.status();
  EXPECT_EQ(artifact->sha256(), Sha256Hex("some bytes"));
  ASSERT_THAT(service_.request_ids, SizeIs(2));
  EXPECT_EQ(service_.request_ids[0], service_.request_ids[1]);
}

}  // namespace
}  // namespace valuescope
