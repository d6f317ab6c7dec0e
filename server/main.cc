// valuescope-server: composes the rooms, serves, and drains on SIGTERM.
//
// Order of a drain: readiness off; nothing new is taken, and calls that only wait (watchers of
// jobs) end; models that are loading stop loading; the worker is asked to stop (its shard is given
// back); running calls may finish until the deadline, then get UNAVAILABLE, whether or not the
// worker has returned; engines stop; what was used is written down; exit code 0. A second signal
// ends the process at once: everything that was answered is durable, and a lease that is left
// behind is taken back at the next start, or by another server that shares the store once it has
// run out.
//
// Long because it is the one place that knows all rooms: who is made of whom, in which order they
// start, and in which they end.
#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/host_memory.h"
#include "base/memory_ledger.h"
#include "base/recurring.h"
#include "base/reread_file.h"
#include "base/status_macros.h"
#include "base/tenant_policy.h"
#include "base/usage_tally.h"
#include "bindings/bindings.h"
#include "config/server_config.h"
#include "config/tenant_setting.h"
#include "cuda/cuda_devices.h"
#include "engine/model_registry.h"
#include "engine/step_watchdog.h"
#include "engine/token_quotas.h"
#include "jobs/job_queue.h"
#include "jobs/replica_beat.h"
#include "jobs/retention.h"
#include "jobs/usage_writer.h"
#include "jobs/worker.h"
#include "kinds/kinds.h"
#include "observability/audit_log.h"
#include "observability/log.h"
#include "observability/metrics.h"
#include "rpc/authenticator.h"
#include "rpc/call_runtime.h"
#include "rpc/credentials.h"
#include "rpc/health.h"
#include "rpc/jwt.h"
#include "rpc/reflection.h"
#include "rpc/rpc_service.h"
#include "rpc/server_tls.h"
#include "rpc/token_file.h"
#include "services/activation_service.h"
#include "services/artifact_service.h"
#include "services/evaluation_service.h"
#include "services/generation_service.h"
#include "services/job_service.h"
#include "services/model_service.h"
#include "services/neuron_service.h"
#include "services/replica_record.h"
#include "services/stored_vector_resolver.h"
#include "services/tenant_service.h"
#include "services/vector_service.h"
#include "store/directory_blob_store.h"
#include "store/postgres_store.h"
#include "store/s3_blob_store.h"
#include "store/sqlite_store.h"

namespace valuescope {
namespace {

using observability::Log;
using observability::LogLevel;

constexpr char kVersion[] = "0.1.0";
constexpr int kFailure = 1;
constexpr int kBadConfiguration = 2;
constexpr char kReadiness[] = "readiness";
constexpr char kLiveness[] = "liveness";
// Messages of the largest size that calls which run or wait may hold.
constexpr int64_t kMessagesHeld = 8;
// What gRPC takes of a message before somebody asks for it.
constexpr int kUnaskedBytes = 64 << 10;
// Of gRPC's memory, beside messages on their way: calls and connections.
constexpr size_t kTransportBytes = size_t{16} << 20;
// Kept of the drain's time for telling calls that they were ended.
constexpr absl::Duration kGoodbye = absl::Seconds(2);

// gRPC's own log lines, as JSON like ours. What it says of an address that cannot be had is said
// better by us, so it is heard from the moment the server listens.
void LogGrpcQuietly(gpr_log_func_args* line) {
  Log(LogLevel::kDebug, "grpc", {{"message", line->message}});
}
void LogGrpc(gpr_log_func_args* line) {
  const bool error = line->severity == GPR_LOG_SEVERITY_ERROR;
  Log(error ? LogLevel::kWarning : LogLevel::kDebug, "grpc", {{"message", line->message}});
}

// What protobuf says of messages that it cannot read, which calls are told as well.
void LogProtobuf(google::protobuf::LogLevel, const char*, int, const std::string& message) {
  Log(LogLevel::kDebug, "protobuf", {{"message", message}});
}

// Pings find out who is gone: without them a connection whose other end vanished without a word
// holds its calls until their deadlines. And clients may ping us as often as they reasonably do:
// gRPC's default ends the connection of whoever pings more than once in five minutes of silence.
void KeepConnectionsAlive(grpc::ServerBuilder& builder) {
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // no limit on ours
  // Half of what clients that ping every 10 s do, since pings may come in bunches.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 8);
}

int Fail(int code, const std::string& line) {
  std::fprintf(stderr, "valuescope-server: %s\n", line.c_str());
  return code;
}

// The same status, its message beginning with the flag that can mend it.
absl::Status OfFlag(absl::string_view flag, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(flag, ": ", status.message()));
}

LogLevel LevelOf(const std::string& name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "warning") return LogLevel::kWarning;
  if (name == "error") return LogLevel::kError;
  return LogLevel::kInfo;
}

// SIGTERM and SIGINT are taken by sigwait in one thread; every other thread inherits the mask.
sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

observability::ServingState::PlaceMemory MemoryOf(const char* place, const MemoryLedger& ledger) {
  return {.place = place, .held = ledger.used(), .limit = ledger.capacity()};
}

// `lease`: of a shard's step that was just extended.
observability::ServingState StateOf(const engine::ModelRegistry& models, jobs::JobQueue& queue,
                                    absl::Duration lease) {
  store::Store& store = queue.store();
  observability::ServingState state;
  int64_t weights = 0, cache = 0, captures = 0, interventions = 0, requests = 0;
  for (const auto& model : models.Served()) {
    const engine::EngineStatistics statistics = model->engine->statistics();
    state.requests_running += statistics.running;
    state.requests_waiting += statistics.waiting;
    state.batch_rows += statistics.batch_rows;
    state.step_running =
        std::max(state.step_running, Clock::Steady().Now() - statistics.step_began);
    state.kv_cache_used_ratio = std::max(state.kv_cache_used_ratio, statistics.cache_used_ratio);
    state.kv_cache_promised_ratio =
        std::max(state.kv_cache_promised_ratio, statistics.cache_promised_ratio);
    state.kv_cache_cached_ratio =
        std::max(state.kv_cache_cached_ratio, statistics.cache_cached_ratio);
    weights += model->weight_bytes;
    cache += statistics.cache_bytes;
    captures += statistics.capture_memory_bytes;
    interventions += statistics.intervention_bytes;
    requests += statistics.request_memory_bytes;
  }
  // Not by summing what is served: to who scrapes, a counter that falls is one that began anew.
  const engine::EngineTotals totals = models.Totals();
  state.prompt_tokens = totals.prompt_tokens;
  state.generated_tokens = totals.generated_tokens;
  state.prefix_hit_tokens = totals.prefix_hit_tokens;
  state.steered_prefix_hit_tokens = totals.steered_prefix_hit_tokens;
  state.preemptions = totals.preemptions;
  state.admissions = totals.admissions;
  state.captured_bytes = totals.captured_bytes;
  for (size_t i = 0; i < totals.interventions_applied.size(); ++i) {
    state.interventions_applied.emplace_back(std::string(engine::NameOfOperation(i)),
                                             totals.interventions_applied[i]);
  }
  state.device_memory = {{"weights", weights},
                         {"kv_cache", cache},
                         {"captures", captures},
                         {"interventions", interventions},
                         {"requests", requests}};
  if (const auto counts = queue.CountJobs(); counts.ok()) {
    for (const store::JobCount& count : *counts) {
      state.jobs.push_back({.kind = count.kind,
                            .state = std::string(store::NameOf(count.state)),
                            .count = count.count});
    }
  }
  if (const auto rescues = store.TotalRescues(); rescues.ok()) state.job_rescues = *rescues;
  if (const auto ages = store.MeasureAges(); ages.ok()) {
    state.oldest_queued_job = ages->oldest_queued.value_or(absl::ZeroDuration());
    if (ages->next_expiry) state.oldest_lease = lease - *ages->next_expiry;
  }
  return state;
}

void LogStoreError(const absl::Status& status) {
  Log(LogLevel::kError, "store failed", {{"error", status.message()}});
}

jobs::RetentionOptions ObservedRetention(const config::ServerConfig& config,
                                         observability::Metrics* metrics) {
  jobs::RetentionOptions options;
  options.kept = {.jobs = config.keep_jobs,
                  .request_ids = config.keep_request_ids,
                  .partials = config.keep_partials,
                  .usage = config.keep_usage};
  const absl::Duration shortest = std::min(
      {config.keep_jobs, config.keep_request_ids, config.keep_partials, config.keep_usage});
  options.pause = std::clamp(shortest, absl::Seconds(1), options.pause);
  options.on_expired = [metrics](const store::Expired& expired) {
    metrics->Expired("jobs", static_cast<int64_t>(expired.jobs.size()));
    metrics->Expired("request_ids", expired.request_ids);
    metrics->Expired("partials", expired.partials);
    metrics->Expired("usage", expired.usage);
    Log(LogLevel::kInfo, "expired",
        {{"jobs", static_cast<int64_t>(expired.jobs.size())},
         {"request_ids", expired.request_ids},
         {"partials", expired.partials},
         {"usage", expired.usage}});
  };
  options.on_store_error = LogStoreError;
  return options;
}

jobs::WorkerOptions ObservedWorker(const config::ServerConfig& config,
                                   observability::Metrics* metrics) {
  jobs::WorkerOptions options;
  options.turns.commit_interval = config.job_commit_interval;
  options.turns.turn = config.job_turn;
  options.lease = config.job_lease;
  options.beat = config.job_lease / 3;
  options.orphan_grace = config.keep_orphaned_blobs;
  options.sweep = std::clamp(std::min(config.keep_orphaned_blobs, config.job_lease / 6),
                             absl::Milliseconds(500), options.sweep);
  options.observer.on_blob_removed = [metrics] { metrics->Expired("blobs", 1); };
  options.observer.on_step = [metrics](const store::Lease& lease, absl::Duration duration,
                                       const absl::Status& status) {
    if (status.ok()) metrics->ShardFinished(lease.kind, duration);
    const bool as_it_should_be = status.ok() || jobs::IsTurnOver(status);
    Log(as_it_should_be ? LogLevel::kInfo : LogLevel::kWarning, "shard",
        {{"job", lease.job_id},
         {"kind", lease.kind},
         {"shard", lease.shard},
         {"seconds", absl::ToDoubleSeconds(duration)},
         {"code", absl::StatusCodeToString(status.code())},
         {"reason", DetailsOf(status).reason}});
  };
  options.observer.on_store_error = LogStoreError;
  return options;
}

// Of this machine, or container; "localhost" where it has none.
std::string HostName() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0 || name[0] == '\0') return "localhost";
  return name.data();
}

std::function<void(const store::S3Exchange&)> ObservedS3(observability::Metrics* metrics) {
  return [metrics](const store::S3Exchange& exchange) {
    const std::string code =
        exchange.http_status == 0 ? "none" : absl::StrCat(exchange.http_status);
    metrics->S3Finished({.operation = exchange.operation,
                         .code = code,
                         .again = exchange.again,
                         .sent = exchange.sent,
                         .received = exchange.received,
                         .duration = exchange.duration});
    const bool answered = exchange.status.ok() || absl::IsNotFound(exchange.status);
    Log(answered ? LogLevel::kDebug : LogLevel::kWarning, "s3",
        {{"operation", exchange.operation},
         {"code", code},
         {"seconds", absl::ToDoubleSeconds(exchange.duration)},
         {"sent", exchange.sent},
         {"received", exchange.received},
         {"error", answered ? absl::string_view() : exchange.status.message()}});
  };
}

using TenantsFile = RereadFile<TenantPolicies>;
constexpr size_t kLongestTenantsFile = size_t{4} << 20;

rpc::JwtDemands JwtDemandsOf(const config::ServerConfig& config) {
  return {
      .issuer = config.jwt_issuer, .audience = config.jwt_audience, .leeway = config.jwt_leeway};
}

class Server {
 public:
  explicit Server(config::ServerConfig config)
      : config_(std::move(config)),
        tokens_(config_.tokens),
        issuer_(config_.jwt_keys, JwtDemandsOf(config_)),
        tenants_(std::make_shared<TenantPolicySource>(config_.tenants)),
        tenants_file_(config_.tenants_file, kLongestTenantsFile, config::ParseTenants),
        host_memory_({.capacity = config_.host_memory_bytes > 0 ? config_.host_memory_bytes
                                                                : HostMemoryBytes(),
                      .name = "the host's memory for the server"}),
        watchdog_(
            config_.step_timeout, &Clock::Steady(),
            {.on_stuck =
                 [](const std::string& model, absl::Duration running) {
                   Log(LogLevel::kError, "a step is stuck",
                       {{"model", model}, {"seconds", absl::ToDoubleSeconds(running)}});
                 },
             .on_moving =
                 [](const std::string& model) {
                   Log(LogLevel::kWarning, "a step that was stuck has ended", {{"model", model}});
                 }}) {}
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Everything up to the announcement on standard output.
  absl::Status Start();
  // Blocks until a stop signal, then drains. An error where a model that was asked for could not be
  // loaded: an orchestrator must see that, and a server without its models helps nobody.
  absl::Status ServeUntilSignalled(const sigset_t& signals);

 private:
  absl::Status FindCallers();
  // How long until the next look.
  absl::Duration WatchCallers();
  absl::Status FindTenants();
  absl::Duration WatchTenants();
  // Of a file that may have been read again.
  void TellReread(absl::string_view file, const std::optional<absl::Status>& read);
  absl::Status OpenStore();
  void BeReplica();
  absl::Status FindModels();
  absl::Status ServeMetrics();
  absl::Status OfferHealth();
  absl::Status Listen();
  void WatchReadiness();
  // How long until the next look.
  absl::Duration WatchEngines();
  void TellHealth() ABSL_EXCLUSIVE_LOCKS_REQUIRED(health_mutex_);
  // Ends the process with `failure`, by a drain, unless it drains already: this server can no
  // longer do what it is there for.
  void GiveUp(absl::Status failure) ABSL_EXCLUSIVE_LOCKS_REQUIRED(health_mutex_);
  // False where a shard goes on although everything else has ended.
  bool Drain();

  const config::ServerConfig config_;
  rpc::TokenFile tokens_;
  rpc::JwtIssuer issuer_;  // used where there is --jwt_keys
  const std::shared_ptr<TenantPolicySource> tenants_;
  TenantsFile tenants_file_;  // used where there is --tenants_file
  engine::TokenQuotas token_quotas_{tenants_.get()};
  std::string replica_name_;  // once it listens
  MemoryLedger host_memory_;
  std::optional<MemoryLedger> device_memory_;  // of the GPU, where models run on one
  observability::Metrics metrics_{kVersion};
  std::unique_ptr<observability::AuditLog> audit_;
  std::unique_ptr<rpc::Authenticator> authenticator_;
  std::unique_ptr<store::Store> store_;
  UsageTally usage_;
  std::optional<jobs::UsageWriter> usage_writer_;
  std::unique_ptr<store::BlobStore> blobs_;
  std::unique_ptr<jobs::JobQueue> queue_;
  std::unique_ptr<jobs::ReplicaBeat> beat_;
  std::optional<services::Replicas> replicas_;
  std::unique_ptr<engine::ModelRegistry> models_;  // tells the queue what came and went
  std::unique_ptr<services::VectorResolver> vectors_;
  services::KindRegistry kinds_;
  std::vector<std::unique_ptr<jobs::Worker>> workers_;
  std::unique_ptr<jobs::RetentionSweeper> retention_;
  std::optional<services::ModelService> model_service_;
  std::optional<services::GenerationService> generation_service_;
  std::optional<services::ActivationService> activation_service_;
  std::optional<services::VectorService> vector_service_;
  std::optional<services::NeuronService> neuron_service_;
  std::optional<services::EvaluationService> evaluation_service_;
  std::optional<services::JobService> job_service_;
  std::optional<services::ArtifactService> artifact_service_;
  std::optional<services::TenantService> tenant_service_;
  std::unique_ptr<rpc::CallRuntime> runtime_;
  std::vector<std::unique_ptr<rpc::RpcService>> bindings_;
  std::unique_ptr<rpc::Reflection> reflection_;
  rpc::Health health_;
  std::unique_ptr<grpc::Server> grpc_;
  std::thread readiness_;
  engine::StepWatchdog watchdog_;
  Recurring engines_{[this] { return WatchEngines(); }};
  Recurring caller_looks_{[this] { return WatchCallers(); }};
  Recurring tenant_looks_{[this] { return WatchTenants(); }};
  absl::Mutex health_mutex_;
  bool ready_ ABSL_GUARDED_BY(health_mutex_) = false;
  bool alive_ ABSL_GUARDED_BY(health_mutex_) = true;
  bool draining_ ABSL_GUARDED_BY(health_mutex_) = false;  // nothing turns readiness on again
  absl::Status failure_ ABSL_GUARDED_BY(health_mutex_);
};

Server::~Server() {
  // Scrapes, calls and heartbeats read what is destroyed next.
  metrics_.StopServing();
  if (beat_ != nullptr) beat_->Stop();
  if (grpc_ != nullptr) grpc_->Shutdown(absl::ToChronoTime(absl::Now()));
  if (readiness_.joinable()) readiness_.join();
  engines_.Stop();
  caller_looks_.Stop();
  tenant_looks_.Stop();
}

rpc::TlsFiles TlsFilesOf(const config::ServerConfig& config) {
  return {.certificate = config.tls_certificate,
          .key = config.tls_key,
          .client_ca = config.tls_client_ca,
          .client_certificate_required = config.tokens.empty()};
}

// Who may call, as the files say it.
absl::Status CheckCallers(const config::ServerConfig& config) {
  if (config.HasTls()) VS_RETURN_IF_ERROR(rpc::CheckTlsFiles(TlsFilesOf(config)));
  if (config.tokens.empty()) return absl::OkStatus();
  VS_RETURN_IF_ERROR(OfFlag("--tokens", rpc::TokenFile(config.tokens).Read()));
  if (config.jwt_keys.empty()) return absl::OkStatus();
  return OfFlag("--jwt_keys", rpc::JwtIssuer(config.jwt_keys, JwtDemandsOf(config)).Read());
}

// What tenants may have, as the file says it.
absl::Status CheckTenants(const config::ServerConfig& config) {
  if (config.tenants_file.empty()) return absl::OkStatus();
  return OfFlag("--tenants_file",
                TenantsFile(config.tenants_file, kLongestTenantsFile, config::ParseTenants).Read());
}

absl::Status Server::FindCallers() {
  if (!config_.Authenticates()) {
    authenticator_ = std::make_unique<rpc::OpenAuthenticator>();
    return absl::OkStatus();
  }
  const bool has_tokens = !config_.tokens.empty(), has_issuer = !config_.jwt_keys.empty();
  authenticator_ = std::make_unique<rpc::CredentialsAuthenticator>(has_tokens ? &tokens_ : nullptr,
                                                                   has_issuer ? &issuer_ : nullptr);
  if (!has_tokens) return absl::OkStatus();
  VS_RETURN_IF_ERROR(OfFlag("--tokens", tokens_.Read()));
  if (has_issuer) VS_RETURN_IF_ERROR(OfFlag("--jwt_keys", issuer_.Read()));
  caller_looks_.Start();
  return absl::OkStatus();
}

void Server::TellReread(absl::string_view file, const std::optional<absl::Status>& read) {
  if (!read) return;
  metrics_.FileReread(file, read->ok());
  Log(read->ok() ? LogLevel::kInfo : LogLevel::kError,
      absl::StrCat("the file of ", file,
                   read->ok() ? " was read again" : " is wrong, and the one before stays in force"),
      {{"error", read->message()}});
}

absl::Duration Server::WatchCallers() {
  TellReread("tokens", tokens_.Look());
  if (!config_.jwt_keys.empty()) TellReread("jwt_keys", issuer_.Look());
  return absl::Seconds(1);
}

absl::Status Server::FindTenants() {
  if (config_.tenants_file.empty()) return absl::OkStatus();
  VS_RETURN_IF_ERROR(OfFlag("--tenants_file", tenants_file_.Read()));
  tenants_->Set(*tenants_file_.value());
  return absl::OkStatus();
}

absl::Duration Server::WatchTenants() {
  const std::optional<absl::Status> read = tenants_file_.Look();
  TellReread("tenants_file", read);
  if (read && read->ok()) {
    tenants_->Set(*tenants_file_.value());
    queue_->NeedsChanged();  // who could not run may now
  }
  return absl::Seconds(1);
}

absl::Status Server::OpenStore() {
  const bool shared = !config_.store_url.empty();
  auto store = shared ? store::OpenPostgresStore(config_.store_url, /*retry=*/{}, tenants_)
                      : store::OpenSqliteStore(config_.store_path, {.tenants = tenants_});
  if (!store.ok()) return OfFlag("--store", store.status());
  store_ = *std::move(store);
  const config::S3Config& s3 = config_.s3;
  auto blobs = s3.bucket.empty() ? store::OpenDirectoryBlobStore(
                                       config_.artifacts,
                                       shared ? store::LockMode::kShared : store::LockMode::kAlone)
                                 : store::OpenS3BlobStore({.bucket = s3.bucket,
                                                           .prefix = s3.prefix,
                                                           .endpoint = s3.endpoint,
                                                           .region = s3.region,
                                                           .bucket_in_host = s3.BucketInHost(),
                                                           .credentials_file = s3.credentials_file,
                                                           .ca_file = s3.ca_file,
                                                           .scratch_folder = config_.scratch,
                                                           .on_exchange = ObservedS3(&metrics_)});
  if (!blobs.ok()) return OfFlag("--artifacts", blobs.status());
  blobs_ = *std::move(blobs);
  VS_ASSIGN_OR_RETURN(const std::string identity, store_->Identity());
  return OfFlag("--artifacts", blobs_->Claim(identity));
}

// Adds what engines ask of the GPU that --device names, whose memory then is `memory`; of a CPU
// they ask nothing.
absl::Status AddDevice(engine::EngineOptions& options, std::optional<MemoryLedger>& memory) {
  int index = 0;
  absl::string_view number = options.device;
  if (!absl::ConsumePrefix(&number, "cuda:") || !absl::SimpleAtoi(number, &index)) {
    return absl::OkStatus();
  }
  VS_ASSIGN_OR_RETURN(const cuda::Devices* devices, cuda::OpenDevices());
  if (index >= devices->count()) {
    return absl::InvalidArgumentError(
        absl::StrCat("this machine's GPUs are cuda:0 .. cuda:", devices->count() - 1));
  }
  Log(LogLevel::kInfo, "models run on a GPU",
      {{"device", options.device}, {"name", devices->NameOf(index)}});
  options.device_name = devices->NameOf(index);
  VS_ASSIGN_OR_RETURN(const cuda::DeviceMemory there, devices->MemoryOf(index));
  memory.emplace(MemoryAccount{.capacity = there.free + there.reserved,
                               .name = "the GPU's memory for the server"});
  options.device_memory = &*memory;
  options.free_memory = [devices, index]() -> absl::StatusOr<int64_t> {
    VS_ASSIGN_OR_RETURN(const cuda::DeviceMemory memory, devices->MemoryOf(index));
    return memory.free + memory.reserved - memory.allocated;
  };
  options.make_recorder = [devices] { return devices->MakeRecorder(); };
  return absl::OkStatus();
}

void Server::BeReplica() {
  jobs::ReplicaBeatOptions options;
  options.on_error = LogStoreError;
  beat_ = std::make_unique<jobs::ReplicaBeat>(
      store_.get(),
      [this] {
        std::vector<std::string> kinds;
        for (const jobs::JobKind* kind : kinds_.ForWorkers()) kinds.emplace_back(kind->Name());
        return services::DescribeReplica(replica_name_, kVersion, kinds, *models_);
      },
      std::move(options));
  replicas_.emplace([this] { return queue_->Replicas(); }, beat_->id());
}

absl::Status Server::FindModels() {
  engine::EngineOptions options{
      .device = config_.device,
      .dtype = config_.dtype,
      .batch_invariant = config_.batch_invariant,
      .threads = config_.threads,
      .kv_cache_bytes = config_.kv_cache_bytes,
      .max_batch_rows = config_.max_batch_rows,
      .max_step_tokens = config_.max_step_tokens,
      .max_waiting = config_.max_waiting,
      .weight_of = [tenants =
                        tenants_](const std::string& tenant) { return tenants->Of(tenant).weight; },
      .queue_share_of = [tenants = tenants_](
                            const std::string& tenant) { return tenants->Of(tenant).queue_share; },
      .cache_share_of = [tenants = tenants_](
                            const std::string& tenant) { return tenants->Of(tenant).cache_share; },
      .token_quotas = &token_quotas_,
      .capture_memory_bytes = config_.capture_memory_bytes,
      .intervention_memory_bytes = config_.intervention_memory_bytes,
      .request_memory_bytes = config_.request_memory_bytes,
      .host_memory = &host_memory_,
      .device_memory = &host_memory_,
      .usage = &usage_};
  options.on_change = [this] {
    queue_->NeedsChanged();
    beat_->Notify();
  };
  options.ready_elsewhere = [this](absl::string_view id) { return replicas_->OthersWith(id); };
  const absl::Status device = AddDevice(options, device_memory_);
  if (!device.ok()) return OfFlag("--device", device);
  models_ = engine::ModelRegistry::Create(config_.model_root, std::move(options));
  for (const std::string& id : config_.models) VS_RETURN_IF_ERROR(models_->Find(id).status());
  return absl::OkStatus();
}

// Where callers authenticate they do so for health too, but for those on a port of its own.
absl::Status Server::OfferHealth() {
  if (!config_.health_listen.empty()) {
    const absl::StatusOr<int> port = health_.Listen(config_.health_listen);
    if (!port.ok()) return InvalidField("--health_listen", port.status().message());
    Log(LogLevel::kInfo, "health is told in the clear", {{"port", int64_t{*port}}});
  }
  grpc::EnableDefaultHealthCheckService(!config_.Authenticates());
  if (config_.Authenticates()) bindings_.push_back(health_.Bind(runtime_.get()));
  return absl::OkStatus();
}

absl::Status Server::Listen() {
  if (!config_.audit_log.empty()) {
    auto audit = observability::AuditLog::Open(config_.audit_log);
    if (!audit.ok()) return OfFlag("--audit_log", audit.status());
    audit_ = *std::move(audit);
  }
  const rpc::ReceiveGateOptions receiving;
  runtime_ = std::make_unique<rpc::CallRuntime>(
      authenticator_.get(), &metrics_,
      rpc::CallRuntimeOptions{
          .call_bytes = kMessagesHeld * config_.max_message_bytes,
          .host_memory = &host_memory_,
          .audit = audit_.get(),
          .tenants = tenants_.get(),
          .may_run_models =
              [this](const std::string& tenant) { return token_quotas_.Check(tenant); },
          .usage = &usage_,
          .receiving = receiving,
          .heartbeat = config_.heartbeat});
  model_service_.emplace(runtime_->clock(), models_.get(), store_.get(), &*replicas_);
  generation_service_.emplace(&metrics_, models_.get(), vectors_.get());
  activation_service_.emplace(models_.get(), vectors_.get());
  evaluation_service_.emplace(store_.get(), blobs_.get(), &kinds_);
  job_service_.emplace(&kinds_, queue_.get(), store_.get(), blobs_.get(), &*replicas_,
                       config_.keep_jobs);
  artifact_service_.emplace(store_.get(), blobs_.get());
  tenant_service_.emplace(store_.get());
  const auto bind = [this](auto& service) {
    bindings_.push_back(bindings::Bind(runtime_.get(), &*service));
  };
  bind(model_service_);
  bind(generation_service_);
  bind(activation_service_);
  bind(vector_service_);
  bind(neuron_service_);
  bind(evaluation_service_);
  bind(job_service_);
  bind(artifact_service_);
  bind(tenant_service_);

  gpr_set_log_function(LogGrpcQuietly);
  google::protobuf::SetLogHandler(LogProtobuf);
  VS_RETURN_IF_ERROR(OfferHealth());
  std::vector<std::string> services;
  if (!config_.Authenticates()) services.emplace_back(rpc::kHealthService);
  for (const auto& binding : bindings_) services.push_back(binding->full_name());
  reflection_ = std::make_unique<rpc::Reflection>(runtime_.get(), std::move(services));
  grpc::ServerBuilder builder;
  int port = 0;
  // Two servers on one port would each get a part of the calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort(config_.listen,
                           config_.HasTls() ? rpc::TlsCredentials(TlsFilesOf(config_))
                                            : grpc::InsecureServerCredentials(),
                           &port);
  KeepConnectionsAlive(builder);
  builder.SetMaxReceiveMessageSize(static_cast<int>(config_.max_message_bytes));
  // Else it takes what the connection has room for, whether or not it was asked for.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  if (config_.connection_age > absl::ZeroDuration()) {
    // Give or take a tenth, so that not all clients come back at once. gRPC then lets calls end.
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS,
                               static_cast<int>(absl::ToInt64Milliseconds(config_.connection_age)));
  }
  builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kUnaskedBytes);
  // It looks at a message's length once it has all of it and made it as long as it claims to be:
  // what is compressed could become anything.
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  // Above what the gate lets in and what waits there. Where messages that are far too long exceed
  // it gRPC ends calls and idle connections, anybody's: the last guard of the process.
  grpc::ResourceQuota quota("server");
  quota.Resize((receiving.max_fresh + receiving.max_large) *
                   static_cast<size_t>(config_.max_message_bytes) +
               receiving.max_waiting * kUnaskedBytes + kTransportBytes);
  builder.SetResourceQuota(quota);
  for (const auto& binding : bindings_) builder.RegisterService(binding.get());
  builder.RegisterService(reflection_.get());
  grpc_ = builder.BuildAndStart();
  if (grpc_ == nullptr || port == 0) {
    return InvalidField(
        "--listen", absl::StrCat("cannot listen on ", config_.listen, "; is the address in use?"));
  }
  {
    absl::MutexLock lock(&health_mutex_);
    TellHealth();
  }
  gpr_set_log_function(LogGrpc);
  const std::string host = config_.listen.substr(0, config_.listen.rfind(':'));
  replica_name_ =
      config_.replica_name.empty() ? absl::StrCat(HostName(), ":", port) : config_.replica_name;
  std::printf("listening on %s:%d\n", host.c_str(), port);
  std::fflush(stdout);
  return absl::OkStatus();
}

absl::Status Server::ServeMetrics() {
  std::string address;
  if (!config_.metrics_listen.empty()) {
    const auto served = metrics_.Serve(config_.metrics_listen, [this] {
      observability::ServingState state = StateOf(*models_, *queue_, config_.job_lease);
      state.memory.push_back(MemoryOf("host", host_memory_));
      if (device_memory_) state.memory.push_back(MemoryOf("device", *device_memory_));
      return state;
    });
    if (!served.ok()) return InvalidField("--metrics_listen", served.status().message());
    address = *served;
  }
  Log(LogLevel::kInfo, "starting", {{"version", kVersion}, {"metrics_address", address}});
  return absl::OkStatus();
}

absl::Status Server::Start() {
  VS_RETURN_IF_ERROR(FindCallers());
  VS_RETURN_IF_ERROR(FindTenants());
  VS_RETURN_IF_ERROR(OpenStore());
  queue_ = std::make_unique<jobs::JobQueue>(store_.get());
  usage_writer_.emplace([this](const store::UsageBatch& batch) { return store_->AddUsage(batch); },
                        &usage_, jobs::UsageWriterOptions{.on_store_error = LogStoreError});
  BeReplica();
  VS_RETURN_IF_ERROR(FindModels());
  VS_RETURN_IF_ERROR(ServeMetrics());
  vectors_ = std::make_unique<services::StoredVectorResolver>(store_.get(), blobs_.get());
  vector_service_.emplace(models_.get(), store_.get(), blobs_.get(), &kinds_);
  neuron_service_.emplace(models_.get(), store_.get(), blobs_.get(), &kinds_);
  const kinds::Sources sources = {models_.get(), store_.get(), blobs_.get(), vectors_.get(),
                                  config_.extraction_scratch_bytes};
  kinds::AddKinds(sources, kinds_);
  kinds_.Add(
      kinds::ValueStudy({sources, &kinds_, &*vector_service_, &*neuron_service_, &host_memory_}));
  std::vector<jobs::JobKind*> kinds = kinds_.ForWorkers();
  queue_->SetKinds({kinds.begin(), kinds.end()});
  for (int i = 0; i < config_.job_workers; ++i) {
    jobs::WorkerOptions options = ObservedWorker(config_, &metrics_);
    options.sweeps = i == 0;
    workers_.push_back(
        std::make_unique<jobs::Worker>(queue_.get(), blobs_.get(), kinds, std::move(options)));
  }
  retention_ =
      std::make_unique<jobs::RetentionSweeper>(queue_.get(), ObservedRetention(config_, &metrics_));
  VS_RETURN_IF_ERROR(Listen());
  for (const std::string& id : config_.models) VS_RETURN_IF_ERROR(models_->StartLoading(id));
  beat_->Start();
  for (const auto& worker : workers_) worker->Start();
  retention_->Start();
  usage_writer_->Start();
  readiness_ = std::thread([this] { WatchReadiness(); });
  engines_.Start();
  if (!config_.tenants_file.empty()) tenant_looks_.Start();
  return absl::OkStatus();
}

void Server::TellHealth() {
  auto* const of_everybody = grpc_->GetHealthCheckService();  // null where callers authenticate
  for (const auto& [part, serving] :
       {std::pair("", ready_), std::pair(kLiveness, alive_), std::pair(kReadiness, ready_)}) {
    health_.Set(part, serving);
    if (of_everybody != nullptr) of_everybody->SetServingStatus(part, serving);
  }
}

void Server::GiveUp(absl::Status failure) {
  if (draining_ || !failure_.ok()) return;
  failure_ = std::move(failure);
  ready_ = false;
  TellHealth();
  kill(getpid(), SIGTERM);
}

void Server::WatchReadiness() {
  models_->WaitUntilSettled();
  absl::Status failure;
  for (const std::string& id : config_.models) {
    const auto entry = models_->Find(id);
    const bool failed = entry.ok() && entry->state == engine::ModelState::kFailed;
    const bool loaded = entry.ok() && entry->state == engine::ModelState::kReady;
    Log(failed ? LogLevel::kError : LogLevel::kInfo,
        failed ? "model failed" : (loaded ? "model loaded" : "model load cancelled"),
        {{"model", id}, {"error", failed ? entry->error.message() : absl::string_view()}});
    if (failed && failure.ok()) {
      failure =
          absl::Status(entry->error.code(),
                       absl::StrCat("the model ", id,
                                    " of --models cannot be loaded: ", entry->error.message()));
    }
  }
  absl::MutexLock lock(&health_mutex_);
  if (draining_) return;
  if (!failure.ok()) return GiveUp(std::move(failure));
  ready_ = true;
  TellHealth();
}

absl::Duration Server::WatchEngines() {
  std::vector<engine::RunningStep> steps;
  absl::Status failure;
  for (const auto& model : models_->Served()) {
    const engine::EngineStatistics statistics = model->engine->statistics();
    steps.push_back({.model = model->id, .began = statistics.step_began});
    if (statistics.device_failed) {
      failure = absl::InternalError(absl::StrCat("the device of the model ", model->id, " failed"));
    }
  }
  const bool alive = watchdog_.Look(steps);
  absl::MutexLock lock(&health_mutex_);
  if (!failure.ok()) GiveUp(std::move(failure));
  if (alive != alive_) {
    alive_ = alive;
    TellHealth();
  }
  // Often enough to see a stuck step soon after its time is over.
  return std::clamp(config_.step_timeout / 4, absl::Milliseconds(10), absl::Seconds(1));
}

bool Server::Drain() {
  const absl::Time deadline = absl::Now() + config_.drain_timeout;
  const absl::Duration goodbye = std::min(kGoodbye, config_.drain_timeout / 10);
  {
    absl::MutexLock lock(&health_mutex_);
    draining_ = true;
    ready_ = false;
    TellHealth();
  }
  runtime_->StopAccepting();
  models_->StopLoading();
  for (const auto& worker : workers_) worker->BeginDrain();
  beat_->Stop();
  if (!runtime_->WaitUntilIdle(deadline - goodbye)) {
    runtime_->StopRunning();
    runtime_->WaitUntilIdle(deadline);
  }
  models_->Drain(absl::Now());
  blobs_->StopRetrying();
  const absl::Time last = std::max(deadline, absl::Now() + kGoodbye);
  bool workers_ended = true;
  for (const auto& worker : workers_) workers_ended &= worker->Drain(last);
  grpc_->Shutdown(absl::ToChronoTime(std::max(deadline, absl::Now() + kGoodbye)));
  grpc_->Wait();
  usage_writer_->Stop();
  return workers_ended;
}

absl::Status Server::ServeUntilSignalled(const sigset_t& signals) {
  int signal = 0;
  sigwait(&signals, &signal);
  Log(LogLevel::kInfo, "draining",
      {{"signal", signal}, {"seconds", absl::ToDoubleSeconds(config_.drain_timeout)}});
  try {
    std::thread([signals] {
      int again = 0;
      sigwait(&signals, &again);
      _exit(128 + again);
    }).detach();
  } catch (const std::system_error&) {
    // Without memory for a thread, a second signal does not cut the drain short.
  }
  const bool workers_ended = Drain();
  if (!workers_ended) Log(LogLevel::kWarning, "a shard did not stop in time");
  Log(LogLevel::kInfo, "stopped");
  absl::MutexLock lock(&health_mutex_);
  // Whoever ignores its cancellation for so long would hold up the process. Its lease is taken back
  // at the next start.
  if (!workers_ended) _exit(failure_.ok() ? 0 : kFailure);
  return failure_;
}

// Threads that wait for work spin for milliseconds by default, on a machine with other work at the
// expense of the very threads they wait for: beside two busy neighbours decoding fell from 650 to
// 35 tokens a second, and with this to 270, at 4 % of the speed alone. The OpenMP library reads the
// variable when it is loaded, so the program starts itself once more. What the operator set stands.
void SpinBriefly(char** argv) {
  if (getenv("GOMP_SPINCOUNT") != nullptr || getenv("OMP_WAIT_POLICY") != nullptr) return;
  setenv("GOMP_SPINCOUNT", "1000", /*overwrite=*/1);
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) execv(program.c_str(), argv);  // where that cannot be, the default does
}

// A heap keeps what was freed in it, so a heap for every few threads, as many as a machine has
// cores for, would keep what hundreds of them once held. What the operator set stands.
void UseFewHeaps() {
  constexpr int kHeaps = 2;
  if (getenv("MALLOC_ARENA_MAX") == nullptr) mallopt(M_ARENA_MAX, kHeaps);
}

int Main(const std::vector<std::string>& arguments) {
  const auto config = config::ParseServerConfig(arguments);
  if (!config.ok()) return Fail(kBadConfiguration, std::string(config.status().message()));
  if (config->help) {
    std::fputs(config::HelpText().c_str(), stdout);
    return 0;
  }
  absl::Status places = config::CheckPlaces(*config);
  if (places.ok()) places = CheckCallers(*config);
  if (places.ok()) places = CheckTenants(*config);
  if (!places.ok()) return Fail(kBadConfiguration, std::string(places.message()));
  if (config->check_config) {
    std::puts("the configuration is valid");
    return 0;
  }
  const sigset_t signals = StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  // A file at its largest size is an error of the write, as a full disk is, and not the end.
  signal(SIGXFSZ, SIG_IGN);
  observability::SetLogLevel(LevelOf(config->log_level));
  Server server(*config);
  absl::Status status = server.Start();
  if (status.ok()) status = server.ServeUntilSignalled(signals);
  if (!status.ok()) {
    const bool configuration = status.code() == absl::StatusCode::kInvalidArgument ||
                               status.code() == absl::StatusCode::kNotFound ||
                               status.code() == absl::StatusCode::kFailedPrecondition;
    return Fail(configuration ? kBadConfiguration : kFailure, std::string(status.message()));
  }
  return 0;
}

}  // namespace
}  // namespace valuescope

int main(int argc, char** argv) {
  valuescope::SpinBriefly(argv);
  valuescope::UseFewHeaps();
  return valuescope::Main(std::vector<std::string>(argv + 1, argv + argc));
}
