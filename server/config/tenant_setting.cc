#include "config/tenant_setting.h"

#include <set>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "config/read_values.h"

namespace valuescope::config {
namespace {

constexpr char kEverybodyElse[] = "*";
constexpr double kMostWeight = 1000;
constexpr int64_t kMostCount = 1'000'000'000;
constexpr int64_t kMostBytes = int64_t{1} << 50;

absl::Status ReadWeight(absl::string_view text, double& weight) {
  double value;
  if (!absl::SimpleAtod(text, &value) || !(value >= 1 / kMostWeight) || value > kMostWeight) {
    return Refuse(absl::StrCat("must be a number from ", 1 / kMostWeight, " to ", kMostWeight));
  }
  weight = value;
  return absl::OkStatus();
}

absl::Status ReadBound(absl::string_view name, absl::string_view text, TenantPolicy& policy) {
  if (name == "weight") return ReadWeight(text, policy.weight);
  if (name == "running") return ReadInteger(text, 0, kMostCount, policy.max_running);
  if (name == "queued") return ReadInteger(text, 0, kMostCount, policy.max_queued);
  if (name == "stored") return ReadBytes(text, 0, kMostBytes, policy.max_stored_bytes);
  return Refuse("must be weight=, running=, queued= or stored=");
}

// `parts`: a name, and NAME=VALUE of what it may have.
absl::Status ReadPolicy(const std::vector<std::string>& parts, TenantPolicy& policy) {
  std::set<std::string> seen;
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::pair<std::string, std::string> bound =
        absl::StrSplit(parts[i], absl::MaxSplits('=', 1));
    const absl::Status status = seen.insert(bound.first).second
                                    ? ReadBound(bound.first, bound.second, policy)
                                    : Refuse("must stand there once");
    if (!status.ok()) {
      return Refuse(absl::StrCat("has for ", Shown(parts[0]), " \"", Shown(parts[i]), "\", which ",
                                 status.message()));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadTenants(absl::string_view text, TenantPolicies& tenants) {
  TenantPolicies read;
  std::vector<std::vector<std::string>> named;
  bool everybody_else = false;
  for (const absl::string_view tenant : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    std::vector<std::string> parts = absl::StrSplit(tenant, ':');
    if (parts[0] == kEverybodyElse) {
      if (everybody_else) return Refuse("must have * once");
      everybody_else = true;
      VS_RETURN_IF_ERROR(ReadPolicy(parts, read.others));
    } else if (!CheckResourceId("tenants", parts[0]).ok()) {
      return Refuse("must list NAME:weight=W:running=N:queued=N:stored=BYTES, separated by commas");
    } else {
      named.push_back(std::move(parts));
    }
  }
  for (const std::vector<std::string>& parts : named) {
    const auto [policy, is_new] = read.named.emplace(parts[0], read.others);
    if (!is_new) return Refuse(absl::StrCat("must name ", parts[0], " once"));
    VS_RETURN_IF_ERROR(ReadPolicy(parts, policy->second));
  }
  tenants = std::move(read);
  return absl::OkStatus();
}

}  // namespace valuescope::config
