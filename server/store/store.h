// What the server remembers: resources and jobs. Everybody reaches it through this contract; which
// database is behind it is known to main only.
//
// Rules that hold for every implementation:
// - Everything has a tenant. Another tenant's resource or job is NOT_FOUND, as if it did not exist.
// - A call is one transaction: after an error nothing of it happened, after OK all of it is
// durable.
// - Resources are immutable. Bytes of any size are blobs (store/blob_store.h); rows name them.
// - Jobs are a durable queue: a job is cut into shards, workers lease them, and every write of a
//   worker is fenced by its lease's token, so a worker that lost its lease cannot write. Losing a
//   lease reads as ABORTED, reason LEASE_LOST, and means: abandon the work.
// - The store tells the time (its clock, or the database's), so replicas need not agree on one.
//
// Errors of every call: UNAVAILABLE (database busy, unreachable or, with reason STORAGE_FULL, out
// of space), DATA_LOSS (database damaged). Thread-safe.
#ifndef VALUESCOPE_STORE_STORE_H_
#define VALUESCOPE_STORE_STORE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/usage_tally.h"
#include "store/blob_store.h"

namespace valuescope::store {

// --- Shared ------------------------------------------------------------------------------------

// A request that creates something can be sent again: the same id with the same digest gives the
// first result, with another digest ALREADY_EXISTS (reason REQUEST_ID_REUSED). Ids are per tenant.
struct IdempotencyKey {
  std::string request_id;      // empty: not idempotent
  std::string request_digest;  // digest over the method and the body without its request_id
};

struct Page {
  // 0 means 50, above 1000 is lowered to 1000, negative is INVALID_ARGUMENT.
  int page_size = 0;
  std::string page_token;  // empty: the first page. INVALID_ARGUMENT where it is not one of ours
};

// --- Resources ---------------------------------------------------------------------------------

enum class ResourceKind : uint8_t { kVector = 1, kNeuronSet = 2, kArtifact = 3 };

// "vectors", "neuronSets", "artifacts": what stands before the slash in a resource's name.
absl::string_view CollectionOf(ResourceKind kind);

// "vectors/ID" and so on.
std::string ResourceName(ResourceKind kind, absl::string_view id);

struct ResourceReference {
  ResourceKind kind = ResourceKind::kArtifact;
  std::string id;

  bool operator==(const ResourceReference&) const = default;
};

// What ends a publication that would otherwise stay.
struct Withdrawal {
  bool of_anybody = false;     // whoever published it
  bool although_read = false;  // jobs that come to read it fail
};

// What an earlier request with the same key did.
struct EarlierRequest {
  std::string job_id;                         // the job it created or retried, or empty
  std::vector<ResourceReference> references;  // the resources it made, in order
};

struct Resource {
  std::string tenant;
  ResourceKind kind = ResourceKind::kArtifact;
  std::string id;            // see CheckResourceId in base/id.h
  absl::Time created_at;     // set by the store
  int format_version = 1;    // of metadata
  std::string digest;        // SHA-256 of the content that the resource stands for, hexadecimal
  std::string display_name;  // for people, at most 256 bytes
  std::string media_type;    // of the blob's bytes
  std::string metadata;      // opaque here
  std::string blob_digest;   // empty: no blob
  int64_t blob_size = 0;     // bytes
  std::string job_id;        // the job that made it; empty where no job did
  std::string role;  // what it is to its job ("scores", "summary"); empty where no job made it
  // Of a row of the tenant `shared` (base/shared_tenant.h): who published it, and when.
  std::string publisher = {};
  absl::Time published_at = absl::UnixEpoch();

  // For people: of what is published who published it.
  const std::string& owner() const { return publisher.empty() ? tenant : publisher; }
};

struct ResourceFilter {
  std::string job_id;  // only resources made by this job; empty: all
  // Only resources of this model, as `is_of_model` reads it in their metadata, which is opaque
  // here; empty: all. It is called inside of the transaction.
  std::string model;
  std::function<bool(const Resource&)> is_of_model;
};

struct ResourcePage {
  std::vector<Resource> resources;
  std::string next_page_token;  // empty on the last page
};

// The reason of RESOURCE_EXHAUSTED where a tenant stores as many bytes as it may.
inline constexpr char kStorageQuota[] = "STORAGE_QUOTA";

// --- Jobs --------------------------------------------------------------------------------------

enum class JobState : uint8_t {
  kQueued = 1,
  kRunning = 2,     // a shard was leased since the job was queued
  kCancelling = 3,  // asked to stop; a lease is still live
  kSucceeded = 4,
  kFailed = 5,
  kCancelled = 6,
};

// "queued", "running", ... (metric labels, logs).
absl::string_view NameOf(JobState state);

// Succeeded, failed or cancelled.
bool IsFinished(JobState state);

struct JobError {
  absl::StatusCode code = absl::StatusCode::kUnknown;
  std::string reason;  // UPPER_SNAKE_CASE
  std::string message;
  std::optional<int64_t> shard;  // unset where the failure belongs to none
};

// What a job is created from.
struct NewJob {
  std::string tenant;
  std::string kind;          // names the JobKind that runs it
  std::string display_name;  // for people, at most 256 bytes
  std::string request;       // the request as sent, opaque
  std::string metadata;      // kept for the caller (estimate, unit of work), opaque
  std::string spec;          // what the worker runs, every default and name resolved, opaque
  int64_t num_shards = 1;    // 1 .. kMaxShards
  int64_t total_work = 0;    // units of work in all shards together, >= 0
  int priority = 0;          // -100 .. 100, higher first within the tenant
  // What a worker must have to run it, separated by spaces ("models/ID"), opaque; may be empty.
  std::string needs;
  std::vector<std::string> models;  // that it runs on ("models/ID"), for lists
  // Resources the job reads: they cannot be deleted before it is finished.
  std::vector<ResourceReference> inputs;
  std::vector<std::string> blobs;  // digests of blobs it reads: named by it until it is deleted
};

inline constexpr int64_t kMaxShards = 100'000;

// What some units of a job came to: sums of whole numbers, to which others are added.
struct Observed {
  std::string name;
  int64_t count = 0;  // of units
  int64_t sum = 0;
  int64_t sum_of_squares = 0;

  bool operator==(const Observed&) const = default;
};

// A change of a job's state.
struct JobTransition {
  int64_t revision = 0;
  JobState state = JobState::kQueued;

  bool operator==(const JobTransition&) const = default;
};

struct Job {
  std::string tenant;
  std::string id;
  std::string kind;
  std::string display_name;
  std::string request;  // empty in lists
  std::string metadata;
  std::string spec;  // empty in lists
  int priority = 0;
  std::string needs;
  JobState state = JobState::kQueued;
  absl::Time created_at;
  std::optional<absl::Time> started_at;   // first lease
  std::optional<absl::Time> finished_at;  // set in the finished states only
  std::optional<JobError> error;          // set in kFailed only
  std::string result;                     // summary JSON; set in kSucceeded only, empty in lists
  int64_t num_shards = 1;
  int64_t shards_done = 0;
  int64_t total_work = 0;  // units
  int64_t work_done = 0;   // units committed
  int64_t rescues = 0;     // leases that ran out or were left behind by a dead process
  int64_t attempts = 1;    // times the job was queued: 1 + retries
  int64_t revision = 1;    // grows with every change of state, progress, rescues and attempts
  // Since it was created, oldest first; the latest kMostTransitions of them. Empty in lists.
  std::vector<JobTransition> transitions;
  std::vector<std::string> blobs;  // as in NewJob; empty in lists
  std::vector<Observed> observed;  // by name; empty in lists
  std::string parent;              // id of the job that it is a part of; empty: of none
  std::string phase;               // which part
  int64_t num_parts = 0;           // it is made of, as far as they have begun
};

inline constexpr int64_t kMostTransitions = 1000;

// What is left empty lets every job through.
struct JobFilter {
  std::vector<JobState> states;
  std::string kind;
  std::optional<absl::Time> created_after;   // or then
  std::optional<absl::Time> created_before;  // and not then
  std::string display_name_prefix;
  std::string model;
  std::string parent;  // parts of this job; empty lets through jobs that are no part of another
};

struct JobPage {
  std::vector<Job> jobs;
  std::string next_page_token;
};

struct JobCount {
  std::string tenant;
  std::string kind;
  JobState state = JobState::kQueued;
  int64_t count = 0;
};

// How old the queue is.
struct QueueAges {
  std::optional<absl::Duration> oldest_queued;  // since its creation; unset: no job is queued
  // Until the lease that is the next one to run out does, negative behind that; unset: none.
  std::optional<absl::Duration> next_expiry;
};

// --- Retention ---------------------------------------------------------------------------------

// How long things are kept: absl::InfiniteDuration() for ever.
struct Retention {
  absl::Duration jobs = absl::InfiniteDuration();         // since they finished
  absl::Duration request_ids = absl::InfiniteDuration();  // since they were first used
  // What failed and cancelled jobs have done, for a retry, since they finished.
  absl::Duration partials = absl::InfiniteDuration();
  absl::Duration usage = absl::InfiniteDuration();  // of an hour, since its end
};

// What one sweep removed.
struct Expired {
  std::vector<std::string> jobs;  // ids
  int64_t request_ids = 0;
  int64_t partials = 0;  // of shards
  int64_t usage = 0;     // hours of tenants
  bool more = false;     // there may be more to remove
};

// --- Usage ------------------------------------------------------------------------------------

// What a process counted since its batch before.
struct UsageBatch {
  std::string writer;  // the process, unlike any other that ever was
  int64_t number = 0;  // grows from batch to batch of the writer
  UsageByTenant usage;
};

struct UsageQuery {
  std::string tenant;  // empty: all
  std::optional<absl::Time>
      start;                      // the hours from the one that this lies in; 24 hours before `end`
  std::optional<absl::Time> end;  // to the one that this lies in; now
  bool by_hour = false;           // instead of one sum
};

inline constexpr absl::Duration kLongestUsageQuery = absl::Hours(400 * 24);
inline constexpr absl::Duration kLongestUsageQueryByHour = absl::Hours(31 * 24);

// What a tenant used in some hours.
struct TenantUsage {
  std::string tenant;
  absl::Time start;  // begin of the first hour
  absl::Time end;    // end of the last one
  UsageCounts counts;
  absl::Duration job_time;  // that workers spent on its jobs

  bool operator==(const TenantUsage&) const = default;
};

// --- Leases ------------------------------------------------------------------------------------

// What can be done of the jobs there are: the kind of some and what they need.
struct WorkType {
  std::string kind;
  std::string needs;

  bool operator==(const WorkType&) const = default;
};

// The shard index under which a job's merge is leased, once all its shards are done.
inline constexpr int64_t kMergeStep = -1;

struct Lease {
  std::string tenant;
  std::string job_id;
  std::string kind;
  std::string spec;
  int64_t shard = 0;  // 0 .. num_shards - 1, or kMergeStep
  std::string token;
  absl::Time expires_at;
  int64_t num_shards = 1;
  int64_t failures = 0;        // infrastructure failures of the step since it last got on
  bool begun = false;          // something of the step is committed, which ReadProgress gives
  std::string parent_id = {};  // of the job that this one is a part of; empty: of none
  // Worker time spent on it since the store was last told of some. The worker sets it before a call
  // below that writes, but for ExtendLease; it is charged to the tenant where that succeeds.
  absl::Duration worked = absl::ZeroDuration();

  bool is_merge() const { return shard == kMergeStep; }
};

struct LeaseRequest {
  std::vector<WorkType> can_run;  // here and now
  absl::Duration duration = absl::Seconds(30);
  std::string known_job;  // of a lease of this job no spec is read: it is known already
};

// A process that works on the jobs of this store, as the others see it.
struct Replica {
  std::string id;                  // of the process, unlike any other that ever was
  absl::Time started_at;           // set by the store: when it was first heard of
  absl::Time seen_at;              // set by the store: when it was last heard of
  std::vector<std::string> kinds;  // of jobs that it runs
  std::vector<std::string> has;    // what jobs may need, one by one (see NewJob::needs)
  std::string record;              // for people, opaque
};

// Whether it runs jobs of this kind that need that (NewJob::needs).
bool CanRun(const Replica& replica, absl::string_view kind, absl::string_view needs);

// A process that was not heard of for so long is not there any more.
inline constexpr absl::Duration kReplicaSilence = absl::Seconds(30);

// When a shard that failed is tried again.
struct RetryPolicy {
  // Infrastructure failures of one shard without progress in between that fail its job, and losses
  // of what it had come to that do, >= 1.
  int max_shard_failures = 3;
  // Pause before a shard that failed is leased again; doubles with every failure.
  absl::Duration failure_backoff = absl::Seconds(1);
};

// What another process did to a job.
struct JobChange {
  std::string job_id;       // empty: any of them may have changed, any number of times
  bool for_workers = true;  // there may be something to do, or to stop
};

struct ShardProgress {
  std::string partial;    // replaces the one before; empty where it is a blob
  std::string cursor;     // replaces the one before
  int64_t work_done = 0;  // units done in this shard in all, including before
  // Of the units done since the last commit, added to the job's; empty where it is read.
  std::vector<Observed> observed = {};
  // The partial as a blob that only this shard ever names, since nobody else writes the same bytes;
  // without a digest there is none.
  StoredBlob partial_blob = {};
  // Digests of blobs that the partial names, which stay as long as it does; empty where it is read.
  // Of a shard that names some every partial does.
  std::vector<std::string> blobs = {};
};

// A blob that nothing names.
struct OrphanedBlob {
  std::string digest;
  // It was a partial, which nobody else can have written: it may be removed at any age.
  bool was_partial = false;

  bool operator==(const OrphanedBlob&) const = default;
};

class Store {
 public:
  virtual ~Store() = default;

  // --- Resources ---

  // Stores all of `resources` (of `tenant`, whatever theirs says) or none, and returns them as
  // stored, in order. A resource whose id is there with the same digest is kept and returned as it
  // is (names are content); with another digest: ALREADY_EXISTS, reason RESOURCE_EXISTS. Where the
  // tenant may not store as much: RESOURCE_EXHAUSTED, reason kStorageQuota, saying what to delete.
  virtual absl::StatusOr<std::vector<Resource>> PutResources(absl::string_view tenant,
                                                             std::vector<Resource> resources,
                                                             const IdempotencyKey& key) = 0;

  // What an earlier request with this key made, so that costly work is not done again: nullopt
  // where the key is new or empty, ALREADY_EXISTS where it was used for another body.
  virtual absl::StatusOr<std::optional<EarlierRequest>> FindRequest(absl::string_view tenant,
                                                                    const IdempotencyKey& key) = 0;

  // The tenant's own, or else what a tenant published under that name.
  virtual absl::StatusOr<Resource> GetResource(absl::string_view tenant, ResourceKind kind,
                                               absl::string_view id) = 0;

  // Of a tenant's own, or of what was published, where that is the tenant `shared`. Newest first
  // (of what was published: the last one published); the order is stable while others are added. Of
  // resources with much metadata a
  // page has fewer than were asked for, and so where many are looked at for one of the model.
  virtual absl::StatusOr<ResourcePage> ListResources(absl::string_view tenant, ResourceKind kind,
                                                     const ResourceFilter& filter,
                                                     const Page& page) = 0;

  // Whether the tenant could store so many bytes more: the error of PutResources.
  virtual absl::Status CheckRoomFor(absl::string_view tenant, int64_t bytes) = 0;

  // Lets every tenant read a resource of this one, until WithdrawResource, whatever the tenant does
  // with its own. Returns what is published under that name, which may have been before. NOT_FOUND;
  // ALREADY_EXISTS (reason RESOURCE_EXISTS) where other content is published under that name;
  // RESOURCE_EXHAUSTED (reason kStorageQuota) where the tenant `shared` may not store as much.
  virtual absl::StatusOr<Resource> PublishResource(absl::string_view tenant, ResourceKind kind,
                                                   absl::string_view id) = 0;

  // Ends that. NOT_FOUND where nothing is published under that name; PERMISSION_DENIED (reason
  // ANOTHER_PUBLISHER) where another tenant published it, unless `of_anybody`; FAILED_PRECONDITION
  // (reason RESOURCE_IN_USE) while a job of any tenant that is not finished reads it, unless
  // `although_read`.
  virtual absl::Status WithdrawResource(absl::string_view tenant, ResourceKind kind,
                                        absl::string_view id, const Withdrawal& withdrawal) = 0;

  // Of the tenant's own alone. FAILED_PRECONDITION (reason RESOURCE_IN_USE) while a job that is not
  // finished reads it.
  virtual absl::Status DeleteResource(absl::string_view tenant, ResourceKind kind,
                                      absl::string_view id) = 0;

  // Blobs that nothing here names: no resource, and no job that reads them. A blob that lost its
  // last name is marked by the call that took it. One that never had a name (its writer failed or
  // died before it stored the row) is found by whoever walks through BlobStore::List and asks here:
  // of `digests`, those without a name are marked, unless they are already.
  virtual absl::Status MarkOrphanedBlobs(const std::vector<std::string>& digests) = 0;

  // Blobs that were marked at least `grace` ago and still have no name, and partials that lost
  // theirs at any time; each is returned once. The grace protects a writer that finished the same
  // bytes and has yet to store the row: pass the same age to BlobStore::Remove.
  virtual absl::StatusOr<std::vector<OrphanedBlob>> TakeOrphanedBlobs(absl::Duration grace) = 0;

  // A random id that this database was given when it was made, in printable ASCII.
  virtual absl::StatusOr<std::string> Identity() = 0;

  // --- Jobs as users see them ---

  // Queues a job. INVALID_ARGUMENT for values out of range; NOT_FOUND for a missing input;
  // RESOURCE_EXHAUSTED with a retry delay (reason QUEUE_FULL) where as many of the tenant's jobs as
  // may be have not begun.
  virtual absl::StatusOr<Job> CreateJob(const NewJob& job, const IdempotencyKey& key) = 0;

  virtual absl::StatusOr<Job> GetJob(absl::string_view tenant, absl::string_view id) = 0;

  // Newest first; the order is stable while others are added. INVALID_ARGUMENT for a prefix that no
  // display name has.
  virtual absl::StatusOr<JobPage> ListJobs(absl::string_view tenant, const JobFilter& filter,
                                           const Page& page) = 0;

  // Jobs can be parts of another one (StartChild). They are cancelled, retried and deleted with it:
  // the three calls below are FAILED_PRECONDITION, reason CHILD_JOB, for a part alone.

  // Asks to stop: CANCELLED at once where no lease is live, its own or of a part, else CANCELLING
  // until the last one ends. No effect on a finished job. Returns the job after it.
  virtual absl::StatusOr<Job> RequestCancel(absl::string_view tenant, absl::string_view id) = 0;

  // FAILED or CANCELLED -> QUEUED, keeping what is committed. FAILED_PRECONDITION in other states
  // and while a part has yet to stop (reason JOB_NOT_RETRYABLE) and where an input was deleted
  // since (INPUT_DELETED); QUEUE_FULL as CreateJob.
  virtual absl::StatusOr<Job> RetryJob(absl::string_view tenant, absl::string_view id,
                                       const IdempotencyKey& key) = 0;

  // Deletes a finished job, its parts and their artifacts; vectors and neuron sets stay.
  // FAILED_PRECONDITION (reason JOB_NOT_FINISHED) in other states of it or of a part.
  virtual absl::Status DeleteJob(absl::string_view tenant, absl::string_view id) = 0;

  // --- Jobs as workers see them ---

  // The kinds and needs of the jobs that are queued or running, each once.
  virtual absl::StatusOr<std::vector<WorkType>> ListWork() = 0;

  // Leases a shard, or the merge of a job whose shards are all done; nullopt where nothing of what
  // can be run is to do. Tenants share the time of workers (store/fair_turns.h); within a tenant
  // higher priority first, then the oldest job, then the lowest shard. Jobs that cannot be run here
  // hide none that can, and a tenant that runs as much as it may has none that can.
  virtual absl::StatusOr<std::optional<Lease>> LeaseWork(const LeaseRequest& request) = 0;

  // True where the worker of `lease`, which has `worked` on it, had better give it back, since
  // LeaseWork(request) would give it something else, that nobody is running: a job of a tenant that
  // is behind in worker time, or of the same tenant and of higher priority.
  virtual absl::StatusOr<bool> OthersWait(const Lease& lease, const LeaseRequest& request) = 0;

  // The calls below up to FailShard are fenced: ABORTED (LEASE_LOST) where the lease was taken back
  // or its job is not running (any more), where nothing else is said.

  // A shard of the leased job as last committed by whoever worked on it; empty and 0 at first.
  // Apart from the lease, and of one shard at a time: whoever dies of its size has been seen to
  // try.
  virtual absl::StatusOr<ShardProgress> ReadProgress(const Lease& lease, int64_t shard) = 0;

  // Moves the expiry to now + duration.
  virtual absl::Status ExtendLease(const Lease& lease, absl::Duration duration) = 0;
  // Stores partial, cursor and progress together, of a job that was asked to stop too. The shard's
  // infrastructure failures are forgiven: it gets on.
  virtual absl::Status CommitProgress(const Lease& lease, const ShardProgress& progress) = 0;
  // The same, and the shard is done.
  virtual absl::Status CompleteShard(const Lease& lease, const ShardProgress& progress) = 0;
  // Ends the job as SUCCEEDED with its summary (JSON) and resources (errors: PutResources), all in
  // one transaction. Takes the merge's lease. Tenant, job_id and created_at of the resources are
  // set here.
  virtual absl::Status CompleteJob(const Lease& merge, absl::string_view summary,
                                   std::vector<Resource> resources) = 0;

  // What a shard of the leased job has come to is lost: the shard is to be done again from its
  // start, and is open for that unless it is leased. What the job has observed begins anew. `lost`:
  // the blob of its partial, and nothing happens where that is another one by now; empty where the
  // partial is there and cannot be read, and nothing happens where the shard is being done again.
  // A shard that is lost as often as it may fail ends its job as FAILED with `cause`.
  virtual absl::Status RestartShard(const Lease& lease, int64_t shard, absl::string_view lost,
                                    const absl::Status& cause) = 0;

  // The fault of the request: ends the job as FAILED with `error`.
  virtual absl::Status FailJob(const Lease& lease, const absl::Status& error) = 0;
  // The fault of the machinery: the shard can be leased again after a pause that doubles, and the
  // job fails with `error` once a shard failed as often as the store's options allow without any
  // progress in between.
  virtual absl::Status FailShard(const Lease& lease, const absl::Status& error) = 0;

  // Gives a lease back without blame (drain, cancel). A job that was asked to stop is CANCELLED
  // when its last lease ends. OK for a lease that is already lost.
  virtual absl::Status ReleaseLease(const Lease& lease) = 0;

  // Takes back leases that ran out: each counts as a rescue of its job and an infrastructure
  // failure of its shard. Returns the ids of the jobs that changed.
  virtual absl::StatusOr<std::vector<std::string>> Sweep() = 0;

  // --- Retention ---

  // Removes what has been kept for long enough, about `most_rows` rows in one transaction: ask
  // again while there is more. A finished job goes as by DeleteJob, unless another job that is not
  // finished reads an artifact of it. A job that loses its partials can be retried, from its start.
  virtual absl::StatusOr<Expired> Expire(const Retention& retention, int64_t most_rows) = 0;

  // --- Usage ---

  // Adds a batch to what its tenants used in the hour that it is. A batch whose number is not above
  // that of its writer's last one is there already: OK, and nothing is added, so that one of which
  // it is not known whether it was can be sent again. What workers spend on jobs is not a part of
  // it: that is counted where it is charged.
  virtual absl::Status AddUsage(const UsageBatch& batch) = 0;

  // By start, then tenant; who used nothing is left out. INVALID_ARGUMENT naming "end_time" where
  // it is not after `start` or the time is longer than may be asked for.
  virtual absl::StatusOr<std::vector<TenantUsage>> QueryUsage(const UsageQuery& query) = 0;

  // --- Other processes ---

  // Whether there can be other processes: what each has to tell goes stale in kReplicaSilence.
  virtual bool IsShared() const = 0;

  // Tells of this process, for as long as it is told again within kReplicaSilence or, where nobody
  // shares the store, until it is opened again.
  virtual absl::Status PutReplica(const Replica& replica) = 0;
  // OK where it is not there.
  virtual absl::Status RemoveReplica(absl::string_view id) = 0;
  // Those that were heard of, in order of their ids.
  virtual absl::StatusOr<std::vector<Replica>> ListReplicas() = 0;

  // Calls `on_change` (which must not block for long) from a thread of the store's own when another
  // process that shares the store changed a job, until the next Subscribe; an empty function ends
  // it. When this returns, no call of the function before is under way. Changes can be told more
  // often than they happen, and what happens while the database cannot be reached is told as one.
  virtual void Subscribe(std::function<void(const JobChange&)> on_change) = 0;

  // --- Metrics ---

  // Jobs of all tenants by kind and state.
  virtual absl::StatusOr<std::vector<JobCount>> CountJobs() = 0;
  // Rescues of all jobs that exist, and of those deleted since.
  virtual absl::StatusOr<int64_t> TotalRescues() = 0;
  virtual absl::StatusOr<QueueAges> MeasureAges() = 0;

  // --- Jobs that are made of other jobs, as their workers see them; fenced like
  // --- the calls above

  // Starts a job that is a part of the leased one, or finds that of this phase, which was started
  // before. It has the tenant and the priority of its parent, whatever `job` says, and ends with
  // it. Errors of CreateJob.
  virtual absl::StatusOr<Job> StartChild(const Lease& lease, absl::string_view phase,
                                         const NewJob& job) = 0;
  // CommitProgress, and gives the lease back: the shard is not leased again before another part of
  // the job has ended than the `ended` that were seen, or `pause` has passed.
  virtual absl::Status AwaitChildren(const Lease& lease, const ShardProgress& progress,
                                     int64_t ended, absl::Duration pause) = 0;
};

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_STORE_H_
