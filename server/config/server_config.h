// The server's configuration: flags and a JSON file of the same names become one struct, checked
// once, before anything starts. Flags win over the file.
#ifndef VALUESCOPE_CONFIG_SERVER_CONFIG_H_
#define VALUESCOPE_CONFIG_SERVER_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/dtype.h"
#include "base/tenant_policy.h"

namespace valuescope::config {

// Where blobs are that lie in an S3 store.
struct S3Config {
  std::string bucket;    // empty: they lie in a directory
  std::string prefix;    // of keys, without slashes at its ends; may be empty
  std::string endpoint;  // http[s]://HOST[:PORT]; empty: AWS's of the region
  std::string region = "us-east-1";
  std::string addressing;  // "path", "host"; empty: as the endpoint likes it, see BucketInHost
  std::string credentials_file;  // empty: the environment has them
  std::string ca_file;           // empty: the system's certificates

  // https://BUCKET.HOST/KEY, else https://HOST/BUCKET/KEY.
  bool BucketInHost() const;
};

struct ServerConfig {
  std::string listen = "127.0.0.1:50051";         // HOST:PORT of gRPC; port 0 takes a free one
  std::string metrics_listen = "127.0.0.1:9464";  // HOST:PORT of /metrics; empty: none
  std::string health_listen;                      // HOST:PORT of health in the clear; empty: none
  std::string tokens;                             // file of who may call; empty: there are none
  std::string jwt_keys;                           // JWK set of an issuer; empty: there is none
  std::string jwt_issuer;                         // empty where jwt_keys is
  std::string jwt_audience = "valuescope";        // that its tokens have to name
  absl::Duration jwt_leeway = absl::Seconds(60);  // by which its clock may differ
  std::string audit_log;                          // file; empty: there is none
  std::string tls_certificate, tls_key;           // files; empty: no TLS
  std::string tls_client_ca;                      // file; empty: clients show no certificate
  std::string model_root = "models";              // a folder a model
  std::vector<std::string> models;                // ids to load at start
  std::string store_path = "valuescope.db";       // the SQLite file; empty where store_url is not
  std::string store_url;                          // of the PostgreSQL database; empty: SQLite
  // Directory of blobs, of SQLite by default store_path + ".artifacts"; empty where s3 has them.
  std::string artifacts;
  S3Config s3;
  std::string scratch = "/var/tmp";  // directory of what is on its way to S3, or put aside
  std::string replica_name;  // to others that share the store; empty: the host's name and the port
  std::string device = "cpu";
  DType dtype = DType::kFloat32;
  bool batch_invariant = false;  // see HelpText; on a CPU float32 is in any case
  int threads = 0;               // 0: one a core
  int64_t kv_cache_bytes = int64_t{1} << 30;
  int max_batch_rows = 64;  // requests decoded in one step
  // Prompt and decode tokens of one step; as the device likes it where no flag says how many.
  int max_step_tokens = 0;
  int max_waiting = 1024;                         // requests of a model admitted and not started
  int64_t max_message_bytes = int64_t{64} << 20;  // of one request
  int64_t host_memory_bytes = 0;  // of all the server holds; 0: what the machine has for it
  // Of each model: what its requests are made of, captures, and tables of interventions.
  int64_t request_memory_bytes = int64_t{1} << 30;
  int64_t capture_memory_bytes = int64_t{1} << 30;
  int64_t intervention_memory_bytes = int64_t{1} << 30;
  int64_t extraction_scratch_bytes = int64_t{32} << 30;   // of disk, of one extraction
  TenantPolicies tenants;                                 // what each may have, without a file
  std::string tenants_file;                               // of what each may have; empty: no file
  int job_workers = 1;                                    // shards of jobs that run at a time
  absl::Duration job_commit_interval = absl::Seconds(2);  // 0: every chunk of a shard is committed
  absl::Duration job_turn = absl::Seconds(10);            // of a shard, where others wait
  absl::Duration job_lease = absl::Seconds(30);           // of a shard, unless it is extended
  // How long things are kept; absl::InfiniteDuration() for ever.
  absl::Duration keep_jobs = absl::Hours(30 * 24);        // finished ones, with their artifacts
  absl::Duration keep_partials = absl::Hours(7 * 24);     // of failed and cancelled jobs
  absl::Duration keep_request_ids = absl::Hours(7 * 24);  // of requests that made something
  absl::Duration keep_usage = absl::Hours(400 * 24);      // what tenants used in an hour
  absl::Duration keep_orphaned_blobs = absl::Hours(1);    // bytes that nothing names
  absl::Duration drain_timeout = absl::Seconds(30);
  absl::Duration step_timeout = absl::Minutes(2);        // 0: however long a step takes
  absl::Duration heartbeat = absl::Seconds(15);          // of streams with nothing to send
  absl::Duration connection_age = absl::ZeroDuration();  // 0: connections grow as old as they like
  std::string log_level = "info";                        // debug, info, warning, error
  bool insecure = false;      // allows listeners others can reach, without auth
  bool check_config = false;  // check and exit
  bool help = false;          // show HelpText and exit

  bool HasTls() const { return !tls_certificate.empty(); }
  // Whether callers have to say who they are.
  bool Authenticates() const { return !tokens.empty() || !tls_client_ca.empty(); }
};

// Reads flags (without the program's name) and the file that --config names. INVALID_ARGUMENT with
// one line that names the flag, what is wrong and what is allowed.
absl::StatusOr<ServerConfig> ParseServerConfig(const std::vector<std::string>& arguments);

// What only the machine can say: whether directories are there and may be read or written, and
// whether every model of --models has its folder. INVALID_ARGUMENT with one line that names the
// flag. Changes nothing.
absl::Status CheckPlaces(const ServerConfig& config);

// What --help prints.
std::string HelpText();

}  // namespace valuescope::config

#endif  // VALUESCOPE_CONFIG_SERVER_CONFIG_H_
