// Files of vectors up and down: whole and checked, or an error.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

constexpr size_t kPart = 10;

class FileServer : public v1::VectorService::Service {
 public:
  grpc::Status ExportVectors(grpc::ServerContext*, const v1::ExportVectorsRequest*,
                             grpc::ServerWriter<v1::ExportVectorsResponse>* writer) override {
    for (size_t offset = 0; offset + cut < bytes.size(); offset += kPart) {
      v1::ExportVectorsResponse part;
      part.set_offset(static_cast<int64_t>(offset));
      part.set_data(bytes.substr(offset, kPart));
      part.set_crc32c(Crc32c(part.data()) ^ (damage ? 1u : 0u));
      part.set_total_bytes(static_cast<int64_t>(bytes.size()));
      writer->Write(part);
    }
    return grpc::Status::OK;
  }
  grpc::Status ImportVectors(grpc::ServerContext*,
                             grpc::ServerReader<v1::ImportVectorsRequest>* reader,
                             v1::ImportVectorsResponse* response) override {
    v1::ImportVectorsRequest part;
    std::string received;
    while (reader->Read(&part)) {
      if (part.has_header()) {
        headers.push_back(part.header());
        if (headers.size() == 1 && refuses_first) return {grpc::StatusCode::UNAVAILABLE, "gone"};
      } else {
        received += part.data();
      }
    }
    response->add_vectors()->set_digest(Sha256Hex(received));
    return grpc::Status::OK;
  }

  std::string bytes;
  size_t cut = 0;  // bytes that are missing at the end
  bool damage = false;
  bool refuses_first = false;
  std::vector<v1::ImportVectorsHeader> headers;
};

class VectorFilesTest : public ::testing::Test {
 protected:
  absl::Status Export(std::string* read) {
    return client_.ExportVectors({}, [read](const std::string& part) {
      *read += part;
      return absl::OkStatus();
    });
  }

  FileServer service_;
  FakeServer server_{&service_};
  Client client_{server_.address(), {.clock = std::make_shared<NotingClock>()}};
};

TEST_F(VectorFilesTest, ReadsAFileInOrder) {
  service_.bytes = "a file of vectors, in five parts or so";
  std::string read;
  EXPECT_TRUE(Export(&read).ok());
  EXPECT_EQ(read, service_.bytes);
}

TEST_F(VectorFilesTest, AFileThatIsDamagedOrCutOffIsAnError) {
  service_.bytes = "a file of vectors, in five parts or so";
  std::string read;
  service_.cut = kPart;
  EXPECT_EQ(Export(&read).code(), absl::StatusCode::kDataLoss);
  service_.cut = 0;
  service_.damage = true;
  EXPECT_EQ(Export(&read).code(), absl::StatusCode::kDataLoss);
}

TEST_F(VectorFilesTest, StopsWhereTheReaderHasEnough) {
  service_.bytes = std::string(3 * kPart, 'a');
  int parts = 0;
  const absl::Status status = client_.ExportVectors({}, [&](const std::string&) {
    ++parts;
    return absl::ResourceExhaustedError("disk full");
  });
  EXPECT_EQ(status, absl::ResourceExhaustedError("disk full"));
  EXPECT_EQ(parts, 1);
}

TEST_F(VectorFilesTest, SendsAFileWithItsSizeAndDigestAgainUnderTheSameRequestId) {
  service_.refuses_first = true;
  std::string bytes((size_t{5} << 19) + 3, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 >> 3);
  const auto response = client_.ImportVectors(bytes, {});
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->vectors(0).digest(), Sha256Hex(bytes));
  ASSERT_THAT(service_.headers, SizeIs(2));
  for (const v1::ImportVectorsHeader& header : service_.headers) {
    EXPECT_EQ(header.sha256(), Sha256Hex(bytes));
    EXPECT_EQ(header.size_bytes(), static_cast<int64_t>(bytes.size()));
    EXPECT_EQ(header.request_id(), service_.headers[0].request_id());
    EXPECT_THAT(header.request_id(), SizeIs(36));
  }
}

}  // namespace
}  // namespace valuescope
