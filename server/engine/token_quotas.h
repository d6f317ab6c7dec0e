// How many tokens a minute people of a tenant may have run, over all engines of a server: a bucket
// that fills evenly and holds what a minute brings.
//
// A call is let in where the bucket has something, and what it has models run is taken as it comes,
// whatever is there: a prompt for each of its answers, and what is generated. So nothing that runs
// is stopped, however much of it there is, and a bucket that owes lets nobody in until it has paid.
// Jobs take nothing: they have bounds of their own, run in what people leave, and one that had to
// wait for a bucket would hold a worker.
#ifndef VALUESCOPE_ENGINE_TOKEN_QUOTAS_H_
#define VALUESCOPE_ENGINE_TOKEN_QUOTAS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/tenant_policy.h"

namespace valuescope::engine {

// Thread-safe.
class TokenQuotas {
 public:
  // What one request takes. By one thread at a time; does not outlive the quotas.
  class Charge {
   public:
    Charge(TokenQuotas* quotas, std::string tenant, int64_t prompt_tokens)
        : quotas_(quotas), tenant_(std::move(tenant)), unused_(prompt_tokens) {}
    // Gives the prompt back where it did not begin to run.
    ~Charge();
    Charge(const Charge&) = delete;
    Charge& operator=(const Charge&) = delete;

    void Begin() { unused_ = 0; }
    void Generated(int64_t tokens);

   private:
    TokenQuotas* const quotas_;
    const std::string tenant_;
    int64_t unused_;
  };

  // Both outlive it.
  explicit TokenQuotas(const TenantPolicySource* tenants, const Clock* clock = &Clock::Steady())
      : tenants_(tenants), clock_(clock) {}

  // Whether a call may begin: RESOURCE_EXHAUSTED, reason TOKEN_QUOTA, where the bucket is empty or
  // owes, with the time after which it has a token, if nothing else takes from it.
  absl::Status Check(const std::string& tenant);

  // Takes a request's prompt, >= 1 token, with what was given behind it. Null where nothing bounds
  // the tenant.
  std::unique_ptr<Charge> Take(const std::string& tenant, int64_t prompt_tokens);

 private:
  struct Bucket {
    double level = 0;  // tokens; below 0 it owes
    absl::Time looked_at;
  };

  void Change(const std::string& tenant, double tokens);
  Bucket& Filled(const std::string& tenant, int64_t a_minute) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const TenantPolicySource* const tenants_;
  const Clock* const clock_;
  absl::Mutex mutex_;
  std::map<std::string, Bucket> buckets_ ABSL_GUARDED_BY(mutex_);  // of bounded tenants
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_TOKEN_QUOTAS_H_
