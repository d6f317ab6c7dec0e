#include "config/server_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "config/tenant_setting.h"

namespace valuescope::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

std::string Written(const std::string& text) {
  static int count = 0;
  const std::string path = testing::TempDir() + "/server_config_test_" +
                           std::to_string(::getpid()) + "_" + std::to_string(count++) + ".json";
  std::ofstream(path) << text;
  return path;
}

TEST(ServerConfigTest, DefaultsListenOnLoopbackAndKeepBytesBesideTheDatabase) {
  const auto config = ParseServerConfig({});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->listen, "127.0.0.1:50051");
  EXPECT_EQ(config->metrics_listen, "127.0.0.1:9464");
  EXPECT_EQ(config->artifacts, config->store_path + ".artifacts");
  EXPECT_FALSE(config->batch_invariant);
  EXPECT_FALSE(config->insecure);
}

TEST(ServerConfigTest, EveryFlagIsRead) {
  const auto config = ParseServerConfig({"--listen=127.0.0.1:0",
                                         "--metrics_listen=",
                                         "--model_root=/m",
                                         "--models=a,b",
                                         "--store=sqlite:/s/x.db",
                                         "--artifacts=/s/blobs",
                                         "--device=cpu",
                                         "--dtype=bfloat16",
                                         "--threads=2",
                                         "--kv_cache_bytes=512MiB",
                                         "--max_batch_rows=8",
                                         "--max_step_tokens=64",
                                         "--max_waiting=9",
                                         "--max_message_bytes=2097152",
                                         "--host_memory_bytes=6GiB",
                                         "--request_memory_bytes=3MiB",
                                         "--capture_memory_bytes=4MiB",
                                         "--intervention_memory_bytes=5MiB",
                                         "--extraction_scratch_bytes=6MiB",
                                         "--tenants=lab:weight=2.5:stored=7MiB,*:running=3",
                                         "--job_commit_interval=500ms",
                                         "--job_workers=4",
                                         "--job_turn=20s",
                                         "--job_lease=9s",
                                         "--drain_timeout=1m30s",
                                         "--step_timeout=250ms",
                                         "--heartbeat=3s",
                                         "--log_level=debug",
                                         "--batch_invariant",
                                         "--insecure",
                                         "--check_config"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->listen, "127.0.0.1:0");
  EXPECT_EQ(config->metrics_listen, "");
  EXPECT_EQ(config->model_root, "/m");
  EXPECT_THAT(config->models, ElementsAre("a", "b"));
  EXPECT_EQ(config->store_path, "/s/x.db");
  EXPECT_EQ(config->artifacts, "/s/blobs");
  EXPECT_EQ(config->dtype, DType::kBFloat16);
  EXPECT_EQ(config->threads, 2);
  EXPECT_EQ(config->kv_cache_bytes, int64_t{512} << 20);
  EXPECT_EQ(config->max_batch_rows, 8);
  EXPECT_EQ(config->max_step_tokens, 64);
  EXPECT_EQ(config->max_waiting, 9);
  EXPECT_EQ(config->max_message_bytes, 2097152);
  EXPECT_EQ(config->host_memory_bytes, int64_t{6} << 30);
  EXPECT_EQ(config->request_memory_bytes, 3 << 20);
  EXPECT_EQ(config->capture_memory_bytes, 4 << 20);
  EXPECT_EQ(config->intervention_memory_bytes, 5 << 20);
  EXPECT_EQ(config->extraction_scratch_bytes, 6 << 20);
  EXPECT_EQ(config->tenants.Of("lab"),
            (TenantPolicy{.weight = 2.5, .max_running = 3, .max_stored_bytes = 7 << 20}));
  EXPECT_EQ(config->tenants.Of("other"), TenantPolicy{.max_running = 3});
  EXPECT_EQ(config->job_commit_interval, absl::Milliseconds(500));
  EXPECT_EQ(config->job_workers, 4);
  EXPECT_EQ(config->job_turn, absl::Seconds(20));
  EXPECT_EQ(config->job_lease, absl::Seconds(9));
  EXPECT_EQ(config->drain_timeout, absl::Seconds(90));
  EXPECT_EQ(config->step_timeout, absl::Milliseconds(250));
  EXPECT_EQ(config->heartbeat, absl::Seconds(3));
  EXPECT_EQ(config->log_level, "debug");
  EXPECT_TRUE(config->batch_invariant);
  EXPECT_TRUE(config->insecure);
  EXPECT_TRUE(config->check_config);
}

TEST(ServerConfigTest, WhatIsKeptIsKeptForDaysOrForEver) {
  const auto defaults = ParseServerConfig({});
  EXPECT_EQ(defaults->keep_jobs, absl::Hours(30 * 24));
  EXPECT_EQ(defaults->keep_partials, absl::Hours(7 * 24));
  EXPECT_EQ(defaults->keep_request_ids, absl::Hours(7 * 24));
  EXPECT_EQ(defaults->keep_usage, absl::Hours(400 * 24));
  EXPECT_EQ(defaults->keep_orphaned_blobs, absl::Hours(1));
  const auto config =
      ParseServerConfig({"--keep_jobs=never", "--keep_partials=0", "--keep_request_ids=2d",
                         "--keep_orphaned_blobs=90m", "--keep_usage=31d"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->keep_jobs, absl::InfiniteDuration());
  EXPECT_EQ(config->keep_partials, absl::InfiniteDuration());
  EXPECT_EQ(config->keep_request_ids, absl::Hours(48));
  EXPECT_EQ(config->keep_usage, absl::Hours(31 * 24));
  EXPECT_EQ(config->keep_orphaned_blobs, absl::Minutes(90));
}

TEST(ServerConfigTest, AStepIsAsLongAsTheDeviceLikesItWhereNoFlagSaysHowLong) {
  EXPECT_EQ(ParseServerConfig({})->max_step_tokens, 256);
  EXPECT_EQ(ParseServerConfig({"--device=cuda"})->max_step_tokens, 2048);
  EXPECT_EQ(ParseServerConfig({"--max_batch_rows=4000"})->max_step_tokens, 4000);
  EXPECT_EQ(ParseServerConfig({"--device=cuda", "--max_step_tokens=64"})->max_step_tokens, 64);
}

TEST(ServerConfigTest, FlagsWinOverTheFileWhereverTheyStand) {
  const std::string path =
      Written(R"({"models": ["a", "b"], "threads": 3, "insecure": true, "log_level": "error"})");
  const auto config = ParseServerConfig({"--threads=5", "--config=" + path});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->threads, 5);
  EXPECT_THAT(config->models, ElementsAre("a", "b"));
  EXPECT_TRUE(config->insecure);
  EXPECT_EQ(config->log_level, "error");
}

TEST(ServerConfigTest, TheFileListsWhatTenantsMayHave) {
  const auto config = ParseServerConfig(
      {"--config=" + Written(R"({"tenants": ["*:queued=5", "lab:weight=4:queued=0"]})")});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->tenants.Of("lab"), (TenantPolicy{.weight = 4, .max_queued = 0}));
  EXPECT_EQ(config->tenants.Of("other").max_queued, 5);
}

TEST(ServerConfigTest, AFileOfTenantsHasOneALine) {
  const auto tenants = ParseTenants(
      "# of the lab\n\nlab:weight=4:calls=8:cache_share=.5\r\n"
      "  *:queued=5:tokens_per_minute=6000:queue_share=0.25  \nguest\n");
  ASSERT_TRUE(tenants.ok()) << tenants.status();
  EXPECT_EQ(tenants->Of("lab"), (TenantPolicy{.weight = 4,
                                              .max_queued = 5,
                                              .max_calls = 8,
                                              .tokens_per_minute = 6000,
                                              .queue_share = 0.25,
                                              .cache_share = 0.5}));
  EXPECT_EQ(tenants->Of("guest"),
            (TenantPolicy{.max_queued = 5, .tokens_per_minute = 6000, .queue_share = 0.25}));
  EXPECT_EQ(ParseTenants("*")->Of("lab"), TenantPolicy());
}

TEST(ServerConfigTest, AMistakeInAFileOfTenantsIsToldWithItsLine) {
  for (const auto& [text, says] :
       {std::pair("", "one with * alone bounds nobody"), std::pair("# lab\n\n", "has no line"),
        std::pair("lab\nlab", "line 2 must name lab once"),
        std::pair("\n#\nlab:weight=0", "line 3 has for lab"),
        std::pair("lab:queued=1,office", "line 1 has for lab"),
        std::pair("la b", "line 1 must list NAME:weight=W"),
        std::pair("*\n*", "line 2 must have * once")}) {
    EXPECT_THAT(ParseTenants(text).status().message(), HasSubstr(says)) << text;
  }
}

TEST(ServerConfigTest, TenantsAreSaidInOnePlace) {
  EXPECT_EQ(ParseServerConfig({"--tenants_file=/t"})->tenants_file, "/t");
  const auto both = ParseServerConfig({"--tenants=lab:calls=1", "--tenants_file=/t"});
  EXPECT_THAT(both.status().message(), HasSubstr("give one of them"));
}

struct BadCase {
  std::string argument;
  std::string says;
};

TEST(ServerConfigTest, BadFlagsAreToldInOneLineWithWhatIsAllowed) {
  for (const BadCase& bad : std::vector<BadCase>{
           {"threads", "--name=value"},
           {"--nonsense=1", "--nonsense"},
           {"--threads", "--threads=N"},
           {"--threads=-1", "0 to 1024"},
           {"--threads=two", "0 to 1024"},
           {"--threads=1e3", "0 to 1024"},
           {"--listen=nowhere", "HOST:PORT"},
           {"--listen=:50051", "HOST:PORT"},
           {"--listen=127.0.0.1:65536", "65535"},
           {"--listen=127.0.0.1:-1", "65535"},
           {"--listen=::1:50051", "brackets"},
           {"--listen=0.0.0.0:50051", "--insecure"},
           {"--listen=example.org:50051", "--insecure"},
           {"--listen=127.evil.example.org:50051", "--insecure"},
           {"--listen=[::]:50051", "--insecure"},
           {"--metrics_listen=0.0.0.0:9464", "--insecure"},
           {"--model_root=", "empty"},
           {"--models=../etc", "--model_root"},
           {"--models=a/b", "--model_root"},
           {"--store=postgresql:host/db", "postgresql://USER@HOST/DATABASE"},
           {"--store=postgresql://host/db", "--artifacts"},
           {"--store=sqlite:", "sqlite:PATH"},
           {"--store=/x.db", "sqlite:PATH"},
           {"--tenants=la b:weight=1", "NAME:weight=W"},
           {"--tenants=lab:weight=0", "0.001 to 1000"},
           {"--tenants=lab:weight=nan", "0.001 to 1000"},
           {"--tenants=lab:weight=0x10", "0.001 to 1000"},
           {"--tenants=lab:running=-1", "0 to 1000000000"},
           {"--tenants=lab:stored=5GB", "512MiB"},
           {"--tenants=lab:calls=many", "0 to 1000000000"},
           {"--tenants=lab:tokens_per_minute=-1", "0 to 1000000000"},
           {"--tenants=lab:size=5", "stored=, calls=, tokens_per_minute=, queue_share= or"},
           {"--tenants=lab:", "stored=, calls=, tokens_per_minute=, queue_share= or"},
           {"--tenants=lab:queue_share=0", "from 0.001 to 1"},
           {"--tenants=lab:cache_share=1.5", "from 0.001 to 1"},
           {"--tenants=lab,lab", "lab once"},
           {"--tenants=*,*", "* once"},
           {"--tenants=lab:weight=1:weight=2", "once"},
           {"--job_workers=17", "1 to 16"},
           {"--job_turn=-1s", "0s to 24h"},
           {"--job_lease=2s", "3s to 1h"},
           {"--job_lease=never", "3s to 1h"},
           {"--job_commit_interval=soon", "0s to 24h"},
           {"--device=cuda:", "cuda:0"},
           {"--device=cuda:-1", "cuda:0"},
           {"--device=cuda:16", "cuda:0"},
           {"--device=tpu", "cpu"},
           {"--dtype=int8", "float32, bfloat16 or float16"},
           {"--kv_cache_bytes=0", "512MiB"},
           {"--kv_cache_bytes=-1GiB", "512MiB"},
           {"--kv_cache_bytes=9999999999GiB", "512MiB"},
           {"--kv_cache_bytes=1.5GiB", "512MiB"},
           {"--max_batch_rows=0", "1 to"},
           {"--max_step_tokens=0", "1 to"},
           {"--max_message_bytes=1", "1048576"},
           {"--drain_timeout=30", "30s"},
           {"--drain_timeout=-1s", "30s"},
           {"--drain_timeout=inf", "24h"},
           {"--log_level=loud", "debug, info"},
           {"--insecure=yes", "true or false"},
           {"--config=", "--config=FILE"},
           {"--config=/nonexistent/x.json", "cannot be read"},
       }) {
    const auto config = ParseServerConfig({bad.argument});
    ASSERT_FALSE(config.ok()) << bad.argument;
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << bad.argument;
    const std::string message(config.status().message());
    EXPECT_THAT(message, HasSubstr(bad.says)) << bad.argument;
    EXPECT_THAT(message, Not(HasSubstr("\n"))) << bad.argument;
  }
}

TEST(ServerConfigTest, BadFilesAreToldInOneLine) {
  for (const auto& [text, says] : std::vector<std::pair<std::string, std::string>>{
           {"", "not valid JSON"},
           {"[1]", "no JSON object"},
           {"{\"threads\": 1", "not valid JSON"},
           {R"({"nonsense": 1})", "unknown setting nonsense"},
           {R"({"config": "x"})", "unknown setting config"},
           {R"({"threads": 1, "threads": 2})", "\"threads\" twice"},
           {R"({"threads": 1.5})", "whole number"},
           {R"({"threads": null})", "whole number"},
           {R"({"models": [1]})", "list of strings"},
           {R"({"dtype": "int8"})", "dtype must be float32"},
       }) {
    const auto config = ParseServerConfig({"--config=" + Written(text)});
    ASSERT_FALSE(config.ok()) << text;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(says)) << text;
    EXPECT_THAT(std::string(config.status().message()), Not(HasSubstr("\n"))) << text;
  }
  EXPECT_FALSE(ParseServerConfig({"--config=" + testing::TempDir()}).ok());
}

TEST(ServerConfigTest, LoopbackAndInsecureListenersAreAllowed) {
  for (const char* listen : {"localhost:1", "127.0.0.2:0", "[::1]:50051"}) {
    EXPECT_TRUE(ParseServerConfig({std::string("--listen=") + listen}).ok()) << listen;
  }
  EXPECT_TRUE(ParseServerConfig({"--listen=0.0.0.0:50051", "--insecure"}).ok());
}

TEST(ServerConfigTest, ListenersThatOthersReachAreAllowedWithTlsAndAuthentication) {
  const std::vector<std::string> reachable = {"--listen=0.0.0.0:50051",
                                              "--metrics_listen=0.0.0.0:9464"};
  const std::vector<std::string> tls = {"--tls_certificate=tls.crt", "--tls_key=tls.key"};
  const auto with = [&](std::vector<std::string> flags, bool has_tls) {
    flags.insert(flags.end(), reachable.begin(), reachable.end());
    if (has_tls) flags.insert(flags.end(), tls.begin(), tls.end());
    return ParseServerConfig(flags).status();
  };
  EXPECT_TRUE(with({"--tokens=tokens"}, /*has_tls=*/true).ok());
  EXPECT_TRUE(with({"--tls_client_ca=ca.crt"}, /*has_tls=*/true).ok());
  // One without the other does not make them safe.
  EXPECT_THAT(std::string(with({}, /*has_tls=*/true).message()), HasSubstr("--tokens"));
  EXPECT_THAT(std::string(with({"--tokens=tokens"}, /*has_tls=*/false).message()),
              HasSubstr("in the clear"));
  EXPECT_THAT(std::string(with({"--tokens=tokens", "--insecure"}, /*has_tls=*/false).message()),
              HasSubstr("in the clear"));
  EXPECT_TRUE(ParseServerConfig({"--tokens=tokens"}).ok());
  EXPECT_TRUE(ParseServerConfig({"--health_listen=0.0.0.0:50052"}).ok());
}

TEST(ServerConfigTest, CallersAreAskedWhoTheyAreWhereTokensOrClientRootsAreGiven) {
  EXPECT_FALSE(ParseServerConfig({})->Authenticates());
  EXPECT_FALSE(ParseServerConfig({"--tls_certificate=c", "--tls_key=k"})->Authenticates());
  EXPECT_TRUE(ParseServerConfig({"--tls_certificate=c", "--tls_key=k"})->HasTls());
  EXPECT_TRUE(ParseServerConfig({"--tokens=t"})->Authenticates());
  const auto certificates =
      ParseServerConfig({"--tls_certificate=c", "--tls_key=k", "--tls_client_ca=r"});
  EXPECT_TRUE(certificates->Authenticates());
  EXPECT_EQ(certificates->tls_client_ca, "r");
}

TEST(ServerConfigTest, AStoreThatIsSharedHasADirectoryThatIsSharedToo) {
  const std::string url = "postgresql://me@db:5433/store?sslmode=verify-full";
  const auto config = ParseServerConfig({"--store=" + url, "--artifacts=/shared"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->store_url, url);
  EXPECT_EQ(config->store_path, "");
  EXPECT_EQ(config->artifacts, "/shared");
  const auto embedded = ParseServerConfig({"--store=" + url, "--store=sqlite:x.db"});
  ASSERT_TRUE(embedded.ok()) << embedded.status();
  EXPECT_EQ(embedded->store_url, "");
}

TEST(ServerConfigTest, ABucketInS3HoldsWhatADirectoryWould) {
  const auto config = ParseServerConfig(
      {"--store=postgresql://db/store", "--artifacts=s3://lab.values/team-1/blobs/",
       "--s3_endpoint=https://[::1]:9000", "--s3_region=eu-central-1",
       "--s3_credentials_file=/run/keys", "--s3_ca_file=/run/ca.pem", "--scratch=/scratch"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->artifacts, "");
  EXPECT_EQ(config->s3.bucket, "lab.values");
  EXPECT_EQ(config->s3.prefix, "team-1/blobs");
  EXPECT_EQ(config->s3.endpoint, "https://[::1]:9000");
  EXPECT_EQ(config->s3.region, "eu-central-1");
  EXPECT_EQ(config->s3.credentials_file, "/run/keys");
  EXPECT_EQ(config->s3.ca_file, "/run/ca.pem");
  EXPECT_EQ(config->scratch, "/scratch");
  EXPECT_EQ(ParseServerConfig({"--artifacts=s3://lab"})->s3.prefix, "");
  EXPECT_EQ(ParseServerConfig({"--artifacts=s3://lab"})->artifacts, "") << "SQLite's default";
  EXPECT_EQ(ParseServerConfig({"--artifacts=s3://lab", "--artifacts=dir"})->s3.bucket, "");
}

TEST(ServerConfigTest, TheBucketStandsInTheHostAtAwsAndElsewhereInThePath) {
  EXPECT_TRUE(ParseServerConfig({"--artifacts=s3://lab"})->s3.BucketInHost());
  EXPECT_FALSE(ParseServerConfig({"--artifacts=s3://lab.values"})->s3.BucketInHost())
      << "no certificate of AWS covers two labels";
  const std::string endpoint = "--s3_endpoint=http://127.0.0.1:9000";
  EXPECT_FALSE(ParseServerConfig({"--artifacts=s3://lab", endpoint})->s3.BucketInHost());
  EXPECT_TRUE(ParseServerConfig({"--artifacts=s3://lab", endpoint, "--s3_addressing=host"})
                  ->s3.BucketInHost());
}

TEST(ServerConfigTest, ASecretInTheEndpointIsRefusedAndNotRepeated) {
  for (const std::string endpoint : {"https://key:hunter2@s3.lab", "http://hunter2@s3.lab/x"}) {
    const auto config = ParseServerConfig({"--artifacts=s3://lab", "--s3_endpoint=" + endpoint});
    ASSERT_FALSE(config.ok()) << endpoint;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr("--s3_credentials_file"));
    EXPECT_THAT(std::string(config.status().message()), testing::Not(HasSubstr("hunter2")));
  }
}

TEST(ServerConfigTest, APasswordInTheUrlIsRefusedAndNotRepeated) {
  for (const std::string url :
       {"postgresql://me:hunter2@db/store", "postgres://me:hun@ter2@db/store",
        "postgresql://db/store?user=me&password=hunter2"}) {
    const auto config = ParseServerConfig({"--store=" + url, "--artifacts=/shared"});
    ASSERT_FALSE(config.ok()) << url;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr("PGPASSFILE"));
    EXPECT_THAT(std::string(config.status().message()), testing::Not(HasSubstr("ter2")));
  }
}

TEST(ServerConfigTest, TheHelpTeachesEveryFlag) {
  const std::string help = HelpText();
  for (const char* flag :
       {"--listen=",          "--metrics_listen=", "--health_listen=",     "--tokens=",
        "--jwt_keys=",        "--jwt_issuer=",     "--jwt_audience=",      "--jwt_leeway=",
        "--tls_certificate=", "--tls_key=",        "--tls_client_ca=",     "--model_root=",
        "--models=",          "--store=",          "--artifacts=",         "--device=",
        "--dtype=",           "--threads=",        "--kv_cache_bytes=",    "--max_batch_rows=",
        "--max_step_tokens=", "--max_waiting=",    "--max_message_bytes=", "--drain_timeout=",
        "--step_timeout=",    "--log_level=",      "--insecure",           "--check_config",
        "--config=",          "--batch_invariant", "--heartbeat=",         "--connection_age=",
        "--keep_jobs=",       "--keep_partials=",  "--keep_request_ids=",  "--keep_orphaned_blobs=",
        "--s3_endpoint=",     "--s3_region=",      "--s3_addressing=",     "--s3_credentials_file=",
        "--s3_ca_file=",      "--scratch=",        "--keep_usage="}) {
    EXPECT_THAT(help, HasSubstr(flag));
  }
  EXPECT_TRUE(ParseServerConfig({"--help"})->help);
}

}  // namespace
}  // namespace valuescope::config
