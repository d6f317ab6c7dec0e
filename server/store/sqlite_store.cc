#include "store/sqlite_store.h"

#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "store/sqlite_database.h"
#include "store/sqlite_jobs.h"
#include "store/sqlite_resources.h"

namespace valuescope::store {
namespace {

// Each call is one transaction around the function of the same name.
class SqliteStore : public Store {
 public:
  SqliteStore(std::unique_ptr<SqliteDatabase> database, const SqliteStoreOptions& options)
      : database_(std::move(database)), options_(options) {}

  // Leases in a file that nobody else holds open are a dead process's.
  absl::Status TakeBackOrphanedLeases() {
    return database_->Transact([&](SqliteTransaction& transaction) {
      store::TakeBackLeases(transaction, /*expired_by=*/absl::FromUnixSeconds(int64_t{1} << 40),
                            options_);
      return absl::OkStatus();
    });
  }

  absl::StatusOr<std::vector<Resource>> PutResources(absl::string_view tenant,
                                                     std::vector<Resource> resources,
                                                     const IdempotencyKey& key) override {
    for (Resource& resource : resources) {
      resource.tenant = std::string(tenant);
      VS_RETURN_IF_ERROR(CheckResource(resource));
    }
    return database_->Transact(
        [&](SqliteTransaction& transaction) -> absl::StatusOr<std::vector<Resource>> {
          std::vector<Resource> stored;
          VS_ASSIGN_OR_RETURN(const std::optional<EarlierRequest> earlier,
                              FindEarlierRequest(transaction, tenant, key));
          if (earlier) {
            for (const auto& [kind, id] : earlier->references) {
              VS_ASSIGN_OR_RETURN(Resource resource,
                                  store::GetResource(transaction, tenant, kind, id));
              stored.push_back(std::move(resource));
            }
            return stored;
          }
          EarlierRequest request;
          for (Resource& resource : resources) {
            request.references.push_back({.kind = resource.kind, .id = resource.id});
            VS_ASSIGN_OR_RETURN(Resource put, PutResource(transaction, std::move(resource)));
            stored.push_back(std::move(put));
          }
          RememberRequest(transaction, tenant, key, request);
          return stored;
        });
  }

  absl::StatusOr<std::optional<EarlierRequest>> FindRequest(absl::string_view tenant,
                                                            const IdempotencyKey& key) override {
    return database_->Transact([&](SqliteTransaction& transaction) {
      return FindEarlierRequest(transaction, tenant, key);
    });
  }

  absl::StatusOr<Resource> GetResource(absl::string_view tenant, ResourceKind kind,
                                       absl::string_view id) override {
    return database_->Transact([&](SqliteTransaction& transaction) {
      return store::GetResource(transaction, tenant, kind, id);
    });
  }

  absl::StatusOr<ResourcePage> ListResources(absl::string_view tenant, ResourceKind kind,
                                             const ResourceFilter& filter,
                                             const Page& page) override {
    return database_->Transact([&](SqliteTransaction& transaction) {
      return store::ListResources(transaction, tenant, kind, filter, page);
    });
  }

  absl::Status DeleteResource(absl::string_view tenant, ResourceKind kind,
                              absl::string_view id) override {
    return database_->Transact([&](SqliteTransaction& transaction) {
      return store::DeleteResource(transaction, tenant, kind, id);
    });
  }

  absl::Status MarkOrphanedBlobs(const std::vector<std::string>& digests) override {
    return database_->Transact([&](SqliteTransaction& transaction) {
      store::MarkOrphanedBlobs(transaction, digests);
      return absl::OkStatus();
    });
  }

  absl::StatusOr<std::vector<std::string>> TakeOrphanedBlobs(absl::Duration grace) override {
    return database_->Transact(
        [&](SqliteTransaction& transaction) -> absl::StatusOr<std::vector<std::string>> {
          return store::TakeOrphanedBlobs(transaction, grace);
        });
  }

  absl::StatusOr<Job> CreateJob(const NewJob& job, const IdempotencyKey& key) override {
    return database_->Transact(
        [&](SqliteTransaction& transaction) { return store::CreateJob(transaction, job, key); });
  }

  absl::StatusOr<Job> GetJob(absl::string_view tenant, absl::string_view id) override {
    return database_->Transact(
        [&](SqliteTransaction& transaction) { return store::GetJob(transaction, tenant, id); });
  }

  absl::StatusOr<JobPage> ListJobs(absl::string_view tenant, const JobFilter& filter,
                                   const Page& page) override {
    return database_->Transact([&](SqliteTransaction& transaction) {
      return store::ListJobs(transaction, tenant, filter, page);
    });
  }

  absl::StatusOr<Job> RequestCancel(absl::string_view tenant, absl::string_view id) override {
    return database_->Transact([&](SqliteTransaction& transaction) {
      return store::RequestCancel(transaction, tenant, id);
    });
  }

  absl::StatusOr<Job> RetryJob(absl::string_view tenant, absl::string_view id,
                               const IdempotencyKey& key) override {
    return database_->Transact([&](SqliteTransaction& transaction) {
      return store::RetryJob(transaction, tenant, id, key);
    });
  }

  absl::Status DeleteJob(absl::string_view tenant, absl::string_view id) override {
    return database_->Transact(
        [&](SqliteTransaction& transaction) { return store::DeleteJob(transaction, tenant, id); });
  }

  absl::StatusOr<std::vector<WorkType>> ListWork() override {
    return database_->Transact(
        [&](SqliteTransaction& transaction) -> absl::StatusOr<std::vector<WorkType>> {
          return store::ListWork(transaction);
        });
  }

  absl::StatusOr<std::optional<Lease>> LeaseWork(const LeaseRequest& request) override {
    return database_->Transact(
        [&](SqliteTransaction& transaction) { return store::LeaseWork(transaction, request); });
  }

  absl::StatusOr<ShardProgress> ReadProgress(const Lease& lease, int64_t shard) override {
    return database_->Transact([&](SqliteTransaction& transaction) {
      return store::ReadProgress(transaction, lease, shard);
    });
  }

  absl::Status ExtendLease(const Lease& lease, absl::Duration duration) override {
    return database_->Transact([&](SqliteTransaction& transaction) {
      return store::ExtendLease(transaction, lease, duration);
    });
  }

  absl::Status CommitProgress(const Lease& lease, const ShardProgress& progress) override {
    return database_->Transact([&](SqliteTransaction& transaction) {
      return store::CommitProgress(transaction, lease, progress, /*done=*/false);
    });
  }

  absl::Status CompleteShard(const Lease& lease, const ShardProgress& progress) override {
    return database_->Transact([&](SqliteTransaction& transaction) {
      return store::CommitProgress(transaction, lease, progress, /*done=*/true);
    });
  }

  absl::Status CompleteJob(const Lease& merge, absl::string_view summary,
                           std::vector<Resource> resources) override {
    return database_->Transact([&](SqliteTransaction& transaction) {
      return store::CompleteJob(transaction, merge, summary, std::move(resources));
    });
  }

  absl::Status FailJob(const Lease& lease, const absl::Status& error) override {
    return database_->Transact(
        [&](SqliteTransaction& transaction) { return store::FailJob(transaction, lease, error); });
  }

  absl::Status FailShard(const Lease& lease, const absl::Status& error) override {
    return database_->Transact([&](SqliteTransaction& transaction) {
      return store::FailShard(transaction, lease, error, options_);
    });
  }

  absl::Status ReleaseLease(const Lease& lease) override {
    return database_->Transact(
        [&](SqliteTransaction& transaction) { return store::ReleaseLease(transaction, lease); });
  }

  absl::StatusOr<std::vector<std::string>> Sweep() override {
    return database_->Transact(
        [&](SqliteTransaction& transaction) -> absl::StatusOr<std::vector<std::string>> {
          return store::TakeBackLeases(transaction, /*expired_by=*/transaction.now(), options_);
        });
  }

  absl::StatusOr<std::vector<JobCount>> CountJobs() override {
    return database_->Transact(
        [&](SqliteTransaction& transaction) -> absl::StatusOr<std::vector<JobCount>> {
          return store::CountJobs(transaction);
        });
  }

  absl::StatusOr<int64_t> TotalRescues() override {
    return database_->Transact([&](SqliteTransaction& transaction) -> absl::StatusOr<int64_t> {
      return store::TotalRescues(transaction);
    });
  }

 private:
  const std::unique_ptr<SqliteDatabase> database_;
  const SqliteStoreOptions options_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> OpenSqliteStore(const std::string& path,
                                                       const SqliteStoreOptions& options) {
  VS_ASSIGN_OR_RETURN(std::unique_ptr<SqliteDatabase> database,
                      SqliteDatabase::Open(path, options.clock));
  auto store = std::make_unique<SqliteStore>(std::move(database), options);
  VS_RETURN_IF_ERROR(store->TakeBackOrphanedLeases());
  return store;
}

}  // namespace valuescope::store
