// What becomes of jobs over time, in every database: their revisions and changes of state, the
// lists that they stand in, and how long they are kept.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/sha256.h"
#include "store/store.h"
#include "tests/store/store_under_test.h"

namespace valuescope::store {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

class JobHistoryTest : public testing::TestWithParam<Database> {
 protected:
  void SetUp() override { Open(); }

  void Open() {
    store_.reset();
    auto opened = database_->Open({});
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
  }

  static NewJob Counting(int64_t shards = 1) {
    NewJob job;
    job.tenant = "lab";
    job.kind = "count";
    job.spec = "{}";
    job.num_shards = shards;
    job.total_work = shards;
    return job;
  }

  std::string Create(const NewJob& job, const IdempotencyKey& key = {}) {
    const auto created = store_->CreateJob(job, key);
    EXPECT_TRUE(created.ok()) << created.status();
    return created.ok() ? created->id : "";
  }

  std::string CreateCancelled(const NewJob& job) {
    std::string id = Create(job);
    EXPECT_TRUE(store_->RequestCancel("lab", id).ok());
    return id;
  }

  std::optional<Lease> Take() {
    auto lease = store_->LeaseWork({.can_run = {{.kind = "count", .needs = ""}}});
    EXPECT_TRUE(lease.ok()) << lease.status();
    return lease.ok() ? *lease : std::nullopt;
  }

  // Runs shards and merges until nothing is left; artifacts are the jobs'.
  void RunToTheEnd() {
    while (const std::optional<Lease> lease = Take()) {
      if (lease->is_merge()) {
        ASSERT_TRUE(store_->CompleteJob(*lease, "{}", {Artifact(lease->job_id)}).ok());
      } else {
        ASSERT_TRUE(store_->CompleteShard(*lease, {.partial = "p", .work_done = 1}).ok());
      }
    }
  }

  static Resource Artifact(const std::string& id) {
    Resource resource;
    resource.kind = ResourceKind::kArtifact;
    resource.id = id;
    resource.digest = resource.blob_digest = Sha256Hex(id);
    resource.role = "scores";
    return resource;
  }

  Job Get(const std::string& id) {
    auto job = store_->GetJob("lab", id);
    EXPECT_TRUE(job.ok()) << job.status();
    return job.ok() ? *job : Job();
  }

  // All pages, two jobs each.
  std::vector<std::string> Listed(const JobFilter& filter) {
    std::vector<std::string> ids;
    Page page{.page_size = 2};
    do {
      const auto jobs = store_->ListJobs("lab", filter, page);
      EXPECT_TRUE(jobs.ok()) << jobs.status();
      if (!jobs.ok()) return ids;
      EXPECT_LE(jobs->jobs.size(), 2u);
      for (const Job& job : jobs->jobs) ids.push_back(job.id);
      page.page_token = jobs->next_page_token;
    } while (!page.page_token.empty());
    return ids;
  }

  Expired Sweep(const Retention& retention, int64_t most_rows = 100) {
    auto expired = store_->Expire(retention, most_rows);
    EXPECT_TRUE(expired.ok()) << expired.status();
    return expired.ok() ? *expired : Expired();
  }

  std::unique_ptr<DatabaseUnderTest> database_ = MakeDatabase(GetParam());
  std::unique_ptr<Store> store_;
};

INSTANTIATE_TEST_SUITE_P(Databases, JobHistoryTest, testing::ValuesIn(kDatabases), NameOfDatabase);

std::vector<JobState> StatesOf(const Job& job) {
  std::vector<JobState> states;
  for (const JobTransition& transition : job.transitions) states.push_back(transition.state);
  return states;
}

TEST_P(JobHistoryTest, EveryChangeHasALargerRevisionAndReadingHasNone) {
  const std::string id = Create(Counting(2));
  std::vector<int64_t> revisions = {Get(id).revision};
  EXPECT_EQ(revisions.back(), 1);
  const auto changed = [&] {
    revisions.push_back(Get(id).revision);
    return revisions.back() > revisions[revisions.size() - 2];
  };
  const auto first = Take();
  EXPECT_TRUE(changed()) << "it runs";
  const auto second = Take();
  EXPECT_FALSE(changed()) << "another worker is nothing that users see";
  ASSERT_TRUE(store_->ExtendLease(*first, absl::Seconds(30)).ok());
  EXPECT_FALSE(changed());
  ASSERT_TRUE(store_->CompleteShard(*first, {.partial = "p", .work_done = 1}).ok());
  EXPECT_TRUE(changed());
  database_->Advance(absl::Seconds(31));
  ASSERT_TRUE(store_->Sweep().ok());
  EXPECT_TRUE(changed()) << "a rescue";
  ASSERT_TRUE(store_->RequestCancel("lab", id).ok());
  EXPECT_TRUE(changed());
  ASSERT_TRUE(store_->RetryJob("lab", id, {}).ok());
  EXPECT_TRUE(changed());
  database_->Advance(absl::Seconds(31));
  RunToTheEnd();
  EXPECT_TRUE(changed());
  ASSERT_TRUE(second);
  Open();
  EXPECT_FALSE(changed()) << "it is kept";
  EXPECT_EQ(store_->ListJobs("lab", {}, {})->jobs[0].revision, revisions.back());
}

TEST_P(JobHistoryTest, ChangesOfStateAreKeptInOrderWithTheirRevisions) {
  const std::string id = Create(Counting());
  const auto lease = Take();
  ASSERT_TRUE(lease);
  ASSERT_TRUE(store_->RequestCancel("lab", id).ok());
  ASSERT_TRUE(store_->ReleaseLease(*lease).ok());
  ASSERT_TRUE(store_->RetryJob("lab", id, {}).ok());
  Open();
  RunToTheEnd();
  const Job job = Get(id);
  EXPECT_THAT(StatesOf(job),
              ElementsAre(JobState::kQueued, JobState::kRunning, JobState::kCancelling,
                          JobState::kCancelled, JobState::kQueued, JobState::kRunning,
                          JobState::kSucceeded));
  for (size_t i = 1; i < job.transitions.size(); ++i) {
    EXPECT_GT(job.transitions[i].revision, job.transitions[i - 1].revision);
  }
  EXPECT_EQ(job.transitions.front().revision, 1);
  EXPECT_EQ(job.transitions.back().revision, job.revision);
}

TEST_P(JobHistoryTest, ListsPageThroughEveryCombinationOfFilters) {
  struct Made {
    std::string id;
    NewJob job;
    absl::Time created;
    JobState state;
  };
  std::vector<Made> made;  // newest first
  for (int i = 0; i < 16; ++i) {
    NewJob job = Counting();
    job.kind = i % 3 == 0 ? "count" : "measure";
    job.display_name = absl::StrCat(i % 2 == 0 ? "größe" : "groß%", i);
    job.models = {"models/a"};
    if (i % 4 == 0) job.models = {"models/a", "models/b"};
    const bool cancelled = i % 5 == 0;
    const std::string id = cancelled ? CreateCancelled(job) : Create(job);
    made.insert(made.begin(),
                {id, job, database_->Now(), cancelled ? JobState::kCancelled : JobState::kQueued});
    database_->Advance(absl::Seconds(1));
  }
  NewJob stranger = Counting();
  stranger.tenant = "stranger";
  stranger.models = {"models/b"};
  ASSERT_TRUE(store_->CreateJob(stranger, {}).ok());
  const absl::Time middle = made[8].created;
  std::vector<JobFilter> filters = {{}};
  const auto with = [&](const std::function<void(JobFilter&)>& change) {
    for (size_t i = 0, count = filters.size(); i < count; ++i) {
      filters.push_back(filters[i]);
      change(filters.back());
    }
  };
  with([](JobFilter& f) { f.states = {JobState::kQueued}; });
  with([](JobFilter& f) { f.states.insert(f.states.end(), 2, JobState::kCancelled); });
  with([](JobFilter& f) { f.kind = "measure"; });
  with([&](JobFilter& f) { f.created_after = middle; });
  with([&](JobFilter& f) { f.created_before = middle + absl::Seconds(3); });
  with([](JobFilter& f) { f.display_name_prefix = "groß%"; });
  with([](JobFilter& f) { f.model = "models/b"; });
  std::set<size_t> sizes;
  for (const JobFilter& filter : filters) {
    std::vector<std::string> wanted;
    for (const Made& one : made) {
      const auto has = [&](const auto& list, const auto& value) {
        return std::find(list.begin(), list.end(), value) != list.end();
      };
      if (!filter.states.empty() && !has(filter.states, one.state)) continue;
      if (!filter.kind.empty() && one.job.kind != filter.kind) continue;
      if (filter.created_after && one.created < *filter.created_after) continue;
      if (filter.created_before && one.created >= *filter.created_before) continue;
      if (one.job.display_name.rfind(filter.display_name_prefix, 0) != 0) continue;
      if (!filter.model.empty() && !has(one.job.models, filter.model)) continue;
      wanted.push_back(one.id);
    }
    sizes.insert(wanted.size());
    EXPECT_EQ(Listed(filter), wanted);
  }
  EXPECT_GT(sizes.size(), 5u) << "the filters differ";
}

TEST_P(JobHistoryTest, AListSaysWhatItCannotRead) {
  for (int i = 0; i < 3; ++i) Create(Counting());
  const auto page = store_->ListJobs("lab", {.kind = "count"}, {.page_size = 1});
  ASSERT_TRUE(page.ok()) << page.status();
  for (const JobFilter& other : {JobFilter(), JobFilter{.kind = "count", .model = "models/a"},
                                 JobFilter{.states = {JobState::kQueued}, .kind = "count"},
                                 JobFilter{.kind = "count", .created_after = database_->Now()}}) {
    const auto refused = store_->ListJobs("lab", other, {.page_token = page->next_page_token});
    EXPECT_EQ(DetailsOf(refused.status()).field, "page_token") << "of another list";
  }
  const auto refused = store_->ListJobs("lab", {.display_name_prefix = std::string(257, 'x')}, {});
  EXPECT_EQ(DetailsOf(refused.status()).field, "display_name_prefix");
}

TEST_P(JobHistoryTest, FinishedJobsGoWhenTheirTimeIsOverWithWhatIsTheirOwn) {
  const Retention day{.jobs = absl::Hours(24)};
  NewJob with_blob = Counting();
  with_blob.blobs = {Sha256Hex("data")};
  const std::string done = Create(with_blob);
  RunToTheEnd();
  const std::string cancelled = CreateCancelled(Counting());
  const std::string queued = Create(Counting());
  database_->Advance(absl::Hours(24) - absl::Seconds(1));
  EXPECT_THAT(Sweep(day).jobs, IsEmpty());
  EXPECT_THAT(Sweep({}).jobs, IsEmpty()) << "for ever";
  database_->Advance(absl::Seconds(1));
  const Expired expired = Sweep(day);
  EXPECT_THAT(expired.jobs, UnorderedElementsAre(done, cancelled));
  EXPECT_FALSE(expired.more);
  EXPECT_THAT(Listed({}), ElementsAre(queued));
  EXPECT_EQ(store_->GetResource("lab", ResourceKind::kArtifact, done).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_THAT(*store_->TakeOrphanedBlobs(absl::ZeroDuration()),
              UnorderedElementsAre(OrphanedBlob{Sha256Hex("data")}, OrphanedBlob{Sha256Hex(done)}));
}

TEST_P(JobHistoryTest, AJobWhoseArtifactAnotherStillReadsGoesOnceThatHasFinished) {
  const Retention day{.jobs = absl::Hours(24)};
  const std::string source = Create(Counting());
  RunToTheEnd();
  const std::string other = Create(Counting());
  RunToTheEnd();
  NewJob reading = Counting();
  reading.inputs = {{.kind = ResourceKind::kArtifact, .id = source}};
  const std::string reader = Create(reading);
  database_->Advance(absl::Hours(25));
  EXPECT_THAT(Sweep(day, /*most_rows=*/1).jobs, ElementsAre(other)) << "which does not wait";
  ASSERT_TRUE(store_->RequestCancel("lab", reader).ok());
  EXPECT_THAT(Sweep(day).jobs, ElementsAre(source));
}

TEST_P(JobHistoryTest, ATransactionRemovesABoundedNumberOfRows) {
  for (int i = 0; i < 5; ++i) CreateCancelled(Counting());
  for (int i = 0; i < 5; ++i) {
    Create(Counting(), {.request_id = absl::StrCat("request-", i), .request_digest = "d"});
  }
  database_->Advance(absl::Hours(1));
  const Retention minute{.jobs = absl::Minutes(1), .request_ids = absl::Minutes(1)};
  std::vector<std::string> jobs;
  int64_t request_ids = 0;
  int looks = 0;
  for (bool more = true; more; ++looks) {
    const Expired expired = Sweep(minute, /*most_rows=*/3);
    EXPECT_LE(expired.jobs.size() + static_cast<size_t>(expired.request_ids), 3u);
    jobs.insert(jobs.end(), expired.jobs.begin(), expired.jobs.end());
    request_ids += expired.request_ids;
    more = expired.more;
    ASSERT_LT(looks, 50);
  }
  EXPECT_EQ(jobs.size(), 5u);
  EXPECT_EQ(request_ids, 5);
  EXPECT_EQ(Listed({}).size(), 5u) << "those that are queued";
}

TEST_P(JobHistoryTest, RequestIdsAreForgottenWhenTheirTimeIsOver) {
  const IdempotencyKey key{.request_id = "request", .request_digest = "d"};
  const std::string first = Create(Counting(), key);
  const Retention week{.request_ids = absl::Hours(7 * 24)};
  database_->Advance(absl::Hours(7 * 24) - absl::Seconds(1));
  EXPECT_EQ(Sweep(week).request_ids, 0);
  EXPECT_EQ(Create(Counting(), key), first);
  database_->Advance(absl::Seconds(1));
  EXPECT_EQ(Sweep(week).request_ids, 1);
  EXPECT_NE(Create(Counting(), key), first);
}

TEST_P(JobHistoryTest, AFailedJobLosesItsPartialsAndIsRetriedFromItsStart) {
  const std::string id = Create(Counting(3));
  ASSERT_TRUE(store_->CompleteShard(*Take(), {.partial = "first", .work_done = 1}).ok());
  const auto second = Take();
  ASSERT_TRUE(
      store_->CommitProgress(*second, {.partial = "s", .cursor = "1", .work_done = 1}).ok());
  ASSERT_TRUE(store_->FailJob(*second, absl::InvalidArgumentError("bad")).ok());
  const Retention day{.partials = absl::Hours(24)};
  EXPECT_EQ(Sweep(day).partials, 0);
  EXPECT_EQ(Get(id).work_done, 2);
  database_->Advance(absl::Hours(24));
  const Expired expired = Sweep(day, /*most_rows=*/1);
  EXPECT_EQ(expired.partials, 1);
  EXPECT_TRUE(expired.more);
  EXPECT_EQ(Sweep(day).partials, 1);
  EXPECT_EQ(Sweep(day).partials, 0);
  EXPECT_EQ(Get(id).work_done, 0);
  EXPECT_EQ(Get(id).shards_done, 0);
  EXPECT_EQ(Get(id).state, JobState::kFailed);
  ASSERT_TRUE(store_->RetryJob("lab", id, {}).ok());
  const auto again = Take();
  ASSERT_TRUE(again);
  EXPECT_EQ(again->shard, 0);
  EXPECT_EQ(store_->ReadProgress(*again, 1)->partial, "");
  EXPECT_EQ(store_->ReadProgress(*again, 1)->cursor, "");
  ASSERT_TRUE(store_->ReleaseLease(*again).ok());
  RunToTheEnd();
  EXPECT_EQ(Get(id).state, JobState::kSucceeded);
}

TEST_P(JobHistoryTest, WhatUnitsCameToIsAddedUpWithEachCommitAndNotWithALostOne) {
  const std::string id = Create(Counting(2));
  const auto lost = Take();
  const auto other = Take();
  const auto observed = [](int64_t count) {
    return std::vector<Observed>{{.name = "a", .count = count, .sum = 2 * count},
                                 {.name = "b", .count = 1, .sum = 3, .sum_of_squares = 9}};
  };
  ASSERT_TRUE(store_->CommitProgress(*lost, {.work_done = 1, .observed = observed(4)}).ok());
  ASSERT_TRUE(store_->CompleteShard(*other, {.work_done = 1, .observed = observed(1)}).ok());
  database_->Advance(absl::Seconds(31));
  ASSERT_TRUE(store_->Sweep().ok());
  EXPECT_EQ(store_->CompleteShard(*lost, {.work_done = 1, .observed = observed(8)}).code(),
            absl::StatusCode::kAborted);
  EXPECT_THAT(Get(id).observed,
              ElementsAre(Observed{.name = "a", .count = 5, .sum = 10},
                          Observed{.name = "b", .count = 2, .sum = 6, .sum_of_squares = 18}));
  EXPECT_THAT(store_->ListJobs("lab", {}, {})->jobs[0].observed, IsEmpty());
}

TEST_P(JobHistoryTest, TheAgesOfTheQueueAreThoseOfItsOldest) {
  EXPECT_EQ(store_->MeasureAges()->oldest_queued, std::nullopt);
  EXPECT_EQ(store_->MeasureAges()->next_expiry, std::nullopt);
  Create(Counting());
  database_->Advance(absl::Seconds(5));
  Create(Counting());
  database_->Advance(absl::Seconds(7));
  EXPECT_EQ(store_->MeasureAges()->oldest_queued, absl::Seconds(12));
  ASSERT_TRUE(Take());
  EXPECT_EQ(store_->MeasureAges()->oldest_queued, absl::Seconds(7)) << "the first one runs";
  database_->Advance(absl::Seconds(10));
  EXPECT_EQ(store_->MeasureAges()->next_expiry, absl::Seconds(20));
}

}  // namespace
}  // namespace valuescope::store
