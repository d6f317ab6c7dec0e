// A job whose server stops in the midst of it, and which another server over the same stores ends.
#ifndef VALUESCOPE_TESTS_KINDS_CUT_JOB_H_
#define VALUESCOPE_TESTS_KINDS_CUT_JOB_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <string>

#include "absl/synchronization/notification.h"
#include "tests/kinds/small_site.h"

namespace valuescope::kinds {

struct CutOptions {
  int64_t extraction_scratch_bytes = int64_t{1} << 30;
  double scale = 1;  // FakeEngine has it
};

struct CutJob {
  v1::Job job;  // as it ended
  // What was submitted to the engine of the server that stopped, of the job, and of the other.
  int64_t before = 0, after = 0;
};

// The job that `spec_of` asks a site for. Its server stops once `submissions` of it were submitted,
// which is in the midst of a chunk where those are no multiple of its size.
inline CutJob CutAndResume(const std::function<v1::JobSpec(SmallSite& site)>& spec_of,
                           int64_t submissions, const CutOptions& options = {}) {
  TemporaryFolder folder;
  CutJob cut_job;
  std::string name;
  {
    SmallSite site(folder, options.extraction_scratch_bytes);
    site.engine->scale = options.scale;
    const auto created = site.Create(spec_of(site));
    EXPECT_TRUE(created.ok()) << created.status();
    if (!created.ok()) return cut_job;
    name = *created;
    const int64_t begun = site.engine->submitted;
    absl::Notification cut;
    site.engine->before_submit = [&](const engine::Request&) {
      if (site.engine->submitted < begun + submissions) return absl::OkStatus();
      if (!cut.HasBeenNotified()) cut.Notify();
      return absl::UnavailableError("cut");
    };
    site.StartWorker();
    cut.WaitForNotification();
    site.worker->Drain();
    cut_job.before = site.engine->submitted - begun;
  }
  SmallSite again(folder, options.extraction_scratch_bytes);
  again.engine->scale = options.scale;
  again.StartWorker();
  cut_job.job = again.Await(name);
  cut_job.after = again.engine->submitted;
  return cut_job;
}

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_TESTS_KINDS_CUT_JOB_H_
