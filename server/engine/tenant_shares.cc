#include "engine/tenant_shares.h"

#include <algorithm>
#include <tuple>

#include "base/check.h"

namespace valuescope::engine {

TenantShares::Tenant* TenantShares::Come(const std::string& name) {
  const auto [found, is_new] = tenants_.try_emplace(name);
  Tenant& tenant = found->second;
  if (is_new) ReadPart(name, tenant);
  if (tenant.present_ == 0) {
    tenant.virtual_time_ = std::max(tenant.virtual_time_, served_from_);
    tenant.last_turn_ = ++turns_;
  }
  ++tenant.present_;
  return &tenant;
}

void TenantShares::Leave(Tenant* tenant) {
  VS_CHECK(tenant->present_ > tenant->running_);
  --tenant->present_;
  tenant->left_in_ = steps_;
}

void TenantShares::ReadPart(const std::string& name, Tenant& tenant) const {
  if (weight_of_) tenant.weight_ = weight_of_(name);
  if (cache_.share_of) {
    tenant.most_promised_ = cache_.share_of(name) * static_cast<double>(cache_.tokens);
  }
}

void TenantShares::Stop(Tenant* tenant, int64_t tokens) {
  --tenant->running_;
  tenant->promised_ -= tokens;
}

void TenantShares::Run(Tenant* tenant, int64_t tokens) {
  ++tenant->running_;
  tenant->promised_ += tokens;
  tenant->last_turn_ = ++turns_;
  served_from_ = std::max(served_from_, tenant->virtual_time_);
}

void TenantShares::Charge(Tenant* tenant, int64_t tokens) {
  tenant->virtual_time_ += static_cast<double>(tokens) / tenant->weight_;
}

void TenantShares::BeginStep() {
  ++steps_;
  std::erase_if(tenants_, [this](const auto& each) {
    return each.second.present_ == 0 && steps_ - each.second.left_in_ > kRemembered;
  });
  most_had_ = 0;
  for (auto& [name, tenant] : tenants_) {
    tenant.under_way_ = 0;
    if (tenant.running_ > 0) most_had_ = std::max(most_had_, tenant.virtual_time_);
    if (tenant.present_ > 0) ReadPart(name, tenant);
  }
}

void TenantShares::AddUnderWay(Tenant* tenant, int64_t tokens) {
  tenant->under_way_ += std::min(tokens, kUnderWay);
}

bool TenantShares::IsBefore(const Tenant& a, int64_t planned_a, const Tenant& b,
                            int64_t planned_b) const {
  const auto turn_of = [](const Tenant& tenant, int64_t planned) {
    const auto ahead = static_cast<double>(tenant.under_way_ + planned);
    return std::tuple(tenant.virtual_time_ + ahead / tenant.weight_, tenant.last_turn_);
  };
  return turn_of(a, planned_a) < turn_of(b, planned_b);
}

}  // namespace valuescope::engine
