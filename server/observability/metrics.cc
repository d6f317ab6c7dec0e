#include "observability/metrics.h"

#include <exception>
#include <map>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "prometheus/collectable.h"
#include "prometheus/counter.h"
#include "prometheus/exposer.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "prometheus/text_serializer.h"

namespace valuescope::observability {
namespace {

using prometheus::ClientMetric;
using prometheus::Histogram;
using prometheus::MetricFamily;
using prometheus::MetricType;

// Seconds. From answers out of memory to jobs that run for minutes.
const Histogram::BucketBoundaries kRpcSeconds = {.001, .0025, .005, .01, .025, .05, .1,  .25, .5,
                                                 1,    2.5,   5,    10,  30,   60,  120, 300, 600};
const Histogram::BucketBoundaries kTokenSeconds = {.001, .0025, .005, .01, .025, .05,
                                                   .1,   .25,   .5,   1,   2.5,  5};
const Histogram::BucketBoundaries kShardSeconds = {.1, .5, 1, 5, 10, 30, 60, 300, 900, 3600};

using Labels = std::vector<ClientMetric::Label>;

ClientMetric Value(MetricType type, double value, Labels labels = {}) {
  ClientMetric metric;
  metric.label = std::move(labels);
  if (type == MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  return metric;
}

MetricFamily Family(MetricType type, const char* name, const char* help, double value,
                    Labels labels = {}) {
  MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = type;
  family.metric.push_back(Value(type, value, std::move(labels)));
  return family;
}

std::vector<MetricFamily> FamiliesOf(const ServingState& state) {
  constexpr MetricType kGauge = MetricType::Gauge;
  constexpr MetricType kCounter = MetricType::Counter;
  std::vector<MetricFamily> families = {
      Family(kGauge, "valuescope_requests_running", "Requests in the batch.",
             static_cast<double>(state.requests_running)),
      Family(kGauge, "valuescope_requests_waiting", "Requests admitted and not started.",
             static_cast<double>(state.requests_waiting)),
      Family(kCounter, "valuescope_prompt_tokens_total",
             "Tokens of prompts and given responses that ran, those found in the cache left out, "
             "those "
             "that ran again counted again.",
             static_cast<double>(state.prompt_tokens)),
      Family(kCounter, "valuescope_generated_tokens_total",
             "Tokens generated, also for requests that ended early.",
             static_cast<double>(state.generated_tokens)),
      Family(kGauge, "valuescope_batch_rows", "Tokens of the last step.",
             static_cast<double>(state.batch_rows)),
      Family(kGauge, "valuescope_step_running_seconds",
             "How long the oldest step that runs now has been running.",
             absl::ToDoubleSeconds(state.step_running)),
      Family(kGauge, "valuescope_kv_cache_used_ratio",
             "Part of the key/value cache that running requests hold, 0 to 1.",
             state.kv_cache_used_ratio),
      Family(kGauge, "valuescope_kv_cache_promised_ratio",
             "Part of the key/value cache that running requests hold or may still take; at 1 "
             "nothing more is admitted.",
             state.kv_cache_promised_ratio),
      Family(kGauge, "valuescope_kv_cache_cached_ratio",
             "Part of the key/value cache that is kept for requests that begin alike.",
             state.kv_cache_cached_ratio),
      Family(kCounter, "valuescope_prefix_hit_tokens_total",
             "Tokens found in the key/value cache and not run again.",
             static_cast<double>(state.prefix_hit_tokens)),
      Family(kCounter, "valuescope_steered_prefix_hit_tokens_total",
             "Of valuescope_prefix_hit_tokens_total, those found by requests that are steered.",
             static_cast<double>(state.steered_prefix_hit_tokens)),
      Family(kCounter, "valuescope_preemptions_total",
             "Background requests that gave way to others and began again.",
             static_cast<double>(state.preemptions)),
      Family(kCounter, "valuescope_requests_admitted_total",
             "Times that a request began to run, after its wait in the queue.",
             static_cast<double>(state.admissions)),
      Family(kCounter, "valuescope_captured_bytes_total", "Bytes of activations captured.",
             static_cast<double>(state.captured_bytes)),
      Family(kCounter, "valuescope_job_rescues_total", "Leases taken back from dead workers.",
             static_cast<double>(state.job_rescues)),
      Family(kGauge, "valuescope_oldest_queued_job_seconds",
             "How long ago the oldest job that is queued was created; 0 where none is.",
             absl::ToDoubleSeconds(state.oldest_queued_job)),
      Family(kGauge, "valuescope_oldest_job_lease_seconds",
             "How long ago the lease was extended that waits longest for it; 0 where nobody works.",
             absl::ToDoubleSeconds(state.oldest_lease)),
  };
  MetricFamily applied;
  applied.name = "valuescope_interventions_applied_total";
  applied.help = "Token positions times layers that interventions touched, by operation.";
  applied.type = kCounter;
  for (const auto& [operation, count] : state.interventions_applied) {
    applied.metric.push_back(Value(kCounter, static_cast<double>(count), {{"op", operation}}));
  }
  if (!applied.metric.empty()) families.push_back(std::move(applied));
  MetricFamily memory;
  memory.name = "valuescope_device_memory_bytes";
  memory.help = "Bytes held for models, by what holds them.";
  memory.type = kGauge;
  for (const auto& [kind, bytes] : state.device_memory) {
    memory.metric.push_back(Value(kGauge, static_cast<double>(bytes), {{"kind", kind}}));
  }
  if (!memory.metric.empty()) families.push_back(std::move(memory));
  MetricFamily held, limit;
  held.name = "valuescope_memory_held_bytes";
  held.help =
      "Bytes that the server's accounts hold of a place's memory, taken before they are used.";
  limit.name = "valuescope_memory_limit_bytes";
  limit.help = "Bytes that they may hold of it together.";
  held.type = limit.type = kGauge;
  for (const ServingState::PlaceMemory& place : state.memory) {
    held.metric.push_back(Value(kGauge, static_cast<double>(place.held), {{"place", place.place}}));
    limit.metric.push_back(
        Value(kGauge, static_cast<double>(place.limit), {{"place", place.place}}));
  }
  if (!held.metric.empty()) {
    families.push_back(std::move(held));
    families.push_back(std::move(limit));
  }
  MetricFamily jobs;
  jobs.name = "valuescope_jobs";
  jobs.help = "Jobs by kind and state.";
  jobs.type = kGauge;
  for (const ServingState::JobCount& count : state.jobs) {
    jobs.metric.push_back(Value(kGauge, static_cast<double>(count.count),
                                {{"kind", count.kind}, {"state", count.state}}));
  }
  if (!jobs.metric.empty()) families.push_back(std::move(jobs));
  return families;
}

// Asks for the state when it is scraped.
class StateCollectable : public prometheus::Collectable {
 public:
  explicit StateCollectable(std::function<ServingState()> state) : state_(std::move(state)) {}
  std::vector<MetricFamily> Collect() const override { return FamiliesOf(state_()); }

 private:
  const std::function<ServingState()> state_;
};

}  // namespace

class Metrics::Impl {
 public:
  explicit Impl(absl::string_view version) {
    prometheus::BuildGauge()
        .Name("valuescope_build_info")
        .Help("1, labelled with the version.")
        .Register(*registry)
        .Add({{"version", std::string(version)}})
        .Set(1);
  }

  const std::shared_ptr<prometheus::Registry> registry = std::make_shared<prometheus::Registry>();
  prometheus::Family<Histogram>& rpc = prometheus::BuildHistogram()
                                           .Name("valuescope_rpc_duration_seconds")
                                           .Help("Duration of RPCs by method and code.")
                                           .Register(*registry);
  prometheus::Family<Histogram>& shard = prometheus::BuildHistogram()
                                             .Name("valuescope_job_shard_duration_seconds")
                                             .Help("Duration of shards of jobs by kind.")
                                             .Register(*registry);
  prometheus::Family<prometheus::Counter>& expired =
      prometheus::BuildCounter()
          .Name("valuescope_expired_total")
          .Help("What was removed because it had been kept for long enough, by what it was.")
          .Register(*registry);
  prometheus::Family<prometheus::Counter>& reread =
      prometheus::BuildCounter()
          .Name("valuescope_files_reread_total")
          .Help("Files that had changed and were read again, by file, and whether that went well.")
          .Register(*registry);
  Histogram& first_token = prometheus::BuildHistogram()
                               .Name("valuescope_time_to_first_token_seconds")
                               .Help("From the request's arrival to its first token.")
                               .Register(*registry)
                               .Add({}, kRpcSeconds);
  Histogram& next_token = prometheus::BuildHistogram()
                              .Name("valuescope_inter_token_latency_seconds")
                              .Help("Between two tokens of one completion.")
                              .Register(*registry)
                              .Add({}, kTokenSeconds);
  prometheus::Family<Histogram>& s3 = prometheus::BuildHistogram()
                                          .Name("valuescope_s3_request_duration_seconds")
                                          .Help(
                                              "Duration of requests to S3 by operation and "
                                              "HTTP status.")
                                          .Register(*registry);
  prometheus::Family<prometheus::Counter>& s3_retries =
      prometheus::BuildCounter()
          .Name("valuescope_s3_retries_total")
          .Help("Requests to S3 that an attempt before had failed of, by operation.")
          .Register(*registry);
  prometheus::Family<prometheus::Counter>& s3_sent =
      prometheus::BuildCounter()
          .Name("valuescope_s3_sent_bytes_total")
          .Help("Bytes of bodies sent to S3, by operation.")
          .Register(*registry);
  prometheus::Family<prometheus::Counter>& s3_received =
      prometheus::BuildCounter()
          .Name("valuescope_s3_received_bytes_total")
          .Help("Bytes of bodies received from S3, by operation.")
          .Register(*registry);
  std::shared_ptr<StateCollectable> state;  // the exposer holds it weakly
  std::unique_ptr<prometheus::Exposer> exposer;
};

Metrics::Metrics(absl::string_view version) : impl_(std::make_unique<Impl>(version)) {}
Metrics::~Metrics() = default;

void Metrics::RpcFinished(absl::string_view method, absl::string_view code,
                          absl::Duration duration) {
  impl_->rpc.Add({{"method", std::string(method)}, {"code", std::string(code)}}, kRpcSeconds)
      .Observe(absl::ToDoubleSeconds(duration));
}

void Metrics::FirstToken(absl::Duration since_received) {
  impl_->first_token.Observe(absl::ToDoubleSeconds(since_received));
}

void Metrics::NextToken(absl::Duration since_last) {
  impl_->next_token.Observe(absl::ToDoubleSeconds(since_last));
}

void Metrics::ShardFinished(absl::string_view kind, absl::Duration duration) {
  impl_->shard.Add({{"kind", std::string(kind)}}, kShardSeconds)
      .Observe(absl::ToDoubleSeconds(duration));
}

void Metrics::Expired(absl::string_view what, int64_t count) {
  impl_->expired.Add({{"what", std::string(what)}}).Increment(static_cast<double>(count));
}

void Metrics::FileReread(absl::string_view file, bool in_force) {
  impl_->reread.Add({{"file", std::string(file)}, {"outcome", in_force ? "in_force" : "refused"}})
      .Increment();
}

void Metrics::S3Finished(const S3Request& request) {
  const std::string operation(request.operation);
  impl_->s3.Add({{"operation", operation}, {"code", std::string(request.code)}}, kRpcSeconds)
      .Observe(absl::ToDoubleSeconds(request.duration));
  impl_->s3_retries.Add({{"operation", operation}}).Increment(request.again ? 1 : 0);
  impl_->s3_sent.Add({{"operation", operation}}).Increment(static_cast<double>(request.sent));
  impl_->s3_received.Add({{"operation", operation}})
      .Increment(static_cast<double>(request.received));
}

absl::StatusOr<std::string> Metrics::Serve(const std::string& address,
                                           std::function<ServingState()> state) {
  try {
    impl_->exposer = std::make_unique<prometheus::Exposer>(address, /*num_threads=*/2);
  } catch (const std::exception&) {
    return absl::UnavailableError(absl::StrCat("cannot listen for metrics on ", address));
  }
  impl_->state = std::make_shared<StateCollectable>(std::move(state));
  impl_->exposer->RegisterCollectable(impl_->registry);
  impl_->exposer->RegisterCollectable(impl_->state);
  const std::string host = address.substr(0, address.rfind(':'));
  return absl::StrCat(host, ":", impl_->exposer->GetListeningPorts().front());
}

void Metrics::StopServing() { impl_->exposer.reset(); }

std::string Metrics::Page(const ServingState& state) const {
  std::vector<MetricFamily> families = impl_->registry->Collect();
  for (MetricFamily& family : FamiliesOf(state)) families.push_back(std::move(family));
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace valuescope::observability
