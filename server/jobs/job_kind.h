// What a kind of job is to the queue: a way to run a shard, and to merge the partial results of
// all. The queue knows nothing of what is computed.
//
// Determinism: partials and artifacts depend on the spec alone. Timestamps, hosts, job ids and
// attempts never enter them, so a job that was killed and resumed gives the same bytes.
#ifndef VALUESCOPE_JOBS_JOB_KIND_H_
#define VALUESCOPE_JOBS_JOB_KIND_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/cancellation.h"
#include "store/blob_store.h"
#include "store/store.h"

namespace valuescope::jobs {

// A status that says what is missing here, for people, such as "`models/ID` is not loaded". From
// RunShard and Merge it gives the lease back without blame: the work goes on, here or elsewhere,
// where what it needs is.
absl::Status NotReady(absl::string_view what);
bool IsNotReady(const absl::Status& status);

// DATA_LOSS: the stored partial or cursor of a shard, or a blob that the partial names, is not what
// was stored. From RunShard it is the running shard's, unless OfShard says whose: that shard is
// done again from its start.
absl::Status PartialDamaged();
bool IsPartialDamaged(const absl::Status& status);

// Says of PartialDamaged that it is of this shard, where nothing says yet whose it is; other
// statuses pass unchanged.
absl::Status OfShard(int64_t shard, absl::Status status);
std::optional<int64_t> DamagedShard(const absl::Status& status);

// A shard being run. Lives as long as the call of RunShard.
class ShardContext {
 public:
  virtual ~ShardContext() = default;

  virtual const std::string& tenant() const = 0;
  virtual const std::string& spec() const = 0;  // as given at creation
  virtual int64_t shard() const = 0;            // 0 .. num_shards - 1
  virtual int64_t num_shards() const = 0;

  // Where to go on: as given to the last Checkpoint of this shard that was stored, by whichever
  // process; empty and 0 at first. The partial may be large, and is given once.
  virtual const std::string& cursor() const = 0;
  virtual std::string TakePartial() = 0;
  virtual int64_t work_done() const = 0;

  // Of a shard of the job, this one or another, as it was committed last. ABORTED where the lease
  // is lost: return it.
  virtual absl::StatusOr<store::ShardProgress> ProgressOf(int64_t shard) = 0;

  // Raised when the job is asked to stop, the lease is lost or the server drains. Look at it
  // between chunks and return CANCELLED; what was stored of checkpoints is kept.
  virtual const Cancellation& cancellation() const = 0;

  // What units that were done since the last call came to, stored with the next checkpoint or the
  // shard's result.
  virtual void Observe(std::vector<store::Observed> /*observed*/) {}

  // Digests of all blobs that the shard's partial names from now on, as stored with the next
  // checkpoint or the shard's result: they stay as long as it does.
  virtual void NameBlobs(std::vector<std::string> /*digests*/) {}

  // Offers to store the shard's result so far, where to go on, and the units of work done in this
  // shard in all, in one transaction. Offer it after every chunk: the worker decides which are
  // stored (jobs/leased_shard.h), and `partial` is called for those alone. ABORTED where the lease
  // is lost, CANCELLED where the shard is to stop or to give way: return it.
  virtual absl::Status Checkpoint(absl::FunctionRef<std::string()> partial,
                                  absl::string_view cursor, int64_t work_done) = 0;

  // --- Work that is made of other jobs ---

  // The part of that name, started now or, by whichever process, before. Errors of
  // store::Store::CreateJob, and ABORTED where the lease is lost.
  virtual absl::StatusOr<store::Job> StartChild(absl::string_view /*phase*/,
                                                const store::NewJob& /*job*/) {
    return absl::UnimplementedError("jobs of this kind have no parts");
  }
  // Parts that were started, without specs, in the order in which they began.
  virtual absl::StatusOr<std::vector<store::Job>> Children() {
    return absl::UnimplementedError("jobs of this kind have no parts");
  }
  // Stores what a checkpoint does and gives the lease back until another part has ended than the
  // `ended` that were seen, or a while has passed: return the status, which is never OK.
  virtual absl::Status AwaitChildren(std::string /*partial*/, int64_t /*work_done*/,
                                     int64_t /*ended*/) {
    return absl::UnimplementedError("jobs of this kind have no parts");
  }
};

struct ShardResult {
  std::string partial;    // the shard's whole result, opaque to the queue
  int64_t work_done = 0;  // units done in this shard in all
};

struct MergeContext {
  const std::string& tenant;
  const std::string& spec;
  int64_t num_shards;
  // A shard's partial, read when it is asked for: all together may be larger than memory. ABORTED
  // where the lease is lost: return it.
  std::function<absl::StatusOr<std::string>(int64_t shard)> partial;
  store::BlobStore& blobs;           // where artifact bytes go
  const Cancellation& cancellation;  // as a shard's
};

// An artifact of a finished job. It is stored as artifacts/JOB.ROLE, or artifacts/JOB.ROLE-PART.
struct ArtifactDraft {
  std::string role;  // "scores", "summary", ...: letters, digits, '_', '-'
  std::string part;  // of several of one role: likewise, unique among them; empty: the only one
  std::string display_name;  // file name for people
  std::string media_type;
  std::string metadata;  // opaque here, of `format_version`
  int format_version = 1;
  store::StoredBlob blob;  // written to MergeContext::blobs
};

// The artifact as a resource of that id, of no job.
store::Resource ResourceOf(ArtifactDraft draft, std::string id);

struct JobResult {
  std::vector<ArtifactDraft> artifacts;
  // Vectors and neuron sets made by the job. Tenant, job and creation time are set by the queue.
  std::vector<store::Resource> resources;
  std::string summary;  // JSON object, small
};

// Thread-safe: several workers may run shards of one kind at once. The
// status of an error decides whose fault it is (see jobs/worker.h).
class JobKind {
 public:
  virtual ~JobKind() = default;

  // "attribute_neurons", ...: as in store::NewJob::kind.
  virtual absl::string_view Name() const = 0;

  // OK where what a job needs (store::NewJob::needs) is here, else NotReady. Work that is not ready
  // is not leased. Asked often; what is here may change at any time, and whoever changes it calls
  // JobQueue::NeedsChanged.
  virtual absl::Status Readiness(absl::string_view /*needs*/) const { return absl::OkStatus(); }

  virtual absl::StatusOr<ShardResult> RunShard(ShardContext& context) = 0;

  virtual absl::StatusOr<JobResult> Merge(const MergeContext& context) = 0;
};

}  // namespace valuescope::jobs

#endif  // VALUESCOPE_JOBS_JOB_KIND_H_
