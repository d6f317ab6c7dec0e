#include "engine/token_quotas.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"

namespace valuescope::engine {
namespace {

// Of a token: less than rounding may take from who comes back exactly when he was told to.
constexpr double kNothing = 1e-6;

}  // namespace

TokenQuotas::Charge::~Charge() {
  if (unused_ > 0) quotas_->Change(tenant_, static_cast<double>(unused_));
}

void TokenQuotas::Charge::Generated(int64_t tokens) {
  quotas_->Change(tenant_, -static_cast<double>(tokens));
}

// A bound that was changed holds from now on: what the bucket has stays, as far as it still holds
// it.
TokenQuotas::Bucket& TokenQuotas::Filled(const std::string& tenant, int64_t a_minute) {
  const auto most = static_cast<double>(a_minute);
  const absl::Time now = clock_->Now();
  const auto [found, is_new] = buckets_.try_emplace(tenant, Bucket{most, now});
  Bucket& bucket = found->second;
  const double minutes = absl::FDivDuration(now - bucket.looked_at, absl::Minutes(1));
  bucket.level = std::min(most, bucket.level + minutes * most);
  bucket.looked_at = now;
  return bucket;
}

absl::Status TokenQuotas::Check(const std::string& tenant) {
  const int64_t a_minute = tenants_->Of(tenant).tokens_per_minute;
  if (a_minute == 0) return absl::OkStatus();
  absl::MutexLock lock(&mutex_);
  const double level = Filled(tenant, a_minute).level;
  if (level >= 1 - kNothing) return absl::OkStatus();
  const absl::Duration wait = absl::Minutes((1 - level) / static_cast<double>(a_minute));
  return RetryLater("TOKEN_QUOTA",
                    absl::StrCat("your calls had the ", a_minute,
                                 " tokens of prompts and answers run that they may a minute"),
                    absl::Ceil(wait, absl::Milliseconds(1)));
}

std::unique_ptr<TokenQuotas::Charge> TokenQuotas::Take(const std::string& tenant,
                                                       int64_t prompt_tokens) {
  const int64_t a_minute = tenants_->Of(tenant).tokens_per_minute;
  absl::MutexLock lock(&mutex_);
  if (a_minute == 0) {
    buckets_.erase(tenant);
    return nullptr;
  }
  Filled(tenant, a_minute).level -= static_cast<double>(prompt_tokens);
  return std::make_unique<Charge>(this, tenant, prompt_tokens);
}

// Of a bucket that is gone since, or was begun anew, nobody wants it any more.
void TokenQuotas::Change(const std::string& tenant, double tokens) {
  absl::MutexLock lock(&mutex_);
  const auto bucket = buckets_.find(tenant);
  if (bucket != buckets_.end()) bucket->second.level += tokens;
}

}  // namespace valuescope::engine
