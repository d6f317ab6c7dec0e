#include "config/tenant_setting.h"

#include <charconv>
#include <map>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
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
constexpr double kLeastShare = 0.001;
constexpr int64_t kMostCount = 1'000'000'000;
constexpr int64_t kMostBytes = int64_t{1} << 50;

absl::Status ReadNumber(absl::string_view text, double lowest, double highest, double& number) {
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [read_to, error] = std::from_chars(text.data(), end, value);  // no hexadecimal
  if (error != std::errc() || read_to != end || !(value >= lowest) || value > highest) {
    return Refuse(absl::StrCat("must be a number from ", lowest, " to ", highest));
  }
  number = value;
  return absl::OkStatus();
}

absl::Status ReadBound(absl::string_view name, absl::string_view text, TenantPolicy& policy) {
  if (name == "weight") return ReadNumber(text, 1 / kMostWeight, kMostWeight, policy.weight);
  if (name == "running") return ReadInteger(text, 0, kMostCount, policy.max_running);
  if (name == "queued") return ReadInteger(text, 0, kMostCount, policy.max_queued);
  if (name == "stored") return ReadBytes(text, 0, kMostBytes, policy.max_stored_bytes);
  if (name == "calls") return ReadInteger(text, 0, kMostCount, policy.max_calls);
  if (name == "tokens_per_minute") {
    return ReadInteger(text, 0, kMostCount, policy.tokens_per_minute);
  }
  if (name == "queue_share") return ReadNumber(text, kLeastShare, 1, policy.queue_share);
  if (name == "cache_share") return ReadNumber(text, kLeastShare, 1, policy.cache_share);
  return Refuse(
      "must be weight=, running=, queued=, stored=, calls=, tokens_per_minute=, queue_share= or "
      "cache_share=");
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

// Reads tenants one by one, and in the end says what they have: who is named has of what it leaves
// out what * has, wherever that stands.
class Reading {
 public:
  explicit Reading(absl::string_view separated_by) : separated_by_(separated_by) {}

  absl::Status Add(absl::string_view tenant) {
    std::vector<std::string> parts = absl::StrSplit(tenant, ':');
    if (parts[0] == kEverybodyElse) {
      if (everybody_else_) return Refuse("must have * once");
      everybody_else_ = true;
      return ReadPolicy(parts, others_);
    }
    if (!CheckResourceId("tenants", parts[0]).ok()) {
      return Refuse(absl::StrCat("must list NAME:weight=W:running=N:queued=N:stored=BYTES:calls=N:",
                                 "tokens_per_minute=N:queue_share=S:cache_share=S", separated_by_));
    }
    TenantPolicy alone;
    VS_RETURN_IF_ERROR(ReadPolicy(parts, alone));
    const std::string name = parts[0];
    if (!named_.emplace(name, std::move(parts)).second) {
      return Refuse(absl::StrCat("must name ", name, " once"));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<TenantPolicies> Policies() const {
    TenantPolicies policies{.others = others_, .named = {}};
    for (const auto& [name, parts] : named_) {
      VS_RETURN_IF_ERROR(ReadPolicy(parts, policies.named.emplace(name, others_).first->second));
    }
    return policies;
  }

 private:
  const absl::string_view separated_by_;  // for a message
  bool everybody_else_ = false;
  TenantPolicy others_;
  std::map<std::string, std::vector<std::string>> named_;
};

}  // namespace

absl::Status ReadTenants(absl::string_view text, TenantPolicies& tenants) {
  Reading reading(", separated by commas");
  for (const absl::string_view tenant : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    VS_RETURN_IF_ERROR(reading.Add(tenant));
  }
  VS_ASSIGN_OR_RETURN(tenants, reading.Policies());
  return absl::OkStatus();
}

absl::StatusOr<TenantPolicies> ParseTenants(absl::string_view text) {
  Reading reading(", one a line");
  size_t number = 0;
  bool any = false;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line[0] == '#') continue;
    any = true;
    if (const absl::Status read = reading.Add(line); !read.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("line ", number, " ", read.message()));
    }
  }
  // As a file is while somebody writes it anew, which must not lift every bound.
  if (!any) return absl::InvalidArgumentError("has no line; one with * alone bounds nobody");
  return reading.Policies();
}

}  // namespace valuescope::config
