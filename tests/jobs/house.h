// A server's half that matters to jobs: store, blobs, queue, one worker.
#ifndef VALUESCOPE_TESTS_JOBS_HOUSE_H_
#define VALUESCOPE_TESTS_JOBS_HOUSE_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "jobs/job_queue.h"
#include "jobs/worker.h"
#include "store/directory_blob_store.h"
#include "tests/jobs/await_job.h"
#include "tests/jobs/letters_kind.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::jobs {

struct House {
  House(std::unique_ptr<store::Store> opened, const TemporaryFolder& folder, LettersKind* kind,
        WorkerOptions options)
      : store(std::move(opened)),
        blobs(store::OpenDirectoryBlobStore(folder / "blobs").value()),
        queue(std::make_unique<JobQueue>(store.get())),
        worker(std::make_unique<Worker>(queue.get(), blobs.get(), std::vector<JobKind*>{kind},
                                        std::move(options))) {}

  std::unique_ptr<store::Store> store;
  std::unique_ptr<store::BlobStore> blobs;
  std::unique_ptr<JobQueue> queue;
  std::unique_ptr<Worker> worker;
};

// Lets the worker work until the job has ended.
inline store::Job Finish(House& house, const std::string& id) {
  const absl::Time deadline = absl::Now() + kPatience;
  house.worker->Start();
  const auto snapshot = AwaitJob(*house.queue, "lab", id, deadline, [](const JobSnapshot& now) {
    return store::IsFinished(now.job.state);
  });
  EXPECT_TRUE(snapshot.ok()) << snapshot.status();
  return snapshot.ok() ? snapshot->job : store::Job();
}

inline std::string ArtifactBytes(House& house, const std::string& id) {
  const auto artifact =
      house.store->GetResource("lab", store::ResourceKind::kArtifact, id + ".letters");
  EXPECT_TRUE(artifact.ok()) << artifact.status();
  return artifact.ok() ? *store::ReadBlob(*house.blobs, artifact->blob_digest, 1 << 20) : "";
}

}  // namespace valuescope::jobs

#endif  // VALUESCOPE_TESTS_JOBS_HOUSE_H_
