// Numbers for Prometheus. What happens is counted as it happens; what is a state (running requests,
// cache use, jobs) is read when somebody scrapes, so that nothing polls in between. Names follow
// Prometheus's conventions: base units, `_total` for counters. Labels come from fixed sets, never
// from users.
#ifndef VALUESCOPE_OBSERVABILITY_METRICS_H_
#define VALUESCOPE_OBSERVABILITY_METRICS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace valuescope::observability {

// The server's state at the moment of a scrape, summed over models unless said otherwise. What is
// counted since start never falls: it holds the work of models that were unloaded since, and of
// requests that were cancelled or failed.
struct ServingState {
  int64_t requests_running = 0;
  int64_t requests_waiting = 0;
  int64_t prompt_tokens = 0;     // since start, that ran: without prefix_hit_tokens
  int64_t generated_tokens = 0;  // since start
  int64_t batch_rows = 0;        // of the last step
  absl::Duration step_running;   // since its begin, of the oldest step that runs now
  // Parts of the key/value cache, of the model where it is largest.
  double kv_cache_used_ratio = 0;
  double kv_cache_promised_ratio = 0;
  double kv_cache_cached_ratio = 0;
  int64_t prefix_hit_tokens = 0;          // since start
  int64_t steered_prefix_hit_tokens = 0;  // of them, by requests that are steered
  int64_t preemptions = 0;                // since start
  int64_t admissions = 0;                 // since start
  // Token positions x layers since start, by operation ("add", "clamp", ...).
  std::vector<std::pair<std::string, int64_t>> interventions_applied;
  int64_t captured_bytes = 0;  // since start
  // Bytes held on the models' device or for it, by what holds them ("weights", "kv_cache",
  // "captures", "interventions", "requests").
  std::vector<std::pair<std::string, int64_t>> device_memory;
  // What all the server holds of a place's memory, and may hold: bytes.
  struct PlaceMemory {
    std::string place;  // "host", "device"
    int64_t held = 0;
    int64_t limit = 0;
  };
  std::vector<PlaceMemory> memory;

  struct JobCount {
    std::string kind;
    std::string state;
    int64_t count = 0;
  };
  std::vector<JobCount> jobs;
  int64_t job_rescues = 0;
  absl::Duration oldest_queued_job;  // since its creation; 0 where none is queued
  absl::Duration oldest_lease;       // since it was last extended; 0 where nobody works
};

// A request to an S3 store of blobs, as it ended.
struct S3Request {
  absl::string_view operation;  // "get", "put", "list", ...
  absl::string_view code;       // of HTTP; "none" where no whole answer came
  bool again = false;           // an attempt before it failed
  int64_t sent = 0;             // bytes of bodies
  int64_t received = 0;
  absl::Duration duration;
};

// Thread-safe.
class Metrics {
 public:
  // `version` becomes the label of valuescope_build_info.
  explicit Metrics(absl::string_view version);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // `method` is "Service.Rpc", `code` the canonical name ("OK", "NOT_FOUND").
  void RpcFinished(absl::string_view method, absl::string_view code, absl::Duration duration);
  void FirstToken(absl::Duration since_received);
  void NextToken(absl::Duration since_last);
  void ShardFinished(absl::string_view kind, absl::Duration duration);
  // `what` was kept for long enough: "jobs", "request_ids", "partials", "usage", "blobs".
  void Expired(absl::string_view what, int64_t count);
  void S3Finished(const S3Request& request);
  // A file ("tokens") had changed and was read again; a wrong one is not in force.
  void FileReread(absl::string_view file, bool in_force);

  // Answers scrapes at http://HOST:PORT/metrics; port 0 takes a free one. Returns the address that
  // is listened on. UNAVAILABLE where it cannot be. `state` is called on the exposer's threads, for
  // as long as the Metrics live or until StopServing. Call once.
  absl::StatusOr<std::string> Serve(const std::string& address,
                                    std::function<ServingState()> state);
  void StopServing();

  // The page that a scrape gets.
  std::string Page(const ServingState& state) const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace valuescope::observability

#endif  // VALUESCOPE_OBSERVABILITY_METRICS_H_
