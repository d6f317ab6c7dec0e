#include "store/sql_store.h"

#include <type_traits>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "store/child_rows.h"
#include "store/expired_rows.h"
#include "store/job_list.h"
#include "store/job_rows.h"
#include "store/lease_rows.h"
#include "store/ready_queue.h"
#include "store/replica_rows.h"
#include "store/resource_rows.h"
#include "store/sql_database.h"
#include "store/tenant_rows.h"
#include "store/usage_rows.h"

namespace valuescope::store {
namespace {

constexpr bool kForWorkers = true;
constexpr bool kForWatchers = false;

// Each call is one transaction around the function of the same name.
class SqlStore : public Store {
 public:
  SqlStore(std::unique_ptr<SqlDatabase> database, const RetryPolicy& policy,
           std::shared_ptr<const TenantPolicySource> tenants)
      : database_(std::move(database)), policy_(policy), tenants_(std::move(tenants)) {}

  absl::StatusOr<std::vector<Resource>> PutResources(absl::string_view tenant,
                                                     std::vector<Resource> resources,
                                                     const IdempotencyKey& key) override {
    for (Resource& resource : resources) {
      resource.tenant = std::string(tenant);
      VS_RETURN_IF_ERROR(CheckResource(resource));
    }
    return database_->Transact(
        [&](SqlTransaction& transaction) -> absl::StatusOr<std::vector<Resource>> {
          std::vector<Resource> stored;
          VS_ASSIGN_OR_RETURN(const std::optional<EarlierRequest> earlier,
                              FindEarlierRequest(transaction, tenant, key));
          if (earlier) {
            for (const auto& [kind, id] : earlier->references) {
              VS_ASSIGN_OR_RETURN(Resource resource, GetOwnResource(transaction, tenant, kind, id));
              stored.push_back(std::move(resource));
            }
            return stored;
          }
          EarlierRequest request;
          for (const Resource& resource : resources) {
            request.references.push_back({.kind = resource.kind, .id = resource.id});
            VS_ASSIGN_OR_RETURN(Resource put, PutResource(transaction, resource, *tenants_->Now()));
            stored.push_back(std::move(put));
          }
          RememberRequest(transaction, tenant, key, request);
          return stored;
        });
  }

  absl::StatusOr<std::optional<EarlierRequest>> FindRequest(absl::string_view tenant,
                                                            const IdempotencyKey& key) override {
    return database_->Read(
        [&](SqlTransaction& transaction) { return FindEarlierRequest(transaction, tenant, key); });
  }

  absl::StatusOr<Resource> GetResource(absl::string_view tenant, ResourceKind kind,
                                       absl::string_view id) override {
    return database_->Read([&](SqlTransaction& transaction) {
      return store::GetResource(transaction, tenant, kind, id);
    });
  }

  absl::StatusOr<ResourcePage> ListResources(absl::string_view tenant, ResourceKind kind,
                                             const ResourceFilter& filter,
                                             const Page& page) override {
    return database_->Read([&](SqlTransaction& transaction) {
      return store::ListResources(transaction, tenant, kind, filter, page);
    });
  }

  absl::Status CheckRoomFor(absl::string_view tenant, int64_t bytes) override {
    return database_->Read([&](SqlTransaction& transaction) {
      return store::CheckRoomFor(transaction, tenant, bytes, *tenants_->Now());
    });
  }

  absl::StatusOr<Resource> PublishResource(absl::string_view tenant, ResourceKind kind,
                                           absl::string_view id) override {
    return database_->Transact([&](SqlTransaction& transaction) {
      return store::PublishResource(transaction, tenant, kind, id, *tenants_->Now());
    });
  }

  absl::Status WithdrawResource(absl::string_view tenant, ResourceKind kind, absl::string_view id,
                                const Withdrawal& withdrawal) override {
    return database_->Transact([&](SqlTransaction& transaction) {
      return store::WithdrawResource(transaction, tenant, kind, id, withdrawal);
    });
  }

  absl::Status DeleteResource(absl::string_view tenant, ResourceKind kind,
                              absl::string_view id) override {
    return database_->Transact([&](SqlTransaction& transaction) {
      return store::DeleteResource(transaction, tenant, kind, id);
    });
  }

  absl::Status MarkOrphanedBlobs(const std::vector<std::string>& digests) override {
    return database_->Transact([&](SqlTransaction& transaction) {
      store::MarkOrphanedBlobs(transaction, digests);
      return absl::OkStatus();
    });
  }

  absl::StatusOr<std::vector<OrphanedBlob>> TakeOrphanedBlobs(absl::Duration grace) override {
    return database_->Transact(
        [&](SqlTransaction& transaction) -> absl::StatusOr<std::vector<OrphanedBlob>> {
          return store::TakeOrphanedBlobs(transaction, grace);
        });
  }

  absl::StatusOr<std::string> Identity() override {
    return database_->Read([](SqlTransaction& transaction) -> absl::StatusOr<std::string> {
      const auto row = transaction.Query("SELECT id FROM store_identity");
      row->Next();
      return row->Text(0);
    });
  }

  absl::StatusOr<Job> CreateJob(const NewJob& job, const IdempotencyKey& key) override {
    return database_->Transact([&](SqlTransaction& transaction) -> absl::StatusOr<Job> {
      VS_ASSIGN_OR_RETURN(Job created, store::CreateJob(transaction, job, key, *tenants_->Now()));
      transaction.Announce({.job_id = created.id, .for_workers = true});
      return created;
    });
  }

  absl::StatusOr<Job> GetJob(absl::string_view tenant, absl::string_view id) override {
    return database_->Read(
        [&](SqlTransaction& transaction) { return store::GetJob(transaction, tenant, id); });
  }

  absl::StatusOr<JobPage> ListJobs(absl::string_view tenant, const JobFilter& filter,
                                   const Page& page) override {
    return database_->Read([&](SqlTransaction& transaction) {
      return store::ListJobs(transaction, tenant, filter, page);
    });
  }

  absl::StatusOr<Job> RequestCancel(absl::string_view tenant, absl::string_view id) override {
    return Change(id, kForWorkers, [&](SqlTransaction& transaction) {
      return store::RequestCancel(transaction, tenant, id);
    });
  }

  absl::StatusOr<Job> RetryJob(absl::string_view tenant, absl::string_view id,
                               const IdempotencyKey& key) override {
    return Change(id, kForWorkers, [&](SqlTransaction& transaction) {
      return store::RetryJob(transaction, tenant, id, key, *tenants_->Now());
    });
  }

  absl::Status DeleteJob(absl::string_view tenant, absl::string_view id) override {
    return Change(id, kForWatchers, [&](SqlTransaction& transaction) {
      return store::DeleteJob(transaction, tenant, id);
    });
  }

  absl::StatusOr<std::vector<WorkType>> ListWork() override {
    return database_->Read(
        [&](SqlTransaction& transaction) -> absl::StatusOr<std::vector<WorkType>> {
          return store::ListWork(transaction);
        });
  }

  absl::StatusOr<std::optional<Lease>> LeaseWork(const LeaseRequest& request) override {
    VS_ASSIGN_OR_RETURN(
        std::optional<Lease> lease,
        database_->Transact(
            [&](SqlTransaction& transaction) -> absl::StatusOr<std::optional<Lease>> {
              std::optional<Lease> taken = store::LeaseWork(transaction, request, *tenants_->Now());
              if (taken) transaction.Announce({.job_id = taken->job_id, .for_workers = false});
              return taken;
            }));
    if (!lease || lease->job_id == request.known_job) return lease;
    // Megabytes perhaps: whoever dies of their size has been seen to try.
    VS_ASSIGN_OR_RETURN(
        std::optional<std::string> spec,
        database_->Read(
            [&](SqlTransaction& transaction) -> absl::StatusOr<std::optional<std::string>> {
              return store::ReadSpec(transaction, lease->job_id);
            }));
    if (!spec) return std::nullopt;
    lease->spec = *std::move(spec);
    return lease;
  }

  absl::StatusOr<bool> OthersWait(const Lease& lease, const LeaseRequest& request) override {
    return database_->Read([&](SqlTransaction& transaction) -> absl::StatusOr<bool> {
      return store::OthersWait(transaction, lease, request.can_run, *tenants_->Now());
    });
  }

  absl::StatusOr<ShardProgress> ReadProgress(const Lease& lease, int64_t shard) override {
    return database_->Read([&](SqlTransaction& transaction) {
      return store::ReadProgress(transaction, lease, shard);
    });
  }

  absl::Status ExtendLease(const Lease& lease, absl::Duration duration) override {
    return database_->Transact([&](SqlTransaction& transaction) {
      return store::ExtendLease(transaction, lease, duration);
    });
  }

  absl::Status CommitProgress(const Lease& lease, const ShardProgress& progress) override {
    return Change(lease.job_id, kForWatchers, [&](SqlTransaction& transaction) {
      return store::CommitProgress(transaction, lease, progress, /*done=*/false, *tenants_->Now());
    });
  }

  absl::Status CompleteShard(const Lease& lease, const ShardProgress& progress) override {
    return Change(lease.job_id, kForWatchers, [&](SqlTransaction& transaction) {
      return store::CommitProgress(transaction, lease, progress, /*done=*/true, *tenants_->Now());
    });
  }

  absl::StatusOr<Job> StartChild(const Lease& lease, absl::string_view phase,
                                 const NewJob& job) override {
    return database_->Transact([&](SqlTransaction& transaction) -> absl::StatusOr<Job> {
      VS_ASSIGN_OR_RETURN(Job child,
                          store::StartChild(transaction, lease, phase, job, *tenants_->Now()));
      transaction.Announce({.job_id = child.id, .for_workers = true});
      return child;
    });
  }

  absl::Status AwaitChildren(const Lease& lease, const ShardProgress& progress, int64_t ended,
                             absl::Duration pause) override {
    return Change(lease.job_id, kForWorkers, [&](SqlTransaction& transaction) {
      return store::AwaitChildren(transaction, lease, progress, ended, pause, *tenants_->Now());
    });
  }

  absl::Status CompleteJob(const Lease& merge, absl::string_view summary,
                           std::vector<Resource> resources) override {
    return End(merge, kForWatchers, [&](SqlTransaction& transaction) {
      return store::CompleteJob(transaction, merge, summary, resources, *tenants_->Now());
    });
  }

  absl::Status RestartShard(const Lease& lease, int64_t shard, absl::string_view lost,
                            const absl::Status& cause) override {
    return End(lease, kForWorkers, [&](SqlTransaction& transaction) {
      return store::RestartShard(transaction, lease, shard, lost, cause, policy_);
    });
  }

  absl::Status FailJob(const Lease& lease, const absl::Status& error) override {
    return End(lease, kForWorkers, [&](SqlTransaction& transaction) {
      return store::FailJob(transaction, lease, error, *tenants_->Now());
    });
  }

  absl::Status FailShard(const Lease& lease, const absl::Status& error) override {
    return End(lease, kForWorkers, [&](SqlTransaction& transaction) {
      return store::FailShard(transaction, lease, error, policy_, *tenants_->Now());
    });
  }

  absl::Status ReleaseLease(const Lease& lease) override {
    return End(lease, kForWorkers, [&](SqlTransaction& transaction) {
      return store::ReleaseLease(transaction, lease, *tenants_->Now());
    });
  }

  absl::StatusOr<std::vector<std::string>> Sweep() override {
    VS_ASSIGN_OR_RETURN(
        std::vector<std::string> changed, ChangeSeveral([&](SqlTransaction& transaction) {
          return TakeBackLeases(transaction, /*expired_by=*/transaction.now(), policy_);
        }));
    for (size_t i = 0, count = changed.size(); i < count; ++i) {
      if (const auto parent = TellParent(changed[i])) changed.push_back(*parent);
    }
    VS_ASSIGN_OR_RETURN(const std::vector<std::string> stopped,
                        ChangeSeveral([](SqlTransaction& transaction) {
                          return FinishStoppedParents(transaction);
                        }));
    changed.insert(changed.end(), stopped.begin(), stopped.end());
    return changed;
  }

  absl::StatusOr<std::vector<JobCount>> CountJobs() override {
    return database_->Read(
        [&](SqlTransaction& transaction) -> absl::StatusOr<std::vector<JobCount>> {
          return store::CountJobs(transaction);
        });
  }

  absl::StatusOr<int64_t> TotalRescues() override {
    return database_->Read([&](SqlTransaction& transaction) -> absl::StatusOr<int64_t> {
      return store::TotalRescues(transaction);
    });
  }

  bool IsShared() const override { return database_->IsShared(); }

  absl::Status PutReplica(const Replica& replica) override {
    return database_->Transact([&](SqlTransaction& transaction) {
      store::PutReplica(transaction, replica, Silence());
      return absl::OkStatus();
    });
  }

  absl::Status RemoveReplica(absl::string_view id) override {
    return database_->Transact([&](SqlTransaction& transaction) {
      store::RemoveReplica(transaction, id);
      return absl::OkStatus();
    });
  }

  absl::StatusOr<std::vector<Replica>> ListReplicas() override {
    return database_->Read(
        [&](SqlTransaction& transaction) { return store::ListReplicas(transaction, Silence()); });
  }

  absl::StatusOr<QueueAges> MeasureAges() override {
    return database_->Read([&](SqlTransaction& transaction) -> absl::StatusOr<QueueAges> {
      return store::MeasureAges(transaction);
    });
  }

  absl::StatusOr<Expired> Expire(const Retention& retention, int64_t most_rows) override {
    return database_->Transact([&](SqlTransaction& transaction) -> absl::StatusOr<Expired> {
      VS_ASSIGN_OR_RETURN(Expired expired, store::Expire(transaction, retention, most_rows));
      for (const std::string& id : expired.jobs) {
        transaction.Announce({.job_id = id, .for_workers = kForWatchers});
      }
      return expired;
    });
  }

  absl::Status AddUsage(const UsageBatch& batch) override {
    return database_->Transact(
        [&](SqlTransaction& transaction) { return store::AddUsage(transaction, batch); });
  }

  absl::StatusOr<std::vector<TenantUsage>> QueryUsage(const UsageQuery& query) override {
    return database_->Read(
        [&](SqlTransaction& transaction) { return store::QueryUsage(transaction, query); });
  }

  void Subscribe(std::function<void(const JobChange&)> on_change) override {
    database_->Subscribe(std::move(on_change));
  }

 private:
  absl::Duration Silence() const { return IsShared() ? kReplicaSilence : absl::InfiniteDuration(); }

  // A transaction that changes one job, which other processes hear of where it is committed.
  template <typename Body>
  auto Change(absl::string_view job_id, bool for_workers, Body&& body)
      -> std::invoke_result_t<Body, SqlTransaction&> {
    return database_->Transact([&](SqlTransaction& transaction) {
      auto result = body(transaction);
      if (result.ok()) {
        transaction.Announce({.job_id = std::string(job_id), .for_workers = for_workers});
      }
      return result;
    });
  }

  // The same of a leased one that may have ended by it.
  template <typename Body>
  absl::Status End(const Lease& lease, bool for_workers, Body&& body) {
    VS_RETURN_IF_ERROR(Change(lease.job_id, for_workers, std::forward<Body>(body)));
    if (!lease.parent_id.empty()) TellParent(lease.job_id);
    return absl::OkStatus();
  }

  // Of several jobs, whose ids `body` returns.
  template <typename Body>
  absl::StatusOr<std::vector<std::string>> ChangeSeveral(Body&& body) {
    return database_->Transact(
        [&](SqlTransaction& transaction) -> absl::StatusOr<std::vector<std::string>> {
          std::vector<std::string> changed = body(transaction);
          for (const std::string& id : changed) {
            transaction.Announce({.job_id = id, .for_workers = true});
          }
          return changed;
        });
  }

  // Where the job has ended, the one that it is a part of goes on; its id. One that is not told
  // looks by itself after a while, so an error is none.
  std::optional<std::string> TellParent(const std::string& job_id) {
    const auto parent = database_->Read(
        [&](SqlTransaction& transaction) -> absl::StatusOr<std::optional<std::string>> {
          return ParentOfFinished(transaction, job_id);
        });
    if (!parent.ok() || !parent->has_value()) return std::nullopt;
    Change(**parent, kForWorkers, [&](SqlTransaction& transaction) {
      ChildEnded(transaction, **parent);
      return absl::OkStatus();
    }).IgnoreError();
    return *parent;
  }

  const std::unique_ptr<SqlDatabase> database_;
  const RetryPolicy policy_;
  const std::shared_ptr<const TenantPolicySource> tenants_;
};

}  // namespace

std::unique_ptr<Store> MakeSqlStore(std::unique_ptr<SqlDatabase> database,
                                    const RetryPolicy& policy,
                                    std::shared_ptr<const TenantPolicySource> tenants) {
  if (tenants == nullptr) tenants = std::make_shared<TenantPolicySource>();
  return std::make_unique<SqlStore>(std::move(database), policy, std::move(tenants));
}

}  // namespace valuescope::store
