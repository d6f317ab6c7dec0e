// Who calls by what they show, and what each role may do.
#include "rpc/credentials.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "grpc/health/v1/health.pb.h"
#include "grpc/reflection/v1alpha/reflection.pb.h"
#include "rpc/reflection.h"
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

namespace v1alpha = grpc::reflection::v1alpha;

// Of "abc".
constexpr char kLine[] =
    R"({"sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",)"
    R"( "tenant": "lab", "role": "user", "name": "ci"})";

class ShowingPeer : public Peer {
 public:
  CallMetadata metadata() const override { return metadata_; }
  std::optional<std::string> certificate_uri() const override { return uri_; }
  absl::Time deadline() const override { return absl::InfiniteFuture(); }
  void AddInitialMetadata(const std::string&, const std::string&) override {}
  void AddTrailingMetadata(const std::string&, const std::string&) override {}
  void TryCancel() override {}
  void Finish(const absl::Status&) override {}

  CallMetadata metadata_;
  std::optional<std::string> uri_;
};

class CredentialsTest : public testing::Test {
 protected:
  CredentialsTest() {
    const std::string path = absl::StrCat(testing::TempDir(), "/credentials_", ::getpid());
    std::ofstream(path) << kLine;
    tokens_.emplace(path);
    EXPECT_TRUE(tokens_->Read().ok());
    std::filesystem::remove(path);
  }

  // The reason of the refusal; empty where there is none.
  static std::string Refused(const Authenticator& authenticator, const ShowingPeer& peer) {
    const auto caller = authenticator.Authenticate(peer);
    if (caller.ok()) return "";
    EXPECT_EQ(caller.status().code(), absl::StatusCode::kUnauthenticated);
    return DetailsOf(caller.status()).reason;
  }

  std::optional<TokenFile> tokens_;
};

TEST_F(CredentialsTest, ATokenTellsTenantRoleAndName) {
  const CredentialsAuthenticator authenticator(&*tokens_);
  for (const char* shown : {"Bearer abc", "bearer abc", "BEARER abc"}) {
    ShowingPeer peer;
    peer.metadata_.emplace("authorization", shown);
    const auto caller = authenticator.Authenticate(peer);
    ASSERT_TRUE(caller.ok()) << caller.status();
    EXPECT_EQ(*caller, (Caller{.tenant = "lab", .role = Role::kUser, .name = "ci"}));
  }
}

TEST_F(CredentialsTest, WhatIsNoTokenIsRefused) {
  const CredentialsAuthenticator authenticator(&*tokens_);
  EXPECT_EQ(Refused(authenticator, {}), "CREDENTIALS_MISSING");
  const std::string long_one = absl::StrCat("Bearer ", std::string(1 << 16, 'a'));
  for (const auto& [shown, reason] :
       {std::pair<std::string, std::string>{"", "CREDENTIALS_MISSING"},
        {"abc", "CREDENTIALS_MISSING"},
        {"Basic abc", "CREDENTIALS_MISSING"},
        {"Bearer", "CREDENTIALS_MISSING"},
        {"Bearer ", "TOKEN_UNKNOWN"},
        {"Bearer  abc", "TOKEN_UNKNOWN"},
        {"Bearer abc ", "TOKEN_UNKNOWN"},
        {"Bearer abd", "TOKEN_UNKNOWN"},
        {long_one, "TOKEN_UNKNOWN"}}) {
    ShowingPeer peer;
    peer.metadata_.emplace("authorization", shown);
    EXPECT_EQ(Refused(authenticator, peer), reason) << shown.substr(0, 20);
  }
  ShowingPeer twice;
  twice.metadata_.emplace("authorization", "Bearer abc");
  twice.metadata_.emplace("authorization", "Bearer abc");
  EXPECT_EQ(Refused(authenticator, twice), "TOKEN_UNKNOWN");
}

TEST_F(CredentialsTest, ACertificateTellsTenantAndRole) {
  ShowingPeer peer;
  peer.uri_ = "spiffe://lab.example/tenant/psychology/role/reader";
  for (const TokenFile* tokens :
       {static_cast<const TokenFile*>(&*tokens_), static_cast<const TokenFile*>(nullptr)}) {
    const auto caller = CredentialsAuthenticator(tokens).Authenticate(peer);
    ASSERT_TRUE(caller.ok()) << caller.status();
    EXPECT_EQ(*caller, (Caller{.tenant = "psychology", .role = Role::kReader}));
  }
  // Whoever sends a token is who it says, and nobody where it is none.
  peer.metadata_.emplace("authorization", "Bearer abc");
  EXPECT_EQ(CredentialsAuthenticator(&*tokens_).Authenticate(peer)->tenant, "lab");
  EXPECT_EQ(Refused(CredentialsAuthenticator(nullptr), peer), "TOKEN_UNKNOWN");
  peer.metadata_ = {{"authorization", "Bearer wrong"}};
  EXPECT_EQ(Refused(CredentialsAuthenticator(&*tokens_), peer), "TOKEN_UNKNOWN");
}

TEST_F(CredentialsTest, ACertificateWithAnotherUriNamesNobody) {
  for (const char* uri :
       {"", "spiffe://", "spiffe://lab", "https://lab/tenant/a/role/user",
        "spiffe:///tenant/a/role/user", "spiffe://lab/tenant/a", "spiffe://lab/tenant/a/role/",
        "spiffe://lab/tenant/a/role/root", "spiffe://lab/tenant//role/user",
        "spiffe://lab/tenant/../role/user", "spiffe://lab/tenant/shared/role/admin",
        "spiffe://lab/tenant/a/role/user/", "spiffe://lab/role/user/tenant/a",
        "spiffe://lab/x/tenant/a/role/user"}) {
    ShowingPeer peer;
    peer.uri_ = uri;
    EXPECT_EQ(Refused(CredentialsAuthenticator(nullptr), peer), "CERTIFICATE_NAMES_NOBODY") << uri;
  }
}

TEST(RolesTest, EachHasItsName) {
  for (const Role role : {Role::kReader, Role::kUser, Role::kAdmin}) {
    EXPECT_EQ(RoleOfName(NameOf(role)), role);
  }
  for (const char* other : {"", "Reader", "root", "admin "})
    EXPECT_EQ(RoleOfName(other), std::nullopt);
}

const google::protobuf::ServiceDescriptor& ServiceOf(const google::protobuf::Descriptor* message) {
  return *message->file()->service(0);
}

// What a name promises, said without the table: what looks is a reader's, and the rest is not.
bool IsReadersByItsName(const std::string& method) {
  static const auto* verbs = new std::set<std::string>{"Get",    "List",     "Read",       "Watch",
                                                       "Export", "Tokenize", "Detokenize", "Query"};
  static const auto* others = new std::set<std::string>{"CompareVectors", "CompareNeuronSets",
                                                        "Check", "ServerReflectionInfo"};
  return others->contains(method) ||
         std::any_of(verbs->begin(), verbs->end(),
                     [&](const auto& verb) { return absl::StartsWith(method, verb); });
}

TEST(RolesTest, TokensAreCountedOfWhatHasModelsRun) {
  for (const absl::string_view method :
       {"GenerationService.StreamGenerate", "NeuronService.AttributeNeurons",
        "EvaluationService.MeasureTexts", "VectorService.ExtractVectors"}) {
    EXPECT_TRUE(RunsModels(method)) << method;
  }
  for (const absl::string_view method :
       {"VectorService.CompareVectors", "JobService.CreateJob", "Health.Check", ""}) {
    EXPECT_FALSE(RunsModels(method)) << method;
  }
}

TEST(RolesTest, EveryRpcOfEveryDescriptorHasALeastRole) {
  int walked = 0;
  for (const google::protobuf::Descriptor* message :
       {v1::CaptureRequest::descriptor(), v1::GetArtifactRequest::descriptor(),
        v1::MeasureTextsRequest::descriptor(), v1::GenerateRequest::descriptor(),
        v1::GetJobRequest::descriptor(), v1::GetModelRequest::descriptor(),
        v1::GetNeuronSetRequest::descriptor(), v1::GetVectorRequest::descriptor(),
        v1::QueryUsageRequest::descriptor(), grpc::health::v1::HealthCheckRequest::descriptor(),
        v1alpha::ServerReflectionRequest::descriptor()}) {
    const auto& service = ServiceOf(message);
    for (int i = 0; i < service.method_count(); ++i, ++walked) {
      const std::string& method = service.method(i)->name();
      const auto least = LeastRole(absl::StrCat(service.name(), ".", method));
      ASSERT_TRUE(least.has_value()) << service.name() << "." << method;
      EXPECT_EQ(*least == Role::kReader, IsReadersByItsName(method)) << method;
      EXPECT_EQ(*least == Role::kAdmin, method == "LoadModel" || method == "UnloadModel") << method;
    }
  }
  EXPECT_GT(walked, 50);
  EXPECT_EQ(LeastRole("ModelService.Reboot"), std::nullopt);
  EXPECT_EQ(LeastRole(""), std::nullopt);
}

TEST(ReflectionTest, ListsServicesAndGivesTheFilesThatDescribeThem) {
  v1alpha::ServerReflectionRequest request;
  request.set_host("host");
  request.set_list_services("");
  auto answer = Reflect(request, {"a.B", "c.D"});
  EXPECT_EQ(answer.valid_host(), "host");
  ASSERT_EQ(answer.list_services_response().service_size(), 2);
  EXPECT_EQ(answer.list_services_response().service(1).name(), "c.D");
  for (const bool by_name : {false, true}) {
    if (by_name) {
      request.set_file_by_filename("valuescope/v1/jobs.proto");
    } else {
      request.set_file_containing_symbol("valuescope.v1.JobService.GetJob");
    }
    answer = Reflect(request, {});
    std::set<std::string> files;
    for (const std::string& bytes : answer.file_descriptor_response().file_descriptor_proto()) {
      google::protobuf::FileDescriptorProto file;
      ASSERT_TRUE(file.ParseFromString(bytes));
      EXPECT_TRUE(files.insert(file.name()).second) << file.name();
    }
    EXPECT_TRUE(files.contains("valuescope/v1/jobs.proto"));
    EXPECT_TRUE(files.contains("valuescope/v1/common.proto"));
  }
  request.set_file_containing_symbol("valuescope.v1.Nothing");
  EXPECT_EQ(Reflect(request, {}).error_response().error_code(), 5);  // NOT_FOUND
}

}  // namespace
}  // namespace valuescope::rpc
