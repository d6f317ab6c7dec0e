#include "observability/metrics.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

namespace valuescope::observability {
namespace {

using testing::HasSubstr;

std::string Scrape(const std::string& address) {
  const int port = std::stoi(address.substr(address.rfind(':') + 1));
  const int connection = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in target{};
  target.sin_family = AF_INET;
  target.sin_port = htons(static_cast<uint16_t>(port));
  ::inet_pton(AF_INET, "127.0.0.1", &target.sin_addr);
  std::string page;
  if (::connect(connection, reinterpret_cast<sockaddr*>(&target), sizeof(target)) == 0) {
    const std::string request = "GET /metrics HTTP/1.0\r\nConnection: close\r\n\r\n";
    EXPECT_EQ(::write(connection, request.data(), request.size()),
              static_cast<ssize_t>(request.size()));
    char buffer[4096];
    for (ssize_t got; (got = ::read(connection, buffer, sizeof(buffer))) > 0;) {
      page.append(buffer, static_cast<size_t>(got));
    }
  }
  ::close(connection);
  return page;
}

TEST(MetricsTest, EventsAndStateStandOnThePageUnderTheirNames) {
  Metrics metrics("1.2.3");
  metrics.RpcFinished("JobService.GetJob", "NOT_FOUND", absl::Milliseconds(3));
  metrics.FirstToken(absl::Milliseconds(20));
  metrics.NextToken(absl::Milliseconds(7));
  metrics.ShardFinished("attribute_neurons", absl::Seconds(2));
  metrics.Expired("jobs", 2);
  metrics.Expired("jobs", 3);
  metrics.FileReread("tokens", /*in_force=*/true);
  metrics.FileReread("tokens", /*in_force=*/false);
  metrics.FileReread("tokens", /*in_force=*/false);
  metrics.S3Finished(
      {.operation = "put", .code = "503", .sent = 100, .duration = absl::Milliseconds(4)});
  metrics.S3Finished({.operation = "put",
                      .code = "200",
                      .again = true,
                      .sent = 100,
                      .received = 7,
                      .duration = absl::Milliseconds(4)});
  ServingState state;
  state.requests_running = 3;
  state.requests_waiting = 2;
  state.prompt_tokens = 100;
  state.generated_tokens = 50;
  state.batch_rows = 7;
  state.step_running = absl::Milliseconds(1500);
  state.kv_cache_used_ratio = 0.25;
  state.kv_cache_promised_ratio = 0.5;
  state.kv_cache_cached_ratio = 0.125;
  state.prefix_hit_tokens = 640;
  state.steered_prefix_hit_tokens = 160;
  state.preemptions = 9;
  state.admissions = 10;
  state.interventions_applied = {{"add", 11}, {"clamp", 0}};
  state.captured_bytes = 4096;
  state.device_memory = {{"weights", 540}};
  state.memory = {{.place = "host", .held = 700, .limit = 9000}};
  state.jobs = {{.kind = "attribute_neurons", .state = "running", .count = 4}};
  state.job_rescues = 1;
  state.oldest_queued_job = absl::Seconds(90);
  state.oldest_lease = absl::Milliseconds(2500);
  const std::string page = metrics.Page(state);
  for (const char* line :
       {"valuescope_rpc_duration_seconds_count{code=\"NOT_FOUND\",method=\"JobService.GetJob\"} 1",
        "valuescope_time_to_first_token_seconds_count 1",
        "valuescope_inter_token_latency_seconds_count 1",
        "valuescope_job_shard_duration_seconds_count{kind=\"attribute_neurons\"} 1",
        "valuescope_requests_running 3",
        "valuescope_requests_waiting 2",
        "valuescope_prompt_tokens_total 100",
        "valuescope_generated_tokens_total 50",
        "valuescope_batch_rows 7",
        "valuescope_step_running_seconds 1.5",
        "valuescope_kv_cache_used_ratio 0.25",
        "valuescope_kv_cache_promised_ratio 0.5",
        "valuescope_kv_cache_cached_ratio 0.125",
        "valuescope_prefix_hit_tokens_total 640",
        "valuescope_steered_prefix_hit_tokens_total 160",
        "valuescope_preemptions_total 9",
        "valuescope_requests_admitted_total 10",
        "valuescope_interventions_applied_total{op=\"add\"} 11",
        "valuescope_interventions_applied_total{op=\"clamp\"} 0",
        "valuescope_captured_bytes_total 4096",
        "valuescope_device_memory_bytes{kind=\"weights\"} 540",
        "valuescope_memory_held_bytes{place=\"host\"} 700",
        "valuescope_memory_limit_bytes{place=\"host\"} 9000",
        "valuescope_jobs{kind=\"attribute_neurons\",state=\"running\"} 4",
        "valuescope_job_rescues_total 1",
        "valuescope_expired_total{what=\"jobs\"} 5",
        "valuescope_files_reread_total{file=\"tokens\",outcome=\"in_force\"} 1",
        "valuescope_files_reread_total{file=\"tokens\",outcome=\"refused\"} 2",
        "valuescope_oldest_queued_job_seconds 90",
        "valuescope_oldest_job_lease_seconds 2.5",
        "valuescope_s3_request_duration_seconds_count{code=\"503\",operation=\"put\"} 1",
        "valuescope_s3_request_duration_seconds_count{code=\"200\",operation=\"put\"} 1",
        "valuescope_s3_retries_total{operation=\"put\"} 1",
        "valuescope_s3_sent_bytes_total{operation=\"put\"} 200",
        "valuescope_s3_received_bytes_total{operation=\"put\"} 7",
        "valuescope_build_info{version=\"1.2.3\"} 1"}) {
    EXPECT_THAT(page, HasSubstr(line));
  }
}

TEST(MetricsTest, AScrapeReadsTheStateOfItsMoment) {
  int64_t running = 1;
  Metrics metrics("test");
  const auto address = metrics.Serve("127.0.0.1:0", [&] {
    ServingState state;
    state.requests_running = running;
    return state;
  });
  ASSERT_TRUE(address.ok()) << address.status();
  EXPECT_THAT(Scrape(*address), HasSubstr("valuescope_requests_running 1"));
  running = 5;
  EXPECT_THAT(Scrape(*address), HasSubstr("valuescope_requests_running 5"));
  Metrics second("test");
  EXPECT_EQ(second.Serve(*address, [] { return ServingState(); }).status().code(),
            absl::StatusCode::kUnavailable);
  metrics.StopServing();
  EXPECT_EQ(Scrape(*address), "");
}

}  // namespace
}  // namespace valuescope::observability
