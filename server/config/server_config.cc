// Long because there are many flags: each is declared, explained and checked in one place, and one
// reads like the next.
#include "config/server_config.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "base/strict_json.h"
#include "config/access_flags.h"
#include "config/read_values.h"
#include "config/s3_flags.h"
#include "config/tenant_setting.h"
#include "nlohmann/json.hpp"

namespace valuescope::config {
namespace {

constexpr char kSqliteScheme[] = "sqlite:";
constexpr int64_t kMaxConfigBytes = 1 << 20;
constexpr int kMostGpus = 16;
constexpr int kMostJobWorkers = 16;

// One setting: a flag --name=value and a key of the file, read by the same function.
struct Setting {
  absl::string_view name;
  absl::string_view value;  // what stands behind '=' in the help
  absl::string_view help;
  // Errors say what is allowed; the caller puts the flag's name before them.
  std::function<absl::Status(absl::string_view text, ServerConfig& config)> read;
};

std::function<absl::Status(absl::string_view, ServerConfig&)> Integer(int ServerConfig::*member,
                                                                      int64_t lowest,
                                                                      int64_t highest) {
  return [=](absl::string_view text, ServerConfig& config) -> absl::Status {
    int64_t value;
    VS_RETURN_IF_ERROR(ReadInteger(text, lowest, highest, value));
    config.*member = static_cast<int>(value);
    return absl::OkStatus();
  };
}

std::function<absl::Status(absl::string_view, ServerConfig&)> Address(
    std::string ServerConfig::*member, bool or_none) {
  return [=](absl::string_view text, ServerConfig& config) -> absl::Status {
    if (!or_none || !text.empty()) return ReadAddress(text, config.*member);
    (config.*member).clear();
    return absl::OkStatus();
  };
}

// "1073741824", "512MiB", "2GiB".
std::function<absl::Status(absl::string_view, ServerConfig&)> Bytes(int64_t ServerConfig::*member,
                                                                    int64_t lowest,
                                                                    int64_t highest) {
  return [=](absl::string_view text, ServerConfig& config) -> absl::Status {
    return ReadBytes(text, lowest, highest, config.*member);
  };
}

std::function<absl::Status(absl::string_view, ServerConfig&)> Boolean(bool ServerConfig::*member) {
  return [=](absl::string_view text, ServerConfig& config) {
    if (text != "true" && text != "false") return Refuse("must be true or false");
    config.*member = text == "true";
    return absl::OkStatus();
  };
}

std::function<absl::Status(absl::string_view, ServerConfig&)> NonEmpty(
    std::string ServerConfig::*member) {
  return [=](absl::string_view text, ServerConfig& config) {
    if (text.empty()) return Refuse("must not be empty");
    config.*member = std::string(text);
    return absl::OkStatus();
  };
}

// A name that stands in lists and logs.
std::function<absl::Status(absl::string_view, ServerConfig&)> PlainName(
    std::string ServerConfig::*member) {
  return [=](absl::string_view text, ServerConfig& config) -> absl::Status {
    constexpr size_t kMost = 256;
    if (text.empty() || text.size() > kMost || !absl::c_all_of(text, absl::ascii_isgraph)) {
      return Refuse("must be 1 to 256 letters, digits and signs of ASCII, without spaces");
    }
    config.*member = std::string(text);
    return absl::OkStatus();
  };
}

absl::Status ReadModels(absl::string_view text, ServerConfig& config) {
  config.models.clear();
  for (const absl::string_view id : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    if (!CheckResourceId("models", id).ok()) {
      return Refuse(
          absl::StrCat("must list folder names beneath --model_root (letters, digits, "
                       "'.', '_', '-'), separated by commas"));
    }
    if (std::find(config.models.begin(), config.models.end(), id) != config.models.end()) {
      return Refuse("must name every model once");
    }
    config.models.emplace_back(id);
  }
  return absl::OkStatus();
}

absl::Status ReadStore(absl::string_view text, ServerConfig& config) {
  config.store_path.clear();
  config.store_url.clear();
  if (absl::StartsWith(text, "postgresql://") || absl::StartsWith(text, "postgres://")) {
    config.store_url = std::string(text);
    return absl::OkStatus();
  }
  if (!absl::ConsumePrefix(&text, kSqliteScheme) || text.empty()) {
    return Refuse("must be sqlite:PATH or postgresql://USER@HOST/DATABASE");
  }
  // Of SQLite's databases in memory every connection has its own.
  if (text == ":memory:") return Refuse("must name a file: a store in memory is not served");
  config.store_path = std::string(text);
  return absl::OkStatus();
}

// postgresql://USER:PASSWORD@HOST/DATABASE?password=PASSWORD
bool HasPassword(absl::string_view url) {
  url.remove_prefix(std::min(url.size(), url.find("://") + 3));
  const absl::string_view authority = url.substr(0, url.find_first_of("/?"));
  const absl::string_view user = authority.substr(0, authority.rfind('@') + 1);
  return absl::StrContains(user, ':') || absl::StrContains(url, "password=");
}

absl::Status ReadDevice(absl::string_view text, ServerConfig& config) {
  int index = 0;
  const bool is_gpu =
      text == "cuda" || (absl::ConsumePrefix(&text, "cuda:") && absl::SimpleAtoi(text, &index) &&
                         index >= 0 && index < kMostGpus);
  if (is_gpu) {
    config.device = absl::StrCat("cuda:", index);
    return absl::OkStatus();
  }
  if (text != "cpu") return Refuse(absl::StrCat("must be cpu, cuda or cuda:0 .. ", kMostGpus - 1));
  config.device = "cpu";
  return absl::OkStatus();
}

absl::Status ReadDType(absl::string_view text, ServerConfig& config) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    if (text == NameOf(dtype)) {
      config.dtype = dtype;
      return absl::OkStatus();
    }
  }
  return Refuse("must be float32, bfloat16 or float16");
}

template <int64_t kLeastMs, int64_t kMostMs>
std::function<absl::Status(absl::string_view, ServerConfig&)> Between(
    absl::Duration ServerConfig::*member, const char* example) {
  return [member, example](absl::string_view text, ServerConfig& config) -> absl::Status {
    constexpr absl::Duration kLeast = absl::Milliseconds(kLeastMs);
    constexpr absl::Duration kMost = absl::Milliseconds(kMostMs);
    absl::Duration value;
    if (!absl::ParseDuration(text, &value) || value < kLeast || value > kMost) {
      return Refuse(absl::StrCat("must be a duration from ",
                                 kLeastMs == 0 ? "0s" : absl::FormatDuration(kLeast), " to ",
                                 absl::FormatDuration(kMost), ", such as ", example));
    }
    config.*member = value;
    return absl::OkStatus();
  };
}

std::function<absl::Status(absl::string_view, ServerConfig&)> UpToADay(
    absl::Duration ServerConfig::*member) {
  return Between<0, 86'400'000>(member, "30s or 1m30s");
}

// "30d" too, which absl::ParseDuration does not know.
bool ReadDays(absl::string_view text, absl::Duration& value) {
  int64_t days;
  if (!absl::ConsumeSuffix(&text, "d") || !absl::SimpleAtoi(text, &days)) return false;
  value = absl::Hours(24) * days;
  return true;
}

std::function<absl::Status(absl::string_view, ServerConfig&)> KeptFor(
    absl::Duration ServerConfig::*member) {
  return [member](absl::string_view text, ServerConfig& config) -> absl::Status {
    absl::Duration value;
    const bool is_duration = ReadDays(text, value) || absl::ParseDuration(text, &value);
    if (text == "never" || (is_duration && value == absl::ZeroDuration())) {
      value = absl::InfiniteDuration();
    } else if (!is_duration || value < absl::Seconds(1) || value > 36'500 * absl::Hours(24)) {
      return Refuse("must be never, or a duration from 1s to 36500d, such as 90m, 12h or 30d");
    }
    config.*member = value;
    return absl::OkStatus();
  };
}

absl::Status ReadLogLevel(absl::string_view text, ServerConfig& config) {
  if (text != "debug" && text != "info" && text != "warning" && text != "error") {
    return Refuse("must be debug, info, warning or error");
  }
  config.log_level = std::string(text);
  return absl::OkStatus();
}

const std::vector<Setting>& Settings() {
  constexpr int64_t kMiB = int64_t{1} << 20;
  constexpr int64_t kTiB = int64_t{1} << 40;
  static const auto* settings = new std::vector<Setting>{
      {"listen", "HOST:PORT",
       "Address of the gRPC services. Port 0 takes a free one; the line\n"
       "\"listening on HOST:PORT\" on standard output tells it. Default 127.0.0.1:50051.",
       Address(&ServerConfig::listen, /*or_none=*/false)},
      {"metrics_listen", "HOST:PORT",
       "Address of the Prometheus page /metrics; empty for none. Default 127.0.0.1:9464.",
       Address(&ServerConfig::metrics_listen, /*or_none=*/true)},
      {"health_listen", "HOST:PORT",
       "Address of the gRPC health service for probes that bring neither TLS nor tokens, such as\n"
       "a kubelet's: it tells in the clear whether the server is ready and alive, and nothing\n"
       "else. On --listen health is answered too, to whoever may call. Default none.",
       Address(&ServerConfig::health_listen, /*or_none=*/true)},
      {"tokens", "FILE",
       "Who may call, by bearer tokens: a line of JSON each, {\"sha256\": of the token in\n"
       "hexadecimal digits, \"tenant\": NAME, \"role\": \"reader\", \"user\" or \"admin\", "
       "\"name\": for\n"
       "the log}; 'valuescope tokens create --tenant lab --role user' makes a token and its line.\n"
       "Readers look, users also run models, start jobs, store and delete, admins also load and\n"
       "unload models. A change is in force within 5 s; put a new file in its place by renaming.\n"
       "A file with a mistake is logged and the one before stays. Calls without a token are\n"
       "UNAUTHENTICATED. Beyond this machine tokens need TLS. Default none: everybody may do\n"
       "everything as the tenant default.",
       NonEmpty(&ServerConfig::tokens)},
      {"jwt_keys", "FILE",
       "Public keys of who signs tokens, as a JWK set, such as a cluster's, which\n"
       "'kubectl get --raw /openid/v1/jwks' prints. Whoever shows a JSON Web Token of it is who\n"
       "the line of --tokens with its \"sub\" (in the place of sha256; a * at its end stands for\n"
       "any rest) says, and nobody without one. Read again like --tokens.",
       NonEmpty(&ServerConfig::jwt_keys)},
      {"jwt_issuer", "URL", "What the `iss` of these tokens must be, letter by letter.",
       NonEmpty(&ServerConfig::jwt_issuer)},
      {"jwt_audience", "NAME", "What their `aud` must be or have among others. Default valuescope.",
       NonEmpty(&ServerConfig::jwt_audience)},
      {"jwt_leeway", "DURATION",
       "By how much the issuer's clock may differ, up to 10m, for their `exp` and `nbf`.\n"
       "Default 1m.",
       Between<0, 600'000>(&ServerConfig::jwt_leeway, "30s")},
      {"audit_log", "FILE",
       "Where it is written down who did what to which resources: a line of JSON for every call\n"
       "that names or makes one, or is refused for who calls, with time, tenant, caller, role,\n"
       "method, outcome, resources and request id. Where the file is moved away another one is\n"
       "begun. Default none.",
       NonEmpty(&ServerConfig::audit_log)},
      {"tls_certificate", "FILE",
       "PEM file of the server's certificate and those between it and its root: --listen speaks\n"
       "TLS. It and the next two are read again when they change, for new connections.",
       NonEmpty(&ServerConfig::tls_certificate)},
      {"tls_key", "FILE", "PEM file of its private key, without a password.",
       NonEmpty(&ServerConfig::tls_key)},
      {"tls_client_ca", "FILE",
       "PEM file of the roots of clients' certificates. A client may then say who it is by its\n"
       "certificate, whose one URI is spiffe://DOMAIN/tenant/TENANT/role/ROLE (any DOMAIN), and\n"
       "must where there are no --tokens. Of certificate and token the token counts.",
       NonEmpty(&ServerConfig::tls_client_ca)},
      {"model_root", "DIR",
       "Directory with one Hugging Face folder a model (config.json, *.safetensors,\n"
       "tokenizer.json). Default models.",
       NonEmpty(&ServerConfig::model_root)},
      {"models", "NAME[,NAME]",
       "Models to load at start; the server is ready once they are. Default none.", ReadModels},
      {"store", "sqlite:PATH|postgresql://USER@HOST/DATABASE",
       "Database of vectors, neuron sets, artifacts and jobs; its tables are made where there\n"
       "are none. A SQLite file serves one server. A PostgreSQL database (13 or later) serves\n"
       "several, which do each other's jobs, shard by shard; its password is not part of the\n"
       "URL but lies in a file that PGPASSFILE names (or ~/.pgpass), or in PGPASSWORD.\n"
       "Default sqlite:valuescope.db.",
       ReadStore},
      {"artifacts", "DIR|s3://BUCKET[/PREFIX]",
       "Directory of the stored bytes, or a bucket of an S3-compatible store and what their keys\n"
       "begin with; of a PostgreSQL database one that all its servers share, and no other store\n"
       "uses: bytes that nothing names are removed. Default the SQLite file's path with\n"
       ".artifacts behind it.",
       ReadArtifacts},
      {"s3_endpoint", "URL",
       "The S3 store, http[s]://HOST[:PORT]. A certificate is always checked. Default AWS's of\n"
       "--s3_region.",
       ReadS3Endpoint},
      {"s3_region", "REGION", "Region that requests to S3 are signed for. Default us-east-1.",
       ReadS3Region},
      {"s3_addressing", "path|host",
       "Whether the bucket stands in the path (HOST/BUCKET/KEY) or before the host\n"
       "(BUCKET.HOST/KEY). Default host at AWS, path with --s3_endpoint.",
       ReadS3Addressing},
      {"s3_credentials_file", "FILE",
       "Keys for S3, in the form of ~/.aws/credentials: the section [default] with\n"
       "aws_access_key_id, aws_secret_access_key and maybe aws_session_token. It is read again\n"
       "when it changes. Default the environment's AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and\n"
       "AWS_SESSION_TOKEN.",
       ReadS3CredentialsFile},
      {"s3_ca_file", "FILE",
       "PEM file of the certificates that the S3 store's is checked against. Default the system's.",
       ReadS3CaFile},
      {"scratch", "DIR",
       "Directory, on a local disk, of bytes on their way to S3 and of what extractions put aside\n"
       "where --artifacts is in S3. Default /var/tmp.",
       NonEmpty(&ServerConfig::scratch)},
      {"replica_name", "NAME",
       "What this server is called in lists of the servers that share a store: 1 to 256 letters,\n"
       "digits and signs of ASCII. Default the host's name and the port.",
       PlainName(&ServerConfig::replica_name)},
      {"device", "cpu|cuda[:N]",
       "Where models run. Default cpu. cuda needs libtorch with its CUDA libraries\n"
       "(docker/setup --cuda). Tested on one NVIDIA H100; unverified on other cards and on\n"
       "several of them.",
       ReadDevice},
      {"dtype", "TYPE",
       "Element type models compute in: float32, bfloat16 or float16. Default float32.", ReadDType},
      {"batch_invariant", "",
       "A request gets the same bits whoever else is in its batch, at some cost in speed. On a\n"
       "CPU in float32 it does in any case.",
       Boolean(&ServerConfig::batch_invariant)},
      {"threads", "N", "Threads of the forward pass; 0 takes one a core. Default 0.",
       Integer(&ServerConfig::threads, 0, 1024)},
      {"kv_cache_bytes", "BYTES",
       "Size of each model's key/value cache, also as 512MiB or 2GiB. Default 1GiB.",
       Bytes(&ServerConfig::kv_cache_bytes, kMiB, 16 * kTiB)},
      {"max_batch_rows", "N", "Requests decoded in one step. Default 64.",
       Integer(&ServerConfig::max_batch_rows, 1, 4096)},
      {"max_step_tokens", "N",
       "Prompt and decode tokens of one step. Default 256, on a GPU 2048; at least\n"
       "--max_batch_rows.",
       Integer(&ServerConfig::max_step_tokens, 1, 1 << 20)},
      {"max_waiting", "N",
       "Requests of a model that may wait for their first step; one more is told to retry\n"
       "later. Default 1024.",
       Integer(&ServerConfig::max_waiting, 1, 1 << 20)},
      {"max_message_bytes", "BYTES",
       "Largest request message. All calls that run or wait hold at most eight times as much\n"
       "together of their messages, what they make of them and what waits to be sent: who finds\n"
       "that full is told to retry later. Default 64MiB.",
       Bytes(&ServerConfig::max_message_bytes, kMiB, int64_t{1} << 30)},
      {"host_memory_bytes", "BYTES",
       "What the server may hold of this machine's memory in all: weights, caches and steps of\n"
       "models on the CPU, requests, captures, tables and messages, each within the bound of its\n"
       "own flag. A model that does not fit beside the others is not loaded, and a request is\n"
       "told to retry later. Default all memory of the machine, or of the container.",
       Bytes(&ServerConfig::host_memory_bytes, kMiB, 16 * kTiB)},
      {"request_memory_bytes", "BYTES",
       "What a model's requests that run or wait may hold beside their messages: token ids,\n"
       "numbers and neurons of interventions, log-probabilities, and 200 times a text while it\n"
       "is tokenised. Who finds it full is told to retry later; what can never fit is refused.\n"
       "Default 1GiB.",
       Bytes(&ServerConfig::request_memory_bytes, kMiB, 16 * kTiB)},
      {"capture_memory_bytes", "BYTES",
       "What the captures of a model's requests may hold until they are sent. Default 1GiB.",
       Bytes(&ServerConfig::capture_memory_bytes, kMiB, 16 * kTiB)},
      {"intervention_memory_bytes", "BYTES",
       "What a model's tables of interventions may hold, on its device. A request waits until\n"
       "there is room for its own; one that can never have it is refused. Default 1GiB.",
       Bytes(&ServerConfig::intervention_memory_bytes, kMiB, 16 * kTiB)},
      {"extraction_scratch_bytes", "BYTES",
       "What an extraction's means of responses may take of the disk of --artifacts (--scratch,\n"
       "where that is in S3) until it ends.\n"
       "Where they would take more, a vector is made of sums alone and its statistics lack what\n"
       "needs the means: AUROC, intervals and what is clustered by query. Default 32GiB.",
       Bytes(&ServerConfig::extraction_scratch_bytes, 0, 1024 * kTiB)},
      {"tenants", "LIST",
       "What tenants may have, separated by commas, each NAME:weight=W:running=N:queued=N:\n"
       "stored=BYTES:calls=N:tokens_per_minute=N:queue_share=S:cache_share=S, any of them left\n"
       "out; * is everybody who is not named, and what others leave out. Tenants with work get\n"
       "workers' time, and tokens of models, in proportion to weight (0.001 to 1000, default 1);\n"
       "running bounds the shards of their jobs that run at a time, queued the jobs that have not\n"
       "begun, stored the bytes of their vectors, neuron sets and artifacts. On each server, "
       "calls\n"
       "bounds the calls that run at a time, but for those that watch, and tokens_per_minute the\n"
       "tokens of prompts and answers of calls; jobs take none. 0 is no bound. Of each model\n"
       "queue_share bounds the part of the queue that their requests may have, cache_share the\n"
       "part of the key/value cache that those that run may (0.001 to 1). What tenants publish is\n"
       "stored by the tenant shared.\n"
       "Default *:weight=1:running=0:queued=10000:stored=0:calls=0:tokens_per_minute=0:\n"
       "queue_share=1:cache_share=1.",
       [](absl::string_view text, ServerConfig& config) {
         return ReadTenants(text, config.tenants);
       }},
      {"tenants_file", "FILE",
       "The same as a file, instead of --tenants: a tenant a line; lines that begin with # are\n"
       "skipped. A change is in force within 5 s, for calls and jobs that run too; put a new file\n"
       "in its place by renaming. A file with a mistake is logged and the one before stays.\n"
       "Default none.",
       NonEmpty(&ServerConfig::tenants_file)},
      {"job_commit_interval", "DURATION",
       "Time between commits of a running shard of a job. kill -9 loses the work of that time,\n"
       "or of one chunk where a chunk takes longer. 0s commits every chunk. Default 2s.",
       UpToADay(&ServerConfig::job_commit_interval)},
      {"job_workers", "N",
       "Shards of jobs that run at a time, 1 to 16. One alone seldom fills the steps of a model:\n"
       "where a device computes many rows at once, as GPUs do, several get more done together.\n"
       "Each takes memory of its own, and kill -9 loses the work of each since its last commit.\n"
       "Default 1.",
       Integer(&ServerConfig::job_workers, 1, kMostJobWorkers)},
      {"job_turn", "DURATION",
       "A shard that has run for this long gives way where a tenant waits that has had less of\n"
       "workers' time, or a job of its tenant with a higher priority. Default 10s.",
       UpToADay(&ServerConfig::job_turn)},
      {"job_lease", "DURATION",
       "How long the shard of a server that died or stands still is left to it before others take\n"
       "it over, 3s to 1h. A server extends its lease three times as often; all servers of a "
       "store\n"
       "should have the same. Default 30s.",
       [](absl::string_view text, ServerConfig& config) -> absl::Status {
         absl::Duration value;
         if (!absl::ParseDuration(text, &value) || value < absl::Seconds(3) ||
             value > absl::Hours(1)) {
           return Refuse("must be a duration from 3s to 1h, such as 30s");
         }
         config.job_lease = value;
         return absl::OkStatus();
       }},
      {"keep_jobs", "DURATION|never",
       "How long finished jobs are kept. Behind that they are deleted with their artifacts, as\n"
       "DeleteJob does it; vectors and neuron sets stay. 0 or never keeps them. Default 30d.",
       KeptFor(&ServerConfig::keep_jobs)},
      {"keep_partials", "DURATION|never",
       "How long a failed or cancelled job keeps what it has done, for a retry to go on with.\n"
       "Default 7d.",
       KeptFor(&ServerConfig::keep_partials)},
      {"keep_request_ids", "DURATION|never",
       "How long a request that is sent again is recognised by its request_id. Default 7d.",
       KeptFor(&ServerConfig::keep_request_ids)},
      {"keep_usage", "DURATION|never",
       "How long it is kept what each tenant used in an hour, for QueryUsage. Default 400d.",
       KeptFor(&ServerConfig::keep_usage)},
      {"keep_orphaned_blobs", "DURATION|never",
       "How long stored bytes are kept that nothing names any more, or not yet: longer than any\n"
       "request or step of a job takes between its first byte and its end. Default 1h.",
       KeptFor(&ServerConfig::keep_orphaned_blobs)},
      {"drain_timeout", "DURATION",
       "How long running calls may go on after SIGTERM, such as 30s. Default 30s.",
       UpToADay(&ServerConfig::drain_timeout)},
      {"step_timeout", "DURATION",
       "A step of a model that runs longer is reported: the log says so and the health service's\n"
       "liveness is NOT_SERVING until it ends. 0s reports none. Default 2m.",
       UpToADay(&ServerConfig::step_timeout)},
      {"heartbeat", "DURATION",
       "A stream of answers with nothing to send for this long sends a heartbeat, so that no\n"
       "proxy takes it for dead. Default 15s.",
       // Longer than proxies wait would be of no use, and shorter than a few steps only work.
       Between<10, 20'000>(&ServerConfig::heartbeat, "5s")},
      {"connection_age", "DURATION",
       "A connection of this age is asked to end once its calls have: its client connects anew,\n"
       "so that clients spread over replicas that came later. Calls go on, and the next one\n"
       "waits for the new connection. 0s asks none. Default 0s.",
       UpToADay(&ServerConfig::connection_age)},
      {"log_level", "LEVEL", "debug, info, warning or error. Default info.", ReadLogLevel},
      {"insecure", "",
       "Allows a --listen or --metrics_listen address that other machines can reach without TLS\n"
       "and authentication: everybody who reaches it may do everything.",
       Boolean(&ServerConfig::insecure)},
      {"check_config", "",
       "Checks flags, file and the places they name, and exits with 0 or 2. Opens nothing.",
       Boolean(&ServerConfig::check_config)},
  };
  return *settings;
}

const Setting* FindSetting(absl::string_view name) {
  for (const Setting& setting : Settings()) {
    if (setting.name == name) return &setting;
  }
  return nullptr;
}

absl::Status Read(const Setting& setting, absl::string_view text, absl::string_view where,
                  ServerConfig& config) {
  if (absl::StrContains(text, '\0')) return Refuse(absl::StrCat(where, " must not contain NUL"));
  const absl::Status status = setting.read(text, config);
  if (status.ok()) return status;
  return Refuse(absl::StrCat(where, " ", status.message(), ", not \"", Shown(text), "\""));
}

// A JSON value as the text that a flag would have.
absl::StatusOr<std::string> FlagText(const nlohmann::json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean() || value.is_number_integer()) return value.dump();
  if (value.is_array()) {
    std::vector<std::string> items;
    for (const nlohmann::json& item : value) {
      if (!item.is_string()) return Refuse("must be a list of strings");
      items.push_back(item.get<std::string>());
    }
    return absl::StrJoin(items, ",");
  }
  return Refuse("must be a string, a whole number, true, false or a list of strings");
}

absl::Status ReadFile(const std::string& path, ServerConfig& config) {
  std::ifstream file(path, std::ios::binary);
  std::string text;
  if (file) {
    text.resize(kMaxConfigBytes + 1);
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<size_t>(file.gcount()));
  }
  if (file.bad() || !file.is_open()) {
    return Refuse(absl::StrCat("--config names a file that cannot be read: ", Shown(path)));
  }
  if (text.size() > kMaxConfigBytes) {
    return Refuse(absl::StrCat("--config names a file of more than ", kMaxConfigBytes, " bytes"));
  }
  const absl::StatusOr<nlohmann::json> json = ParseStrictJson(text);
  if (!json.ok()) {
    return Refuse(absl::StrCat("--config: ", Shown(path), ": ", json.status().message()));
  }
  if (!json->is_object()) {
    return Refuse(absl::StrCat("--config: ", Shown(path), " is no JSON object"));
  }
  for (const auto& [name, value] : json->items()) {
    const Setting* setting = FindSetting(name);
    if (setting == nullptr) return Refuse(absl::StrCat("--config: unknown setting ", Shown(name)));
    const absl::StatusOr<std::string> flag_text = FlagText(value);
    if (!flag_text.ok()) {
      return Refuse(absl::StrCat("--config: ", name, " ", flag_text.status().message()));
    }
    VS_RETURN_IF_ERROR(Read(*setting, *flag_text, absl::StrCat("--config: ", name), config));
  }
  return absl::OkStatus();
}

// Settings that are each allowed and cannot be had together.
absl::Status CheckTogether(const ServerConfig& config) {
  VS_RETURN_IF_ERROR(CheckAccess(config));
  if (!config.tenants_file.empty() && config.tenants != TenantPolicies()) {
    return Refuse("--tenants and --tenants_file say the same: give one of them");
  }
  // Not told by ReadStore, whose complaints show what they are about.
  if (HasPassword(config.store_url)) {
    return Refuse(
        "--store must not have a password in its URL, which others can see in the list of "
        "processes: put it into a file that the environment's PGPASSFILE names, or into "
        "PGPASSWORD");
  }
  VS_RETURN_IF_ERROR(CheckS3Flags(config));
  if (config.artifacts.empty() && config.s3.bucket.empty()) {
    return Refuse(
        "--artifacts must name a directory, or a bucket in S3, that all servers of the database of "
        "--store share");
  }
  if (!config.artifacts.empty() && config.artifacts == config.store_path) {
    return Refuse("--artifacts must not be the file of --store");
  }
  if (config.max_step_tokens < config.max_batch_rows) {
    return Refuse(absl::StrCat("--max_step_tokens must be at least --max_batch_rows, ",
                               config.max_batch_rows, ": a step has a token of every request, not ",
                               config.max_step_tokens));
  }
  return absl::OkStatus();
}

bool IsUsableDirectory(const std::filesystem::path& path, int access_mode) {
  std::error_code error;
  const std::filesystem::path directory = path.empty() ? "." : path;
  return std::filesystem::is_directory(directory, error) &&
         access(directory.c_str(), access_mode | X_OK) == 0;
}

// Another program's file must not be taken for a damaged store. Nothing there, or nothing in it, is
// a store to be.
bool MayBeDatabase(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return true;
  if (!std::filesystem::is_regular_file(path, error)) return false;
  constexpr absl::string_view kHeader("SQLite format 3\0", 16);
  std::string begin(kHeader.size(), '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(begin.data(), static_cast<std::streamsize>(begin.size()));
  return file.gcount() == 0 || begin == kHeader;
}

absl::Status CheckDatabaseFile(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path store = path;
  if (fs::is_directory(store, error)) {
    return Refuse(
        absl::StrCat("--store must name a file, not the directory \"", Shown(path), "\""));
  }
  if (!MayBeDatabase(store)) {
    return Refuse(
        absl::StrCat("--store must name a SQLite database or a file that is not there "
                     "yet, not \"",
                     Shown(path), "\""));
  }
  if (!IsUsableDirectory(store.parent_path(), W_OK)) {
    return Refuse(
        absl::StrCat("--store must lie in a directory that the server may write to, not "
                     "\"",
                     Shown(store.parent_path().string()), "\""));
  }
  return absl::OkStatus();
}

// What is missing of its path is made.
absl::Status CheckDirectoryToBe(absl::string_view flag, const std::string& directory) {
  std::error_code error;
  std::filesystem::path there = directory;
  while (!there.empty() && !std::filesystem::exists(there, error)) there = there.parent_path();
  if (IsUsableDirectory(there, W_OK)) return absl::OkStatus();
  return Refuse(absl::StrCat("--", flag,
                             " must be a directory that the server may write to or make, not \"",
                             Shown(directory), "\""));
}

// A file that lines are added to, or that is made for them.
absl::Status CheckLogFile(absl::string_view flag, const std::string& path) {
  std::error_code error;
  const std::filesystem::path file = path;
  if (path.empty()) return absl::OkStatus();
  const bool there = std::filesystem::exists(file, error);
  if (there ? !std::filesystem::is_directory(file, error) && ::access(path.c_str(), W_OK) == 0
            : IsUsableDirectory(file.parent_path(), W_OK)) {
    return absl::OkStatus();
  }
  return Refuse(absl::StrCat("--", flag,
                             " must be a file that the server may write to or make, not \"",
                             Shown(path), "\""));
}

}  // namespace

absl::Status CheckPlaces(const ServerConfig& config) {
  namespace fs = std::filesystem;
  std::error_code error;
  // The default root need not be there for a server without models.
  if (config.model_root != ServerConfig().model_root &&
      !IsUsableDirectory(config.model_root, R_OK)) {
    return Refuse(absl::StrCat("--model_root must be a directory that the server may read, not \"",
                               Shown(config.model_root), "\""));
  }
  for (const std::string& id : config.models) {
    if (!fs::is_regular_file(fs::path(config.model_root) / id / "config.json", error)) {
      return Refuse(absl::StrCat("--models names models/", id,
                                 ", but --model_root=", Shown(config.model_root),
                                 " has no such folder with a config.json"));
    }
  }
  VS_RETURN_IF_ERROR(CheckAccessFiles(config));
  VS_RETURN_IF_ERROR(CheckReadable("--tenants_file", config.tenants_file));
  VS_RETURN_IF_ERROR(CheckLogFile("audit_log", config.audit_log));
  if (config.store_url.empty()) VS_RETURN_IF_ERROR(CheckDatabaseFile(config.store_path));
  if (config.s3.bucket.empty()) return CheckDirectoryToBe("artifacts", config.artifacts);
  VS_RETURN_IF_ERROR(CheckS3Files(config.s3));
  return CheckDirectoryToBe("scratch", config.scratch);
}

absl::StatusOr<ServerConfig> ParseServerConfig(const std::vector<std::string>& arguments) {
  ServerConfig config;
  std::vector<std::pair<const Setting*, std::string>> flags;
  std::string file;
  for (const std::string& argument : arguments) {
    if (argument == "--help" || argument == "-h") {
      config.help = true;
      return config;
    }
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    if (!absl::StartsWith(name, "--")) {
      return Refuse(absl::StrCat("unexpected argument \"", Shown(argument),
                                 "\"; flags are written --name=value (see --help)"));
    }
    const bool has_value = equals != std::string::npos;
    const std::string value = has_value ? argument.substr(equals + 1) : "";
    if (name == "--config") {
      if (value.empty()) return Refuse("--config needs a file: --config=FILE");
      file = value;
      continue;
    }
    const Setting* setting = FindSetting(absl::string_view(name).substr(2));
    if (setting == nullptr)
      return Refuse(absl::StrCat("unknown flag ", Shown(name), " (see --help)"));
    const bool is_switch = setting->value.empty();
    if (!has_value && !is_switch) {
      return Refuse(absl::StrCat(name, " needs a value: ", name, "=", std::string(setting->value)));
    }
    flags.emplace_back(setting, has_value ? value : "true");
  }
  if (!file.empty()) VS_RETURN_IF_ERROR(ReadFile(file, config));
  for (const auto& [setting, text] : flags) {
    VS_RETURN_IF_ERROR(Read(*setting, text, absl::StrCat("--", setting->name), config));
  }
  if (config.artifacts.empty() && config.s3.bucket.empty() && config.store_url.empty()) {
    config.artifacts = absl::StrCat(config.store_path, ".artifacts");
  }
  if (config.max_step_tokens == 0) {
    config.max_step_tokens = std::max(config.max_batch_rows, config.device == "cpu" ? 256 : 2048);
  }
  VS_RETURN_IF_ERROR(CheckTogether(config));
  return config;
}

std::string HelpText() {
  std::string text =
      "valuescope-server: inference for research on value mechanisms of language models, over "
      "gRPC.\n"
      "It generates under steering, reads activations, extracts and decomposes value vectors,\n"
      "attributes neurons, and runs long studies as durable jobs.\n"
      "\n"
      "Examples:\n"
      "  valuescope-server --model_root=$HOME/models --models=SmolLM2-135M-Instruct\n"
      "  valuescope-server --listen=127.0.0.1:0 --store=sqlite:/var/lib/valuescope/store.db\n"
      "  valuescope-server --store=postgresql://valuescope@db/valuescope "
      "--artifacts=/shared/blobs\n"
      "  valuescope-server --artifacts=s3://lab/valuescope --s3_endpoint=https://minio.lab:9000\n"
      "  valuescope-server --listen=0.0.0.0:50051 --tls_certificate=tls.crt --tls_key=tls.key "
      "--tokens=tokens.jsonl\n"
      "  valuescope-server --config=server.json --check_config\n"
      "\n"
      "Flags (the keys of the JSON file that --config names are the same; flags win):\n"
      "  --config=FILE\n"
      "      A JSON object, such as {\"models\": [\"SmolLM2-135M-Instruct\"], \"threads\": 2}.\n";
  for (const Setting& setting : Settings()) {
    absl::StrAppend(&text, "  --", setting.name, setting.value.empty() ? "" : "=", setting.value,
                    "\n      ", absl::StrJoin(absl::StrSplit(setting.help, '\n'), "\n      "),
                    "\n");
  }
  absl::StrAppend(
      &text,
      "\n"
      "Logs are JSON Lines on standard error. SIGTERM drains: running calls may finish\n"
      "within --drain_timeout; a second signal ends the server at once. Exit code 0 after\n"
      "a drain, 2 for a bad configuration or an address in use, 1 for any other failure.\n");
  return text;
}

}  // namespace valuescope::config
