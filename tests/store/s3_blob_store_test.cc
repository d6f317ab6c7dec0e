// What blobs in an S3 store have beside what all blob stores do: an unreliable other side.
#include "store/s3_blob_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/thread_cancellation.h"
#include "store/s3_credentials.h"
#include "tests/store/fake_s3.h"

namespace valuescope::store {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class S3BlobStoreTest : public testing::Test {
 protected:
  void SetUp() override { blobs_ = Open(fake_.Options()); }

  std::unique_ptr<BlobStore> Open(S3Options options) {
    options.on_exchange = [this](const S3Exchange& exchange) {
      absl::MutexLock lock(&mutex_);
      exchanges_.push_back(exchange);
    };
    auto opened = OpenS3BlobStore(std::move(options));
    EXPECT_TRUE(opened.ok()) << opened.status();
    return *std::move(opened);
  }

  // One that is not patient.
  std::unique_ptr<BlobStore> OpenHasty() {
    S3Options options = fake_.Options();
    options.patience = absl::Milliseconds(20);
    return Open(std::move(options));
  }

  void Rule(json rule) {
    rule["do"] = "rule";
    fake_.Tell(rule);
  }

  std::vector<S3Exchange> Exchanges() {
    absl::MutexLock lock(&mutex_);
    return exchanges_;
  }

  static std::string KeyOf(const std::string& digest) {
    return absl::StrCat("lab/values/", digest.substr(0, 2), "/", digest);
  }

  FakeS3& fake_ = FakeS3::Anew();
  std::unique_ptr<BlobStore> blobs_;
  absl::Mutex mutex_;
  std::vector<S3Exchange> exchanges_ ABSL_GUARDED_BY(mutex_);
};

TEST_F(S3BlobStoreTest, KeysAreThoseOfADirectoryOfBlobs) {
  const std::string digest = WriteBlob(*blobs_, "bytes")->digest;
  EXPECT_THAT(fake_.Keys(), testing::ElementsAre(KeyOf(digest)));
}

TEST_F(S3BlobStoreTest, TheBucketMayStandInTheHost) {
  S3Options options = fake_.Options();
  options.endpoint = absl::StrCat("http://localhost", options.endpoint.substr(16));
  options.bucket_in_host = true;
  const auto store = Open(options);
  const std::string bytes(2500, 'x');
  const std::string digest = WriteBlob(*store, bytes)->digest;
  EXPECT_EQ(*ReadBlob(*store, digest, 10'000), bytes);
  EXPECT_EQ(*ReadBlob(*blobs_, digest, 10'000), bytes);
}

TEST_F(S3BlobStoreTest, WhatMayPassIsTriedAgain) {
  const std::string large(2500, 'x');
  for (json rule :
       std::initializer_list<json>{{{"how", "error"}, {"status", 503}, {"code", "SlowDown"}},
                                   {{"how", "error"}, {"status", 500}, {"code", "InternalError"}},
                                   {{"how", "error"}, {"status", 429}, {"code", "TooManyRequests"}},
                                   {{"how", "error"}, {"status", 400}, {"code", "RequestTimeout"}},
                                   {{"how", "error"}, {"status", 400}, {"code", "BadDigest"}},
                                   {{"how", "lost"}}}) {
    for (const char* method : {"PUT", "POST", "GET", "HEAD"}) {
      // What has no content cannot say which 400 it is.
      if (rule.value("status", 0) == 400 && method == std::string("HEAD")) continue;
      rule["method"] = method;
      rule["times"] = 2;
      Rule(rule);
      const auto blob = WriteBlob(*blobs_, absl::StrCat(large, rule.dump()));
      ASSERT_TRUE(blob.ok()) << rule << blob.status();
      ASSERT_TRUE(ReadBlob(*blobs_, blob->digest, 10'000).ok()) << rule;
    }
  }
  // Of an upload whose id was lost nobody knows but who sweeps.
  EXPECT_EQ(fake_.Tell({{"do", "uploads"}}).size(), 2u);
}

TEST_F(S3BlobStoreTest, AReadThatIsCutGoesOnWhereItStopped) {
  const std::string bytes(900, 'x');
  const std::string digest = WriteBlob(*blobs_, bytes)->digest;
  Rule({{"method", "GET"}, {"how", "cut"}, {"times", 3}});
  EXPECT_EQ(*ReadBlob(*blobs_, digest, 1000), bytes);
  int64_t received = 0;
  for (const S3Exchange& exchange : Exchanges()) {
    if (exchange.operation == "get") received += exchange.received;
  }
  EXPECT_EQ(received, 900);
}

TEST_F(S3BlobStoreTest, WhoDoesNotAnswerIsLeftAndAskedAgain) {
  const std::string digest = WriteBlob(*blobs_, "bytes")->digest;
  Rule({{"method", "GET"}, {"how", "hang"}});
  EXPECT_EQ(*blobs_->Read(digest, 0, 5), "bytes");
  EXPECT_EQ(Exchanges().back().http_status, 206);
  EXPECT_TRUE(Exchanges().back().again);
}

TEST_F(S3BlobStoreTest, PatienceEnds) {
  const auto hasty = OpenHasty();
  Rule({{"how", "error"}, {"status", 503}, {"code", "SlowDown"}, {"times", 1000}});
  const absl::Status status = WriteBlob(*hasty, "bytes").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(DetailsOf(status).reason, "STORAGE_UNREACHABLE");
  EXPECT_THAT(std::string(status.message()), HasSubstr("HTTP 503 SlowDown"));
  fake_.Tell({{"do", "rules"}});
  EXPECT_TRUE(WriteBlob(*hasty, "bytes").ok()) << "it goes on afterwards";
}

TEST_F(S3BlobStoreTest, WhoStopsRetryingWaitsForNothing) {
  S3Options options = fake_.Options();
  options.patience = absl::Hours(1);
  options.first_pause = absl::Minutes(10);
  const auto patient = Open(std::move(options));
  Rule({{"how", "error"}, {"status", 503}, {"code", "SlowDown"}, {"times", 1000}});
  absl::Status status;
  std::thread writer([&] { status = WriteBlob(*patient, "bytes").status(); });
  patient->StopRetrying();
  writer.join();
  EXPECT_EQ(DetailsOf(status).reason, "STORAGE_UNREACHABLE");
}

TEST_F(S3BlobStoreTest, WorkThatIsCancelledLeavesAStoreThatDoesNotAnswer) {
  S3Options options = fake_.Options();
  options.longest_stall = options.patience = absl::Hours(1);
  const auto patient = Open(std::move(options));
  const std::string digest = WriteBlob(*patient, "bytes")->digest;
  Rule({{"how", "hang"}, {"times", 1000}});
  for (const std::function<absl::Status()>& call :
       std::initializer_list<std::function<absl::Status()>>{
           [&] { return patient->Read(digest, 0, 5).status(); },
           [&] { return WriteBlob(*patient, "others").status(); },
           [&] { return WriteBlob(*patient, std::string(2500, 'x')).status(); }}) {
    Cancellation cancellation;
    absl::Status status;
    std::thread work([&] {
      const ThreadCancellation as_the_work(cancellation);
      status = call();
    });
    fake_.Tell({{"do", "held"}});
    cancellation.Cancel();
    work.join();
    EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
    fake_.Tell({{"do", "release"}});
  }
}

TEST_F(S3BlobStoreTest, WorkThatIsCancelledDoesNotTryAgainAndBeginsNothing) {
  S3Options options = fake_.Options();
  options.patience = absl::Hours(1);
  options.first_pause = absl::Minutes(10);
  const auto patient = Open(std::move(options));
  Rule({{"how", "error"}, {"status", 503}, {"code", "SlowDown"}, {"times", 1000}});
  const size_t before = Exchanges().size();
  Cancellation cancellation;
  absl::Status status;
  std::thread work([&] {
    const ThreadCancellation as_the_work(cancellation);
    status = WriteBlob(*patient, "bytes").status();
    EXPECT_EQ(WriteBlob(*patient, "bytes").status().code(), absl::StatusCode::kCancelled);
  });
  while (Exchanges().size() == before) std::this_thread::yield();
  cancellation.Cancel();
  work.join();
  EXPECT_EQ(DetailsOf(status).reason, "STORAGE_UNREACHABLE") << "why it would have tried again";
  EXPECT_EQ(Exchanges().size(), before + 1);
}

TEST_F(S3BlobStoreTest, ARefusalSaysWhatToCheckAndIsNotRepeated) {
  struct Case {
    int status;
    const char* code;
    const char* reason;
    const char* check;
  };
  for (const Case& given : {Case{403, "AccessDenied", "STORAGE_REFUSED", "put and delete"},
                            Case{403, "InvalidAccessKeyId", "STORAGE_REFUSED", "access key"},
                            Case{403, "SignatureDoesNotMatch", "STORAGE_REFUSED", "--s3_region"},
                            Case{403, "RequestTimeTooSkewed", "STORAGE_REFUSED", "clock"},
                            Case{400, "ExpiredToken", "STORAGE_REFUSED", "expired"},
                            Case{301, "PermanentRedirect", "STORAGE_REFUSED", "--s3_endpoint"},
                            Case{404, "NoSuchBucket", "STORAGE_REFUSED", "--artifacts"},
                            Case{403, "QuotaExceeded", "STORAGE_FULL", "full"},
                            Case{507, "XMinioStorageFull", "STORAGE_FULL", "full"},
                            Case{507, "<b>&amp;", "STORAGE_FULL", "full"},
                            Case{501, "NotImplemented", "STORAGE_REFUSED", "cannot do"},
                            Case{418, "Teapot", "STORAGE_REFUSED", "S3 store"}}) {
    const size_t before = Exchanges().size();
    Rule({{"method", "PUT"}, {"how", "error"}, {"status", given.status}, {"code", given.code}});
    const absl::Status status = WriteBlob(*blobs_, "bytes").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_EQ(DetailsOf(status).reason, given.reason) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(given.check));
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr("<b>")));
    EXPECT_EQ(Exchanges().size(), before + 1) << given.code;
  }
  EXPECT_TRUE(WriteBlob(*blobs_, "bytes").ok()) << "it goes on afterwards";
}

TEST_F(S3BlobStoreTest, OpeningSaysWhatIsWrongWithItsFlags) {
  S3Options bucket = fake_.Options();
  bucket.bucket = "nobody";
  S3Options nowhere = fake_.Options();
  nowhere.endpoint = "http://127.0.0.1:1";
  nowhere.patience = absl::Milliseconds(20);
  S3Options keyless = fake_.Options();
  keyless.credentials_file = fake_.CredentialsFile() + ".none";
  for (const auto& [options, code, says] :
       {std::make_tuple(bucket, absl::StatusCode::kFailedPrecondition, "no such bucket"),
        std::make_tuple(nowhere, absl::StatusCode::kUnavailable, "connect"),
        std::make_tuple(keyless, absl::StatusCode::kFailedPrecondition, "--s3_credentials_file")}) {
    const absl::Status status = OpenS3BlobStore(options).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(says));
  }
}

TEST_F(S3BlobStoreTest, CredentialsAreReadAgainWhenTheirFileChanges) {
  fake_.Tell({{"do", "credentials"}, {"access_key", "AKIDNEW"}, {"secret_key", "hush"}});
  const absl::Status status = WriteBlob(*blobs_, "bytes").status();
  EXPECT_EQ(DetailsOf(status).reason, "STORAGE_REFUSED");
  EXPECT_THAT(status.ToString(), Not(testing::AnyOf(HasSubstr("AKID"), HasSubstr("secret/"))));
  std::ofstream(fake_.CredentialsFile()) << FakeS3::CredentialsText("AKIDNEW", "hush");
  EXPECT_TRUE(WriteBlob(*blobs_, "bytes").ok());
  std::ofstream(fake_.CredentialsFile()) << "[default]\naws_access_key_id = HALF";
  EXPECT_TRUE(WriteBlob(*blobs_, "bytes").ok()) << "a file that is being written";
  fake_.Tell({{"do", "credentials"}, {"access_key", "A"}, {"secret_key", "b"}, {"token", "t+/="}});
  std::ofstream(fake_.CredentialsFile())
      << FakeS3::CredentialsText("A", "b") << "aws_session_token = t+/=\n";
  EXPECT_TRUE(WriteBlob(*blobs_, std::string(5000, 'x')).ok());
}

TEST(S3CredentialsTest, TheEnvironmentHasThemWhereNoFileIsNamed) {
  S3CredentialsSource source("");
  unsetenv("AWS_ACCESS_KEY_ID");
  EXPECT_EQ(DetailsOf(source.Get().status()).reason, "STORAGE_REFUSED");
  setenv("AWS_ACCESS_KEY_ID", "one", 1);
  setenv("AWS_SECRET_ACCESS_KEY", "two", 1);
  setenv("AWS_SESSION_TOKEN", "three", 1);
  const auto credentials = source.Get();
  ASSERT_TRUE(credentials.ok());
  EXPECT_EQ(credentials->access_key, "one");
  EXPECT_EQ(credentials->secret_key, "two");
  EXPECT_EQ(credentials->session_token, "three");
  setenv("AWS_SESSION_TOKEN", "three\r\nx-amz-acl: public-read", 1);
  EXPECT_FALSE(source.Get().ok()) << "it would become a header";
  for (const char* name : {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}) {
    unsetenv(name);
  }
}

TEST_F(S3BlobStoreTest, AnUploadInPartsThatFailsIsGivenUp) {
  const std::string large(5500, 'x');
  for (const json& rule : std::initializer_list<json>{
           {{"method", "PUT"},
            {"contains", "partNumber=3"},
            {"how", "error"},
            {"status", 403},
            {"code", "AccessDenied"}},
           {{"method", "PUT"}, {"contains", "partNumber=2"}, {"how", "lie"}},
           {{"method", "POST"},
            {"contains", "uploadId"},
            {"how", "error"},
            {"status", 507},
            {"code", "StorageFull"}}}) {
    Rule(rule);
    EXPECT_EQ(WriteBlob(*blobs_, large).status().code(), absl::StatusCode::kUnavailable) << rule;
    EXPECT_THAT(fake_.Keys(), IsEmpty());
    EXPECT_EQ(fake_.Tell({{"do", "uploads"}}), json::array()) << rule;
  }
  EXPECT_TRUE(WriteBlob(*blobs_, large).ok());
}

TEST_F(S3BlobStoreTest, AFailureBehindAStatusOf200IsOne) {
  Rule({{"method", "POST"},
        {"contains", "uploadId"},
        {"how", "answer"},
        {"status", 200},
        {"body", "<Error><Code>InternalError</Code></Error>"}});
  EXPECT_TRUE(WriteBlob(*blobs_, std::string(1500, 'x')).ok()) << "it may pass";
  Rule({{"method", "POST"},
        {"contains", "uploadId"},
        {"how", "answer"},
        {"status", 200},
        {"body", "<Error><Code>QuotaExceeded</Code></Error>"}});
  EXPECT_EQ(DetailsOf(WriteBlob(*blobs_, std::string(1600, 'x')).status()).reason, "STORAGE_FULL");
}

TEST_F(S3BlobStoreTest, UploadsThatNobodyFinishesAreSweptADayLater) {
  const auto hasty = OpenHasty();
  std::vector<std::string> left;
  for (const char byte : {'a', 'b'}) {
    const std::string bytes(1500, byte);
    Rule({{"method", "POST"},
          {"contains", "uploadId"},
          {"how", "error"},
          {"status", 403},
          {"code", "AccessDenied"}});
    Rule({{"method", "DELETE"}, {"how", "error"}, {"status", 403}, {"code", "AccessDenied"}});
    EXPECT_FALSE(WriteBlob(*hasty, bytes).ok());
    left.push_back(KeyOf(Sha256Hex(bytes)));
  }
  ASSERT_EQ(fake_.Tell({{"do", "uploads"}}).size(), 2u);
  fake_.Tell({{"do", "age"}, {"key", left[0]}, {"seconds", 25 * 3600}});
  ASSERT_TRUE(blobs_->ClearUnfinished().ok());
  EXPECT_EQ(fake_.Tell({{"do", "uploads"}}), json::array({left[1]}));
}

TEST_F(S3BlobStoreTest, AStoreThatDoesNotTellOfUploadsIsSweptOfMarksAlone) {
  Rule({{"contains", "uploads="}, {"how", "error"}, {"status", 501}, {"code", "NotImplemented"}});
  const std::string mark = absl::StrCat("lab/values/removing/", Sha256Hex("x"), "/0-1");
  fake_.Tell({{"do", "put"}, {"key", mark}, {"text", ""}});
  fake_.Tell({{"do", "age"}, {"key", mark}, {"seconds", 25 * 3600}});
  ASSERT_TRUE(blobs_->ClearUnfinished().ok());
  EXPECT_THAT(fake_.Keys(), IsEmpty());
}

TEST_F(S3BlobStoreTest, BytesThatAreNotWhatWasStoredAreNeverReturned) {
  const std::string digest = WriteBlob(*blobs_, "bytes")->digest;
  Rule({{"method", "GET"}, {"how", "corrupt"}});
  EXPECT_EQ(*blobs_->Read(digest, 0, 100), "bytes") << "changed on its way, once";
  Rule({{"method", "GET"}, {"how", "corrupt"}, {"times", 2}});
  const absl::Status status = blobs_->Read(digest, 0, 100).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(DetailsOf(status).reason, "BLOB_DAMAGED");
}

TEST_F(S3BlobStoreTest, AnswersThatAreNoneOfS3AreErrors) {
  const auto hasty = OpenHasty();
  const std::string digest = WriteBlob(*hasty, "bytes")->digest;
  Rule({{"method", "GET"}, {"how", "whole"}, {"times", 1000}});
  EXPECT_EQ(*hasty->Read(digest, 0, 100), "bytes");
  EXPECT_THAT(hasty->Read(digest, 2, 100).status().ToString(), HasSubstr("ranges"));
  EXPECT_THAT(hasty->Read(digest, 0, 2).status().ToString(), HasSubstr("more than"));
  fake_.Tell({{"do", "rules"}});
  Rule({{"method", "GET"}, {"how", "header"}, {"bytes", 1 << 20}, {"times", 1000}});
  EXPECT_EQ(DetailsOf(hasty->Read(digest, 0, 100).status()).reason, "STORAGE_UNREACHABLE");
  fake_.Tell({{"do", "rules"}});
  const std::string key =
      "<Contents><Key>lab/values/0</Key><LastModified>2026-01-02T03:04:05Z</LastModified>"
      "</Contents>";
  for (const std::string& body :
       {std::string("<html>Welcome to this network</html>"), std::string("{}"), std::string(),
        std::string("<!DOCTYPE x [<!ENTITY e 'e'>]><ListBucketResult>&e;</ListBucketResult>"),
        absl::StrCat("<ListBucketResult>", key, key, "</ListBucketResult>"),
        absl::StrCat("<ListBucketResult>", key,
                     "<IsTruncated>true</IsTruncated></ListBucketResult>"),
        std::string("<ListBucketResult><Contents><Key>lab/values/0</Key><LastModified>soon"
                    "</LastModified></Contents></ListBucketResult>"),
        std::string(5 << 20, 'x')}) {
    Rule({{"method", "GET"}, {"how", "answer"}, {"status", 200}, {"body", body}, {"times", 1000}});
    const absl::Status status = hasty->List("", 10, -absl::InfiniteDuration()).status();
    EXPECT_EQ(DetailsOf(status).reason, "STORAGE_UNREACHABLE") << body.substr(0, 80);
    fake_.Tell({{"do", "rules"}});
  }
}

TEST_F(S3BlobStoreTest, AgesAreToldByTheStoresClockWhateverOursSays) {
  const std::string digest = WriteBlob(*blobs_, "bytes")->digest;
  const auto remove = [&] { return blobs_->Remove(digest, absl::Hours(1)); };
  for (const int hours : {-5, 5}) {
    fake_.Tell({{"do", "clock"}, {"seconds", hours * 3600}});
    ASSERT_TRUE(WriteBlob(*blobs_, "bytes").ok());
    ASSERT_TRUE(remove().ok());
    EXPECT_TRUE(blobs_->Size(digest).ok()) << hours;
    EXPECT_THAT(*blobs_->List("", 10, absl::Hours(1)), IsEmpty());
  }
  fake_.Tell({{"do", "age"}, {"key", digest}, {"seconds", 3700}});
  EXPECT_EQ(blobs_->List("", 10, absl::Hours(1))->size(), 1u);
  ASSERT_TRUE(remove().ok());
  EXPECT_EQ(blobs_->Size(digest).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(S3BlobStoreTest, WhoWritesWhatIsBeingRemovedAwaitsItAndWritesAgain) {
  const auto other = Open(fake_.Options());
  S3Options patient = fake_.Options();
  patient.longest_stall = absl::Minutes(1);
  const auto removing = Open(std::move(patient));
  const std::string digest = WriteBlob(*blobs_, "bytes")->digest;
  fake_.Tell({{"do", "age"}, {"key", digest}, {"seconds", 7200}});
  // The remover has looked at the age; its removal is on the way.
  Rule({{"method", "DELETE"}, {"contains", KeyOf(digest)}, {"how", "hold"}});
  std::thread remover([&] { EXPECT_TRUE(removing->Remove(digest, absl::Hours(1)).ok()); });
  ASSERT_TRUE(fake_.Tell({{"do", "held"}}));
  const int looks = fake_.Count("list");
  std::thread writer([&] { EXPECT_TRUE(WriteBlob(*other, "bytes").ok()); });
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (fake_.Count("list") < looks + 2 && absl::Now() < deadline) std::this_thread::yield();
  EXPECT_GE(fake_.Count("list"), looks + 2) << "it looks for the mark's end";
  EXPECT_EQ(fake_.Count("put"), 3) << "the first time, the mark, and the writer's once";
  fake_.Tell({{"do", "release"}});
  remover.join();
  writer.join();
  const absl::StatusOr<std::string> read = ReadBlob(*blobs_, digest, 10);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, "bytes");
  EXPECT_EQ(fake_.Keys().size(), 1u) << "the mark is gone";
}

TEST_F(S3BlobStoreTest, AStoreWithoutConditionsCanBeClaimed) {
  for (const char* how : {"refused", ""}) {
    fake_.Tell({{"do", "reset"}});
    fake_.Tell({{"do", "conditions"}, {"how", how}});
    EXPECT_TRUE(blobs_->Claim("first").ok()) << how;
    EXPECT_EQ(DetailsOf(blobs_->Claim("second")).reason, "BLOBS_OF_ANOTHER_STORE") << how;
    EXPECT_TRUE(blobs_->Claim("first").ok()) << how;
  }
}

TEST_F(S3BlobStoreTest, WhoComesSecondWithItsClaimIsRefused) {
  Rule({{"method", "PUT"}, {"contains", ".owner"}, {"how", "hold"}});
  S3Options patient = fake_.Options();
  patient.longest_stall = absl::Minutes(1);
  const auto slow = Open(std::move(patient));
  absl::Status second;
  std::thread claiming([&] { second = slow->Claim("second"); });
  ASSERT_TRUE(fake_.Tell({{"do", "held"}}));
  EXPECT_TRUE(blobs_->Claim("first").ok());
  fake_.Tell({{"do", "release"}});
  claiming.join();
  EXPECT_EQ(DetailsOf(second).reason, "BLOBS_OF_ANOTHER_STORE");
  EXPECT_TRUE(blobs_->Claim("first").ok());
}

TEST_F(S3BlobStoreTest, AClaimWhoseAnswerIsLostIsKept) {
  Rule({{"method", "PUT"}, {"contains", ".owner"}, {"how", "lost"}});
  EXPECT_TRUE(blobs_->Claim("first").ok());
  EXPECT_FALSE(blobs_->Claim("second").ok());
}

TEST_F(S3BlobStoreTest, ARemovalWhoseEndIsUnknownHoldsWritersUpUntilNothingCanCome) {
  const auto hasty = OpenHasty();
  const std::string digest = WriteBlob(*hasty, "bytes")->digest;
  fake_.Tell({{"do", "age"}, {"key", digest}, {"seconds", 7200}});
  Rule({{"method", "DELETE"}, {"how", "error"}, {"status", 500}, {"code", "InternalError"}});
  EXPECT_FALSE(hasty->Remove(digest, absl::Hours(1)).ok());
  const absl::Status status = WriteBlob(*hasty, "bytes").status();
  EXPECT_EQ(DetailsOf(status).reason, "BLOB_BEING_REMOVED");
  EXPECT_TRUE(DetailsOf(status).retry_after.has_value());
  fake_.Tell({{"do", "age"}, {"key", "removing/"}, {"seconds", 21 * 60}});
  EXPECT_TRUE(WriteBlob(*hasty, "bytes").ok());
  fake_.Tell({{"do", "age"}, {"key", "removing/"}, {"seconds", 24 * 3600}});
  EXPECT_EQ(fake_.Keys().size(), 2u);
  ASSERT_TRUE(hasty->ClearUnfinished().ok());
  EXPECT_THAT(fake_.Keys(), testing::ElementsAre(KeyOf(digest)));
}

TEST_F(S3BlobStoreTest, OnlyATrustedCertificateIsTalkedTo) {
  const TemporaryFolder folder;
  const std::string certificate = folder / "certificate.pem";
  const std::string make = absl::StrCat(
      "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
      "-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 -keyout ",
      certificate, ".key -out ", certificate, ".crt 2>/dev/null && cat ", certificate, ".key ",
      certificate, ".crt >", certificate);
  ASSERT_EQ(std::system(make.c_str()), 0);
  FakeS3 secure({"--cert=" + certificate});
  S3Options options = secure.Options();
  options.endpoint = absl::StrCat("https", options.endpoint.substr(4));
  const absl::Status status = OpenS3BlobStore(options).status();
  EXPECT_EQ(DetailsOf(status).reason, "STORAGE_REFUSED");
  EXPECT_THAT(std::string(status.message()), HasSubstr("--s3_ca_file"));
  options.ca_file = certificate + ".crt";
  const auto trusting = Open(options);
  EXPECT_TRUE(WriteBlob(*trusting, std::string(2500, 'x')).ok());
}

}  // namespace
}  // namespace valuescope::store
