#include "tenant_commands.h"

#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "commands.h"
#include "job_list.h"
#include "job_progress.h"
#include "output.h"

namespace valuescope::command_line {
namespace {

struct UsageFlags {
  std::string tenant;      // empty: the caller's
  std::string start, end;  // as ParseMoment reads them; empty: the server's defaults
  bool by_hour = false;
};

int Publish(const Globals& globals, const std::string& name) {
  v1::PublishResourceRequest request;
  request.set_name(name);
  const auto response = globals.Connect().PublishResource(request);
  if (!response.ok()) return Fail(response.status());
  const v1::SharedResource& shared = response->resource();
  if (globals.json) {
    PrintJson(shared);
  } else {
    std::cout << shared.name() << " is shared with all tenants, by " << shared.publisher()
              << " since " << MomentText(shared.publish_time()) << "\n";
  }
  return kOk;
}

int Withdraw(const Globals& globals, const std::string& name, bool force) {
  v1::WithdrawResourceRequest request;
  request.set_name(name);
  request.set_force(force);
  const auto response = globals.Connect().WithdrawResource(request);
  if (!response.ok()) return Fail(response.status());
  if (globals.json) PrintJson(*response);
  return kOk;
}

absl::StatusOr<v1::QueryUsageRequest> UsageRequestOf(const UsageFlags& flags) {
  v1::QueryUsageRequest request;
  request.set_tenant(flags.tenant);
  request.set_by_hour(flags.by_hour);
  const absl::Time now = absl::Now();
  if (!flags.start.empty()) {
    const absl::Status set = SetMoment("--start", flags.start, now, request.mutable_start_time());
    if (!set.ok()) return set;
  }
  if (!flags.end.empty()) {
    const absl::Status set = SetMoment("--end", flags.end, now, request.mutable_end_time());
    if (!set.ok()) return set;
  }
  return request;
}

int TellUsage(const Globals& globals, const UsageFlags& flags) {
  const auto request = UsageRequestOf(flags);
  if (!request.ok()) return FailUsage(request.status());
  const auto response = globals.Connect().QueryUsage(*request);
  if (!response.ok()) return Fail(response.status());
  if (globals.json) {
    for (const v1::TenantUsage& usage : response->usage()) PrintJson(usage);
    return kOk;
  }
  std::vector<std::vector<std::string>> rows = {
      {"TENANT", "FROM", "TO", "CALLS", "PROMPT TOKENS", "GENERATED", "JOB SECONDS"}};
  for (const v1::TenantUsage& usage : response->usage()) {
    rows.push_back({usage.tenant(), MomentText(usage.start_time()), MomentText(usage.end_time()),
                    absl::StrCat(usage.calls()), absl::StrCat(usage.prompt_tokens()),
                    absl::StrCat(usage.generated_tokens()),
                    absl::StrFormat("%.1f", usage.job_seconds())});
  }
  PrintTable(rows);
  return kOk;
}

}  // namespace

void AddTenantCommands(CLI::App& app, const Globals& globals, Action& action) {
  static std::string name;
  constexpr char kNames[] = "vectors/ID, neuronSets/ID or artifacts/ID";
  CLI::App* publish =
      app.add_subcommand("publish", "let all tenants read what is yours, until you withdraw it");
  publish->add_option("name", name, kNames)->required();
  publish->footer(
      "example:\n"
      "  valuescope publish vectors/ID\n"
      "  valuescope vectors list --shared\n");
  publish->callback([&] { action = [&globals] { return Publish(globals, name); }; });
  CLI::App* withdraw = app.add_subcommand("withdraw", "end what publish began");
  withdraw->add_option("name", name, kNames)->required();
  static bool force;
  withdraw->add_flag("--force", force,
                     "also while jobs read it, which fail where they come to; for admins");
  withdraw->footer(
      "example:\n"
      "  valuescope vectors list --shared\n"
      "  valuescope withdraw vectors/ID\n");
  withdraw->callback([&] { action = [&globals] { return Withdraw(globals, name, force); }; });
  static UsageFlags flags;
  CLI::App* usage = app.add_subcommand("usage", "calls, tokens and time of jobs that tenants used");
  usage->add_option("--tenant", flags.tenant, "whose, yours by default; * is all, for admins");
  usage->add_option("--start", flags.start,
                    "from the hour of then: 2026-11-29, 2026-11-29T12:30:00Z, or how long ago: "
                    "36h, 7d; default 24 hours before --end");
  usage->add_option("--end", flags.end, "to the hour of then, default now");
  usage->add_flag("--by_hour", flags.by_hour, "a row an hour instead of one sum");
  usage->footer(
      "example:\n"
      "  valuescope usage --start 7d\n"
      "  valuescope usage --tenant '*' --start 2026-11-01 --end 2026-11-30 --by_hour\n");
  usage->callback([&] { action = [&globals] { return TellUsage(globals, flags); }; });
}

}  // namespace valuescope::command_line
