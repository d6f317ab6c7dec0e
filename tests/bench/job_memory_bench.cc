// What a job over all neurons of a large model holds and writes: resident memory above that of the
// idle process, and bytes written a commit into the database and into blobs, by quarter of the
// responses, of which none may depend. Activations are a fake engine's; queue, store, blobs, sums,
// scores and the time between commits are those of the server. The last line is JSON; the exit code
// is 1 where more memory is held than may be.
//
//   job_memory_bench [RESPONSES [LAYERS NEURONS]]     20000 64 27648: a model of 32 billion weights
#include <malloc.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "tests/jobs/await_job.h"
#include "tests/kinds/small_site.h"
#include "tests/store/counting_disk.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::kinds {
namespace {

using nlohmann::json;

constexpr int64_t kMostAboveIdle = 400'000'000;
constexpr int kQuarters = 4;

// What /proc/self/FILE says behind NAME.
int64_t Told(const char* file, absl::string_view name) {
  std::ifstream lines(absl::StrCat("/proc/self/", file));
  for (std::string word; lines >> word;) {
    int64_t value = 0;
    if (word == name && lines >> value) return value;
  }
  std::fprintf(stderr, "/proc/self/%s does not say\n", file);
  std::exit(1);
}

int64_t ResidentBytes() { return 1024 * Told("status", "VmRSS:"); }

struct Written {
  int64_t database = 0, blobs = 0;  // bytes

  static Written SoFar(const store::CountingDisk& disk) {
    const int64_t database = disk.written();
    return {.database = database, .blobs = Told("io", "wchar:") - database};
  }
};

// The largest resident memory since it was last asked, by looking all the time.
class Peak {
 public:
  Peak() : thread_([this] { Look(); }) {}
  ~Peak() {
    ended_ = true;
    thread_.join();
  }

  int64_t Take() {
    const int64_t now = ResidentBytes();
    return std::max(now, most_.exchange(now));
  }

 private:
  void Look() {
    while (!ended_) {
      const int64_t now = ResidentBytes();
      for (int64_t most = most_; most < now && !most_.compare_exchange_weak(most, now);) {
      }
      absl::SleepFor(absl::Milliseconds(5));
    }
  }

  std::atomic<bool> ended_ = false;
  std::atomic<int64_t> most_ = 0;
  std::thread thread_;
};

struct Quarter {
  int64_t responses = 0, commits = 0, peak = 0;  // the latter in bytes
  Written written;
};

// Runs the job to its end. What is written for the merge counts apart.
std::array<Quarter, kQuarters + 1> Watch(SmallSite& site, const store::CountingDisk& disk,
                                         const std::string& job, int64_t units) {
  std::array<Quarter, kQuarters + 1> quarters;
  Peak peak;
  int64_t done = 0;
  Written written = Written::SoFar(disk);
  const auto seen = [&](const valuescope::jobs::JobSnapshot& now) {
    const bool finished = store::IsFinished(now.job.state);
    if (now.job.work_done == done && !finished) return false;
    Quarter& quarter = quarters[static_cast<size_t>(
        finished ? kQuarters : std::min<int64_t>(kQuarters - 1, kQuarters * done / units))];
    const Written before = written;
    written = Written::SoFar(disk);
    quarter.responses += now.job.work_done - done;
    quarter.commits += 1;
    quarter.written.database += written.database - before.database;
    quarter.written.blobs += written.blobs - before.blobs;
    quarter.peak = std::max(quarter.peak, peak.Take());
    done = now.job.work_done;
    return finished;
  };
  const auto end = valuescope::jobs::AwaitJob(site.queue, "lab", job.substr(job.find('/') + 1),
                                              absl::Now() + absl::Hours(12), seen);
  if (!end.ok() || end->job.state != store::JobState::kSucceeded) {
    std::cerr << "the job did not succeed: "
              << (end.ok() && end->job.error ? end->job.error->message : end.status().ToString())
              << "\n";
    std::exit(1);
  }
  return quarters;
}

json Described(const Quarter& quarter, int64_t idle) {
  const int64_t commits = std::max<int64_t>(1, quarter.commits);
  return {{"responses", quarter.responses},
          {"commits", quarter.commits},
          {"database_bytes_a_commit", quarter.written.database / commits},
          {"blob_bytes_a_commit", quarter.written.blobs / commits},
          {"peak_bytes_above_idle", quarter.peak - idle}};
}

int Main(int responses, int layers, int64_t neurons) {
  mallopt(M_ARENA_MAX, 2);  // as the server does
  TemporaryFolder folder;
  const store::CountingDisk disk;
  SmallSite site(folder);
  site.AddModel(SmallSite::kDigest, DType::kFloat32, std::make_shared<FakeEngine>(layers, neurons));
  v1::JobSpec spec;
  *spec.mutable_attribute_neurons() =
      site.Attribution(responses, std::vector<float>(static_cast<size_t>(3 * layers), 1));
  const auto job = site.Create(spec);
  if (!job.ok()) {
    std::cerr << job.status() << "\n";
    return 1;
  }
  malloc_trim(0);
  const int64_t idle = ResidentBytes();
  const absl::Time began = absl::Now();
  site.StartWorker(valuescope::jobs::TurnRules().commit_interval);
  const std::array<Quarter, kQuarters + 1> quarters = Watch(site, disk, *job, responses);
  json told = {{"responses", responses}, {"layers", layers}, {"neurons", neurons}};
  told["seconds"] = absl::ToDoubleSeconds(absl::Now() - began);
  told["idle_bytes"] = idle;
  int64_t most = 0;
  for (const Quarter& quarter : quarters) {
    const bool merge = &quarter == &quarters.back();
    const json described = Described(quarter, idle);
    std::cout << (merge ? "merge: " : "quarter: ") << described << "\n";
    told[merge ? "merge" : "quarters"] += described;
    most = std::max(most, quarter.peak - idle);
  }
  told["peak_bytes_above_idle"] = most;
  told["most_bytes_above_idle"] = kMostAboveIdle;
  std::cout << told << std::endl;
  return most > kMostAboveIdle;
}

}  // namespace
}  // namespace valuescope::kinds

int main(int argc, char** argv) {
  int responses = 20'000, layers = 64;
  int64_t neurons = 27'648;
  const bool read = (argc < 2 || absl::SimpleAtoi(argv[1], &responses)) &&
                    (argc < 3 || absl::SimpleAtoi(argv[2], &layers)) &&
                    (argc < 4 || absl::SimpleAtoi(argv[3], &neurons));
  if (!read || argc > 4 || responses < 2 || layers < 1 || neurons < 1) {
    std::fputs("job_memory_bench [RESPONSES [LAYERS NEURONS]]\n", stderr);
    return 2;
  }
  return valuescope::kinds::Main(responses, layers, neurons);
}
