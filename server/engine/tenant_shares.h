// What tenants had of an engine and whose turn it is: start-time fair queueing (Goyal, Vin and
// Cheng, 1996), where what is shared is the tokens that run. store/fair_turns.h shares workers so.
//
// A tenant's virtual time is the tokens of its sequences that ran, of prompts and of answers,
// divided by its weight. The tenant that is furthest behind is served next. How long an answer
// becomes is not known before; so what a running sequence may still run counts ahead, up to
// kUnderWay tokens of it. Without that all rows that come free together would go to one tenant, and
// with more of it who may write much and writes little would be far behind. A tenant that had
// nothing to do collects no credit: it starts where the last one that was served had started.
#ifndef VALUESCOPE_ENGINE_TENANT_SHARES_H_
#define VALUESCOPE_ENGINE_TENANT_SHARES_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <utility>

namespace valuescope::engine {

// The weight of a tenant, > 0. May change from call to call; thread-safe where engines share it.
// Empty: all weigh the same.
using WeightOf = std::function<double(const std::string& tenant)>;

// What of the key/value cache a tenant's sequences may be promised, of people and of the background
// each: a part of it, > 0 to 1, and whatever one of them takes where nothing else of them runs.
struct CacheBounds {
  std::function<double(const std::string& tenant)> share_of = nullptr;  // as WeightOf; empty: all
  int64_t tokens = 0;                                                   // of the whole cache
};

class TenantShares {
 public:
  // Tokens of a running sequence that count before they ran.
  static constexpr int64_t kUnderWay = 256;
  // Steps for which a tenant is remembered whose last sequence ended: some minutes.
  static constexpr int64_t kRemembered = 4096;

  // One tenant's account.
  class Tenant {
   public:
    // Its sequences that wait or run; those that run.
    int64_t present() const { return present_; }
    int64_t running() const { return running_; }
    // Whether another sequence, which takes so many tokens of the cache, may run.
    bool MayRun(int64_t tokens) const {
      return running_ == 0 || static_cast<double>(promised_ + tokens) <= most_promised_;
    }

    uint64_t last_client = 0;  // whose prompt had the first part of a step, for who shares prompts

   private:
    friend class TenantShares;
    double weight_ = 1;
    double virtual_time_ = 0;  // tokens at weight 1
    int64_t present_ = 0;
    int64_t running_ = 0;
    int64_t promised_ = 0;  // tokens of the cache, to those that run
    double most_promised_ = std::numeric_limits<double>::infinity();
    int64_t under_way_ = 0;  // tokens
    int64_t last_turn_ = 0;  // higher where it came or was served later
    int64_t left_in_ = 0;    // the step
  };

  explicit TenantShares(WeightOf weight_of, CacheBounds cache = {})
      : weight_of_(std::move(weight_of)), cache_(std::move(cache)) {}
  TenantShares(const TenantShares&) = delete;
  TenantShares& operator=(const TenantShares&) = delete;

  // A sequence of the tenant came. The account stays where it is while one is present.
  Tenant* Come(const std::string& tenant);
  // A sequence that waits, or runs, is gone.
  void Leave(Tenant* tenant);
  // A sequence that waits runs, and goes back to wait; the cache has so many tokens of it at most.
  // What ran of it stays charged.
  void Run(Tenant* tenant, int64_t tokens);
  void Stop(Tenant* tenant, int64_t tokens);
  // `tokens` of the tenant ran.
  void Charge(Tenant* tenant, int64_t tokens);

  // A step begins: weights are read again, nothing is under way until AddUnderWay says it, and who
  // was gone for long is forgotten.
  void BeginStep();
  // A running sequence may still run so many tokens.
  void AddUnderWay(Tenant* tenant, int64_t tokens);

  // Whether the first is served before the second: whose virtual time with what is under way is
  // less; between equals, who was served longest ago. `planned` are tokens of either that run next.
  bool IsBefore(const Tenant& a, int64_t planned_a, const Tenant& b, int64_t planned_b) const;
  bool IsBefore(const Tenant& a, const Tenant& b) const { return IsBefore(a, 0, b, 0); }

  // Whether nothing of it runs, and of those of whom something did when the step began somebody had
  // no less.
  bool IsGuest(const Tenant& tenant) const {
    return tenant.running_ == 0 && tenant.virtual_time_ <= most_had_;
  }

  // Tenants that are present or were lately.
  int64_t remembered() const { return static_cast<int64_t>(tenants_.size()); }

 private:
  void ReadPart(const std::string& name, Tenant& tenant) const;

  const WeightOf weight_of_;
  const CacheBounds cache_;
  std::map<std::string, Tenant> tenants_;
  double served_from_ = 0;  // the virtual time at which who was served last started
  double most_had_ = 0;     // the largest virtual time of those that run
  int64_t turns_ = 0;
  int64_t steps_ = 0;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_TENANT_SHARES_H_
