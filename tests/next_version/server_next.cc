// This version's server with what the next one may bring: a kind of jobs, fields of records that
// this version's contract lacks, and tables one format ahead, which only add to those of this
// version. The program is main.cc itself, but that two functions which it calls are those below.
//
// Where VALUESCOPE_NEXT_JOB is set it makes a job of its kind as it starts, in place of a client
// whose contract has one.
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/status_macros.h"
#include "base/tenant_policy.h"
#include "kinds/kinds.h"
#include "services/kind.h"
#include "store/postgres_connection.h"
#include "store/postgres_store.h"
#include "studies/stored_record.h"
#include "valuescope/v1/common.pb.h"
#include "valuescope/v1/jobs.pb.h"

namespace valuescope::next {

inline constexpr char kKind[] = "count_letters";
inline constexpr char kModel[] = "mistral";
inline constexpr int kUnknownField = 1000;

// Its bytes, with a field that this version's contract lacks.
template <typename Message>
std::string WithUnknownField(Message message) {
  message.GetReflection()->MutableUnknownFields(&message)->AddLengthDelimited(
      kUnknownField, "of the next version");
  return message.SerializeAsString();
}

inline std::string& StoreUrl() {
  static std::string url;
  return url;
}

// One format ahead of this version's.
inline absl::StatusOr<std::unique_ptr<store::Store>> OpenStore(
    const std::string& url, const store::RetryPolicy& retry,
    std::shared_ptr<const TenantPolicySource> tenants) {
  VS_RETURN_IF_ERROR(store::OpenPostgresStore(url, retry, tenants).status());
  store::PostgresConnection connection(url);
  connection.Script(
      "BEGIN; SELECT pg_advisory_xact_lock(1448297296);"
      "DO $$ BEGIN IF to_regclass('job_remarks') IS NULL THEN"
      "  ALTER TABLE jobs ADD COLUMN remark TEXT NOT NULL DEFAULT 'none';"
      "  CREATE TABLE job_remarks (job BIGINT PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,"
      "    remark TEXT NOT NULL);"
      "  UPDATE store_format SET version = version + 1;"
      "END IF; END $$; COMMIT");
  StoreUrl() = url;
  return store::OpenPostgresStore(url, retry, std::move(tenants));
}

// Each shard tells how long the spec is; needs a model that the test loads when it likes.
class CountLetters : public services::Kind {
 public:
  explicit CountLetters(engine::ModelRegistry* models) : models_(models) {}

  absl::string_view Name() const override { return kKind; }
  absl::string_view Unit() const override { return "letters"; }
  absl::Status Readiness(absl::string_view) const override {
    const absl::Status there = models_->Get(kModel).status();
    return there.ok() ? there : jobs::NotReady(there.message());
  }

  absl::StatusOr<jobs::ShardResult> RunShard(jobs::ShardContext& context) override {
    return jobs::ShardResult{.partial = std::to_string(context.spec().size()), .work_done = 1};
  }
  absl::StatusOr<jobs::JobResult> Merge(const jobs::MergeContext& context) override {
    VS_ASSIGN_OR_RETURN(const std::string letters, context.partial(0));
    VS_ASSIGN_OR_RETURN(const store::StoredBlob blob, store::WriteBlob(context.blobs, letters));
    v1::Provenance provenance;
    provenance.set_format_version(1);
    jobs::JobResult result;
    result.artifacts.push_back({.role = "letters",
                                .part = "",
                                .display_name = "letters.txt",
                                .media_type = "text/plain",
                                .metadata = WithUnknownField(provenance),
                                .format_version = studies::kRecordVersion,
                                .blob = blob});
    result.summary = "{}";
    return result;
  }

  // No call and no request of this version's contract is about it.
  absl::StatusOr<std::unique_ptr<jobs::Work>> Open(absl::string_view, absl::string_view) override {
    return absl::UnimplementedError(kKind);
  }
  absl::StatusOr<services::ResolvedWork> Resolve(const google::protobuf::Message&,
                                                 const rpc::CallContext&,
                                                 const services::ResolveOptions&) override {
    return absl::UnimplementedError(kKind);
  }
  void Answer(const google::protobuf::Message&, const services::ResolvedWork&, const jobs::Outcome&,
              const std::vector<store::Resource>&, google::protobuf::Message*) const override {}
  absl::Status Replay(const store::Resource&, google::protobuf::Message*) const override {
    return absl::UnimplementedError(kKind);
  }

 private:
  engine::ModelRegistry* const models_;
};

inline void MakeJob(store::Store& store) {
  store::NewJob job;
  job.tenant = "default";
  job.kind = kKind;
  job.request = WithUnknownField(v1::JobSpec());
  job.metadata = WithUnknownField(v1::JobEstimate());
  job.spec = "letters";
  job.total_work = 1;
  job.needs = std::string("models/") + kModel;
  job.models = {job.needs};
  const auto made = store.CreateJob(job, {});
  VS_CHECK(made.ok());
  store::PostgresConnection(StoreUrl())
      .Script("INSERT INTO job_remarks SELECT sequence, 'by the next' FROM jobs WHERE id = '" +
              made->id + "'");
}

inline void AddKinds(const kinds::Sources& sources, services::KindRegistry& registry) {
  kinds::AddKinds(sources, registry);
  registry.Add(std::make_unique<CountLetters>(sources.models));
  if (getenv("VALUESCOPE_NEXT_JOB") != nullptr) MakeJob(*sources.store);
}

}  // namespace valuescope::next

namespace valuescope::kinds {
inline void AddNextKinds(const Sources& sources, services::KindRegistry& registry) {
  next::AddKinds(sources, registry);
}
}  // namespace valuescope::kinds

namespace valuescope::store {
inline absl::StatusOr<std::unique_ptr<Store>> OpenNextPostgresStore(
    const std::string& url, const RetryPolicy& retry,
    std::shared_ptr<const TenantPolicySource> tenants) {
  return next::OpenStore(url, retry, std::move(tenants));
}
}  // namespace valuescope::store

#define AddKinds AddNextKinds
#define OpenPostgresStore OpenNextPostgresStore
#include "server/main.cc"  // NOLINT(bugprone-suspicious-include)
