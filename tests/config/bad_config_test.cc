// Configurations that cannot work: each is answered by one line that names the flag or key and what
// is allowed, no two mistakes by the same line, and the program leaves with 2. What a parser can
// know goes through the parser, what only the machine can say through the program itself.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "config/server_config.h"
#include "tests/rpc/server_process.h"

namespace valuescope::config {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

// A directory of the test's own.
class Place {
 public:
  Place() {
    std::string pattern = testing::TempDir() + "/bad_config_XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~Place() { fs::remove_all(path_); }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  std::string File(const std::string& name, const std::string& text) const {
    std::ofstream(path_ + "/" + name, std::ios::binary) << text;
    return path_ + "/" + name;
  }
  std::string Directory(const std::string& name) const {
    fs::create_directories(path_ + "/" + name);
    return path_ + "/" + name;
  }

 private:
  std::string path_;
};

struct BadFlags {
  std::vector<std::string> flags;
  std::string names;    // the flag
  std::string allowed;  // part of what would be right
};

// What is said to each of them is one line of its own.
class Answers {
 public:
  void Expect(const std::string& message, const std::string& names, const std::string& allowed,
              const std::string& asked) {
    EXPECT_THAT(message, HasSubstr(names)) << asked;
    EXPECT_THAT(message, HasSubstr(allowed)) << asked;
    EXPECT_THAT(message, Not(HasSubstr("\n"))) << asked;
    EXPECT_LT(message.size(), 600u) << asked;
    const auto [earlier, is_new] = heard_.emplace(message, asked);
    EXPECT_TRUE(is_new) << asked << " and " << earlier->second << " both get: " << message;
  }

 private:
  std::map<std::string, std::string> heard_;  // message, and what was asked
};

TEST(BadConfig, EveryBadFlagGetsALineOfItsOwn) {
  Answers answers;
  for (const BadFlags& bad : std::vector<BadFlags>{
           {{"serve"}, "serve", "--name=value"},
           {{"-v"}, "-v", "--name=value"},
           {{""}, "\"\"", "--name=value"},
           {{"--"}, "unknown flag --", "--help"},
           {{"--port=1"}, "--port", "--help"},
           {{"--po\nrt=1"}, "--po\\nrt", "--help"},
           {{"--threads"}, "--threads", "--threads=N"},
           {{"--model_root"}, "--model_root", "--model_root=DIR"},
           {{"--threads="}, "--threads", "0 to 1024"},
           {{"--threads=-1"}, "--threads", "0 to 1024"},
           {{"--threads=1025"}, "--threads", "0 to 1024"},
           {{"--threads=99999999999999999999"}, "--threads", "0 to 1024"},
           {{"--threads=0x10"}, "--threads", "0 to 1024"},
           {{"--threads=four\nof them"}, "--threads", "\\nof them"},
           {{"--listen="}, "--listen", "HOST:PORT"},
           {{"--listen=localhost"}, "--listen", "HOST:PORT"},
           {{"--listen=localhost:"}, "--listen", "0 to 65535"},
           {{"--listen=localhost:65536"}, "--listen", "0 to 65535"},
           {{"--listen=localhost:http"}, "--listen", "0 to 65535"},
           {{"--listen=::1:50051"}, "--listen", "brackets"},
           {{"--listen=0.0.0.0:50051"}, "--listen", "--insecure"},
           {{"--listen=[::]:50051"}, "--listen", "--insecure"},
           {{"--listen=192.0.2.7:50051"}, "--listen", "--insecure"},
           {{"--metrics_listen=0.0.0.0:9464"}, "--metrics_listen", "--insecure"},
           {{"--metrics_listen=9464"}, "--metrics_listen", "HOST:PORT"},
           {{"--listen=127.0.0.1:7000", "--metrics_listen=127.0.0.1:7000"},
            "--metrics_listen",
            "must not be the same"},
           {{"--health_listen=9464"}, "--health_listen", "HOST:PORT"},
           {{"--listen=127.0.0.1:7000", "--health_listen=127.0.0.1:7000"},
            "--health_listen",
            "must not be the same"},
           {{"--metrics_listen=127.0.0.1:7000", "--health_listen=127.0.0.1:7000"},
            "--health_listen",
            "must not be the same"},
           {{"--tokens="}, "--tokens", "must not be empty"},
           {{"--jwt_keys=k", "--tokens=t"}, "--jwt_issuer", "need each other"},
           {{"--jwt_keys=k", "--jwt_issuer=i"}, "--jwt_keys", "needs --tokens"},
           {{"--audit_log="}, "--audit_log", "must not be empty"},
           {{"--jwt_keys="}, "--jwt_keys", "must not be empty"},
           {{"--jwt_audience="}, "--jwt_audience", "must not be empty"},
           {{"--connection_age=25h"}, "--connection_age", "0s to 24h"},
           {{"--jwt_leeway=11m"}, "--jwt_leeway", "0s to 10m"},
           {{"--jwt_leeway=-1s"}, "--jwt_leeway", "0s to 10m"},
           {{"--tls_certificate=c"}, "--tls_certificate", "needs --tls_key"},
           {{"--tls_key=k"}, "--tls_key", "needs --tls_certificate"},
           {{"--tls_client_ca=r"}, "--tls_client_ca", "--tls_certificate"},
           {{"--listen=0.0.0.0:50051", "--tokens=t", "--insecure"}, "--tokens", "in the clear"},
           {{"--model_root="}, "--model_root", "must not be empty"},
           {{"--models=../x"}, "--models", "beneath --model_root"},
           {{"--models=a,b,a"}, "--models", "every model once"},
           {{"--store="}, "--store", "sqlite:PATH"},
           {{"--store=sqlite:"}, "--store", "sqlite:PATH"},
           {{"--store=mysql://host/db"}, "--store", "sqlite:PATH"},
           {{"--store=sqlite::memory:"}, "--store", "must name a file"},
           {{"--store=postgresql://host/db"}, "--artifacts", "share"},
           {{"--store=postgresql://me:word@host/db", "--artifacts=x"}, "--store", "PGPASSFILE"},
           {{"--artifacts="}, "--artifacts", "must not be empty"},
           {{"--store=sqlite:x", "--artifacts=x"}, "--artifacts", "--store"},
           {{"--artifacts=s3://"}, "--artifacts", "s3://BUCKET/PREFIX"},
           {{"--artifacts=s3://Lab/x"}, "--artifacts", "lower-case"},
           {{"--artifacts=s3://lab/../x"}, "--artifacts", "s3://BUCKET/PREFIX"},
           {{"--artifacts=s3://lab/a//b"}, "--artifacts", "s3://BUCKET/PREFIX"},
           {{"--artifacts=s3://lab/a b"}, "--artifacts", "s3://BUCKET/PREFIX"},
           {{"--artifacts=s3:/lab"}, "--artifacts", "s3://BUCKET/PREFIX"},
           {{"--artifacts=S3://lab"}, "--artifacts", "s3://BUCKET/PREFIX"},
           {{"--artifacts=s3://lab", "--s3_endpoint=s3.lab"}, "--s3_endpoint", "https://HOST"},
           {{"--artifacts=s3://lab", "--s3_endpoint=http://s3.lab/x"}, "--s3_endpoint", "behind"},
           {{"--artifacts=s3://lab", "--s3_endpoint=http://s3.lab:0"}, "--s3_endpoint", "65535"},
           {{"--artifacts=s3://lab", "--s3_endpoint=http://s3.lab:99999"}, "--s3_endpoint", "1 to"},
           {{"--artifacts=s3://lab", "--s3_endpoint=http://[::1"}, "--s3_endpoint", "https://HOST"},
           {{"--artifacts=s3://lab", "--s3_endpoint=http://:9000"}, "--s3_endpoint", "HOST[:PORT]"},
           {{"--artifacts=s3://lab", "--s3_region=EU"}, "--s3_region", "eu-central-1"},
           {{"--artifacts=s3://lab", "--s3_addressing=dns"}, "--s3_addressing", "path or host"},
           {{"--artifacts=s3://lab", "--s3_ca_file="}, "--s3_ca_file", "must not be empty"},
           {{"--s3_endpoint=http://s3.lab"}, "--s3_endpoint", "--artifacts=s3://BUCKET"},
           {{"--s3_credentials_file=keys"}, "--s3_credentials_file", "--artifacts=s3://BUCKET"},
           {{"--device=tpu"}, "--device", "must be cpu"},
           {{"--device=cuda:one"}, "--device", "cuda:0 .. 15"},
           {{"--dtype=int8"}, "--dtype", "float32, bfloat16 or float16"},
           {{"--dtype=FLOAT32"}, "--dtype", "float32, bfloat16 or float16"},
           {{"--kv_cache_bytes=0"}, "--kv_cache_bytes", "such as"},
           {{"--kv_cache_bytes=1.5GiB"}, "--kv_cache_bytes", "such as"},
           {{"--kv_cache_bytes=GiB"}, "--kv_cache_bytes", "such as"},
           {{"--kv_cache_bytes=9223372036854775807GiB"}, "--kv_cache_bytes", "such as"},
           {{"--max_batch_rows=0"}, "--max_batch_rows", "1 to 4096"},
           {{"--max_step_tokens=0"}, "--max_step_tokens", "1 to 1048576"},
           {{"--max_waiting=0"}, "--max_waiting", "1 to 1048576"},
           {{"--max_step_tokens=16", "--max_batch_rows=32"},
            "--max_step_tokens",
            "at least --max_batch_rows"},
           {{"--max_message_bytes=1"}, "--max_message_bytes", "1048576 to"},
           {{"--max_message_bytes=2GiB"}, "--max_message_bytes", "to 1073741824"},
           {{"--host_memory_bytes=0"}, "--host_memory_bytes", "such as"},
           {{"--request_memory_bytes=1"}, "--request_memory_bytes", "1048576 to"},
           {{"--capture_memory_bytes=1"}, "--capture_memory_bytes", "1048576 to"},
           {{"--intervention_memory_bytes=x"}, "--intervention_memory_bytes", "1048576 to"},
           {{"--drain_timeout=-1s"}, "--drain_timeout", "0s to 24h"},
           {{"--step_timeout=1"}, "--step_timeout", "0s to 24h"},
           {{"--drain_timeout=30"}, "--drain_timeout", "0s to 24h"},
           {{"--drain_timeout=inf"}, "--drain_timeout", "0s to 24h"},
           {{"--keep_jobs=30"}, "--keep_jobs", "1s to 36500d"},
           {{"--keep_jobs=forever"}, "--keep_jobs", "never, or"},
           {{"--keep_partials=-1d"}, "--keep_partials", "1s to 36500d"},
           {{"--keep_request_ids=36501d"}, "--keep_request_ids", "1s to 36500d"},
           {{"--keep_orphaned_blobs=inf"}, "--keep_orphaned_blobs", "1s to 36500d"},
           {{"--heartbeat=1ms"}, "--heartbeat", "10ms to 20s"},
           {{"--heartbeat=21s"}, "--heartbeat", "10ms to 20s"},
           {{"--log_level=verbose"}, "--log_level", "debug, info, warning or error"},
           {{"--batch_invariant=yes"}, "--batch_invariant", "true or false"},
           {{"--insecure=1"}, "--insecure", "true or false"},
           {{"--check_config=maybe"}, "--check_config", "true or false"},
           {{"--config"}, "--config", "--config=FILE"},
       }) {
    const auto config = ParseServerConfig(bad.flags);
    const std::string asked = testing::PrintToString(bad.flags);
    ASSERT_FALSE(config.ok()) << asked;
    EXPECT_TRUE(absl::IsInvalidArgument(config.status())) << config.status();
    answers.Expect(std::string(config.status().message()), bad.names, bad.allowed, asked);
  }
}

TEST(BadConfig, EveryBadFileGetsALineOfItsOwn) {
  const std::string deep(100'000, '[');
  Answers answers;
  for (const auto& [text, says] : std::vector<std::pair<std::string, std::string>>{
           {"", "empty"},
           {"threads: 2", "not valid JSON at byte 2"},
           {"{\"threads\": 1", "not valid JSON at byte 14"},
           {"{\"threads\": 1e999}", "a number is too large"},
           {"[]", "no JSON object"},
           {"\xef\xbb\xbf\xff", "not valid JSON at byte 4"},
           {"{\"a\": " + deep, "nested deeper than 64"},
           {"{" + std::string(2 << 20, ' ') + "}", "more than 1048576 bytes"},
           {R"({"threads": 1, "threads": 2})", "\"threads\" twice"},
           {R"({"models": [], "x": {"a": 1, "a": 2}})", "\"a\" twice"},
           {R"({"thread": 1})", "unknown setting thread"},
           {R"({"li\nsten": 1})", "unknown setting li\\nsten"},
           {R"({"config": "x.json"})", "unknown setting config"},
           {R"({"threads": 1.5})", "threads must be a string, a whole number"},
           {R"({"dtype": null})", "dtype must be a string, a whole number"},
           {R"({"listen": {"port": 1}})", "listen must be a string, a whole number"},
           {R"({"models": [1]})", "models must be a list of strings"},
           {R"({"models": [["a"]]})", "models must be a list of strings"},
           {R"({"models": ["a", "a"]})", "every model once"},
           {R"({"threads": -1})", "threads must be a whole number from 0 to 1024"},
           {R"({"threads": true})", "not \"true\""},
           {R"({"insecure": "yes"})", "insecure must be true or false"},
           {R"({"listen": 50051})", "HOST:PORT"},
           {R"({"store": "sqlite:a\u0000b"})", "store must not contain NUL"},
           {R"({"drain_timeout": "-5s"})", "drain_timeout must be a duration from 0s to 24h"},
       }) {
    const Place place;
    const std::string file = place.File("server.json", text);
    const auto config = ParseServerConfig({"--config=" + file});
    ASSERT_FALSE(config.ok()) << text.substr(0, 100);
    std::string message(config.status().message());
    // Two lists that are none of strings deserve the same words.
    if (text == R"({"models": [["a"]]})") message += " (nested)";
    answers.Expect(message, "--config", says, text.substr(0, 100));
  }
}

TEST(BadConfig, AFileThatCannotBeReadIsNamed) {
  const Place place;
  Answers answers;
  for (const auto& [file, says] : std::vector<std::pair<std::string, std::string>>{
           {place / "gone.json", "gone.json"},
           {place.Directory("folder"), "folder"},
           {place / "two\nlines.json", "two\\nlines.json"}}) {
    const auto config = ParseServerConfig({"--config=" + file});
    ASSERT_FALSE(config.ok()) << file;
    answers.Expect(std::string(config.status().message()), "--config", says, file);
  }
}

// The program, run until it leaves: its exit code and the last line that it said.
struct Outcome {
  int code = 0;
  std::string line;
  std::string log;
};

Outcome RunServer(const std::vector<std::string>& flags) {
  rpc::ServerProcess server(flags);
  Outcome outcome;
  outcome.code = server.WaitForExit();
  outcome.log = server.Log();
  const size_t begin = outcome.log.rfind("valuescope-server: ");
  if (begin != std::string::npos) outcome.line = outcome.log.substr(begin);
  if (!outcome.line.empty() && outcome.line.back() == '\n') outcome.line.pop_back();
  return outcome;
}

// A root whose model "tiny" cannot be loaded, but is there.
std::string RootWithAModel(const Place& place) {
  place.Directory("models/tiny");
  place.File("models/tiny/config.json", "{}");
  return place / "models";
}

TEST(BadConfig, WhatOnlyTheMachineKnowsEndsTheProgramWithTwo) {
  const Place place;
  const std::string root = RootWithAModel(place);
  const std::string file = place.File("file", "not a database, and no directory either");
  rpc::ServerProcess other({"--store=sqlite:" + (place / "held.db")});
  const std::string taken = other.WaitForAddress();
  ASSERT_NE(taken, "") << other.Log();
  Answers answers;
  for (const BadFlags& bad : std::vector<BadFlags>{
           {{"--listen=" + taken}, "--listen", "in use"},
           {{"--metrics_listen=" + taken}, "--metrics_listen", taken},
           {{"--listen=127.0.0.1:7001", "--metrics_listen=127.0.0.1:7001"},
            "--metrics_listen",
            "must not be the same"},
           {{"--model_root=" + (place / "gone")}, "--model_root", "must be a directory"},
           {{"--model_root=" + file}, "--model_root", "must be a directory"},
           {{"--model_root=" + root, "--models=nobody"}, "--models", "models/nobody"},
           {{"--model_root=" + root, "--models=tiny"}, "tiny", "--models cannot be loaded"},
           {{"--store=sqlite:" + (place / "gone/store.db")}, "--store", "may write to"},
           {{"--store=sqlite:" + place.Directory("folder")}, "--store", "must name a file"},
           {{"--store=sqlite:" + file}, "--store", "SQLite database"},
           {{"--store=sqlite:" + file + "/store.db"}, "--store", "may write to"},
           {{"--store=sqlite:" + (place / "held.db")}, "--store", "another server"},
           {{"--artifacts=" + file}, "--artifacts", "must be a directory"},
           {{"--artifacts=" + (place / "held.db.artifacts")}, "--artifacts", "another server"},
           {{"--artifacts=s3://lab", "--scratch=" + file}, "--scratch", "must be a directory"},
           {{"--artifacts=s3://lab", "--s3_credentials_file=" + (place / "gone")},
            "--s3_credentials_file",
            "cannot be read"},
           {{"--artifacts=s3://lab", "--s3_credentials_file=" + place.Directory("keys")},
            "--s3_credentials_file",
            "must name a file"},
           {{"--artifacts=s3://lab", "--s3_ca_file=" + (place / "gone")},
            "--s3_ca_file",
            "cannot be read"},
           {{"--artifacts=s3://lab", "--s3_credentials_file=" + file,
             "--store=sqlite:" + (place / "s3.db"), "--scratch=" + (place / "scratch")},
            "--artifacts",
            "[default]"},
           {{"--config=" + (place / "gone.json")}, "--config", "cannot be read"},
           {{"--threads=x"}, "--threads", "0 to 1024"},
       }) {
    const std::string asked = testing::PrintToString(bad.flags);
    const Outcome outcome = RunServer(bad.flags);
    EXPECT_EQ(outcome.code, 2) << asked << outcome.log;
    answers.Expect(outcome.line, bad.names, bad.allowed, asked);
    EXPECT_THAT(outcome.log, Not(HasSubstr("terminate called"))) << asked;
    EXPECT_THAT(outcome.log, Not(HasSubstr("Stack trace"))) << asked;
  }
}

TEST(BadConfig, HelpAndCheckConfigLeaveWithZeroOrTwoAndOpenNothing) {
  const Place place;
  const std::string root = RootWithAModel(place);
  EXPECT_EQ(RunServer({"--help"}).code, 0);
  const std::string store = "--store=sqlite:" + (place / "store.db");
  const Outcome good =
      RunServer({"--check_config", store, "--model_root=" + root, "--models=tiny"});
  EXPECT_EQ(good.code, 0);
  EXPECT_EQ(good.log, "");
  EXPECT_FALSE(fs::exists(place / "store.db"));
  EXPECT_FALSE(fs::exists(place / "store.db.artifacts"));
  for (const std::vector<std::string>& flags : std::vector<std::vector<std::string>>{
           {"--check_config", store, "--model_root=" + root, "--models=nobody"},
           {"--check_config", "--threads=x"},
           {"--check_config", "--audit_log=" + (place / "gone/audit.jsonl")},
           {"--check_config", "--audit_log=" + (place / "")},
           {"--check_config", "--store=sqlite:" + (place / "gone/store.db")},
           {"--check_config", "--config=" + (place / "gone.json")}}) {
    const Outcome bad = RunServer(flags);
    EXPECT_EQ(bad.code, 2) << testing::PrintToString(flags);
    EXPECT_EQ(std::count(bad.log.begin(), bad.log.end(), '\n'), 1) << bad.log;
  }
}

}  // namespace
}  // namespace valuescope::config
