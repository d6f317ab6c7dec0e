// A kind of work that a test adds: it counts the letters of queries. The class is all that a kind
// is, and one line makes it known.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "services/calls_at_once.h"
#include "tests/kinds/small_site.h"

namespace valuescope::kinds {
namespace {

struct Letters {
  int64_t count = 0;

  std::string Serialize() const { return absl::StrCat(count); }
};

class LettersOutcome : public jobs::Outcome {
 public:
  explicit LettersOutcome(int64_t of) : count(of) {}
  absl::StatusOr<std::vector<store::Resource>> Resources(store::BlobStore&) const override {
    return std::vector<store::Resource>();
  }
  absl::StatusOr<std::vector<jobs::ArtifactDraft>> Artifacts(store::BlobStore&) const override {
    return std::vector<jobs::ArtifactDraft>();
  }
  std::string Summary(const std::vector<store::Resource>&) const override {
    return absl::StrCat("{\"letters\":", count, "}");
  }

  const int64_t count;
};

class LettersWork : public jobs::WorkOn<Letters> {
 public:
  // `damaged`: how often what is parsed is found damaged, where that is not null.
  explicit LettersWork(std::vector<std::string> words, std::atomic<int>* damaged = nullptr)
      : words_(std::move(words)), damaged_(damaged) {}

  jobs::Extent extent() const override {
    return {.units = static_cast<int64_t>(words_.size()), .units_per_shard = 2};
  }
  absl::StatusOr<jobs::SavedWork> Save(store::BlobStore&) const override {
    return jobs::SavedWork{.spec = absl::StrJoin(words_, "\n"), .blobs = {}};
  }

 protected:
  absl::StatusOr<Letters> BeginSums(int64_t) override { return Letters(); }
  absl::StatusOr<Letters> ParseSums(absl::string_view bytes, int64_t, int64_t) override {
    Letters letters;
    const bool damaged = damaged_ != nullptr && damaged_->fetch_sub(1) > 0;
    if (damaged || !absl::SimpleAtoi(bytes, &letters.count)) return jobs::PartialDamaged();
    return letters;
  }
  absl::Status AddUnits(const jobs::UnitRange& units, const Cancellation&,
                        Letters& letters) override {
    for (int64_t i = units.first; i < units.end; ++i) {
      letters.count += static_cast<int64_t>(words_[static_cast<size_t>(i)].size());
    }
    return absl::OkStatus();
  }
  absl::Status AddShard(const Letters& shard, Letters& whole) override {
    whole.count += shard.count;
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<jobs::Outcome>> FinishSums(const Letters& whole,
                                                            const Cancellation&) override {
    return std::make_unique<LettersOutcome>(whole.count);
  }

 private:
  const std::vector<std::string> words_;
  std::atomic<int>* const damaged_;
};

// Under the name of a field of JobSpec that no kind of the server has.
class LettersKind : public services::KindOf<v1::ValueStudySpec, google::protobuf::Struct,
                                            LettersWork, LettersOutcome> {
 public:
  absl::string_view Name() const override { return "value_study"; }
  absl::string_view Unit() const override { return "words"; }
  absl::StatusOr<std::unique_ptr<jobs::Work>> Open(absl::string_view,
                                                   absl::string_view spec) override {
    return std::make_unique<LettersWork>(absl::StrSplit(spec, '\n'), &damaged);
  }

  std::atomic<int> damaged = 0;

 protected:
  absl::StatusOr<services::ResolvedWork> Resolved(const v1::ValueStudySpec& request,
                                                  const rpc::CallContext&,
                                                  const services::ResolveOptions&) override {
    if (request.queries().empty()) return InvalidField("queries", "must have at least one");
    services::ResolvedWork resolved;
    resolved.estimate.forwards = request.queries_size();
    resolved.work = std::make_unique<LettersWork>(
        std::vector<std::string>(request.queries().begin(), request.queries().end()));
    return resolved;
  }
  void Answered(const v1::ValueStudySpec&, const services::ResolvedWork&, const LettersWork&,
                const LettersOutcome& outcome, const std::vector<store::Resource>&,
                google::protobuf::Struct& response) const override {
    (*response.mutable_fields())["letters"].set_number_value(static_cast<double>(outcome.count));
  }
  absl::Status Replayed(const store::Resource&, google::protobuf::Struct&) const override {
    return absl::InternalError("it leaves nothing");
  }
};

v1::JobSpec SpecOf(const std::vector<std::string>& words) {
  v1::JobSpec spec;
  spec.mutable_value_study();
  for (const std::string& word : words) spec.mutable_value_study()->add_queries(word);
  return spec;
}

TEST(AKindOfATest, IsAddedByOneLineAndRunsAsAJobAndAtOnce) {
  TemporaryFolder folder;
  SmallSite site(folder);
  const v1::JobSpec spec = SpecOf({"power", "security", "tradition", "care", "joy"});
  const auto unknown = site.Create(spec);
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(unknown.status().message(),
            absl::StrCat("`spec.value_study` is not served by this version, which serves ",
                         site.registry.Names()));

  site.registry.Add(std::make_unique<LettersKind>());

  site.StartWorker();
  const auto name = site.Create(spec);
  ASSERT_TRUE(name.ok()) << name.status();
  const v1::Job job = site.Await(*name);
  ASSERT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED) << job.error().message();
  EXPECT_EQ(job.kind(), "value_study");
  EXPECT_EQ(job.progress().unit(), "words");
  EXPECT_EQ(job.progress().done(), 5);
  EXPECT_EQ(job.progress().shards_done(), 3);
  EXPECT_EQ(job.estimate().forwards(), 5);
  EXPECT_EQ(job.result().summary().fields().at("letters").number_value(), 29);

  const auto nothing = site.Create(SpecOf({}));
  EXPECT_EQ(DetailsOf(nothing.status()).field, "spec.value_study.queries");

  const v1::ValueStudySpec& request = spec.value_study();
  const auto resolved = site.registry.Get("value_study").Resolve(request, site.context, {});
  const auto outcome = jobs::RunAtOnce(*resolved->work, Cancellation());
  google::protobuf::Struct answer;
  site.registry.Get("value_study").Answer(request, *resolved, **outcome, {}, &answer);
  EXPECT_EQ(answer.fields().at("letters").number_value(), 29);
}

TEST(AKindOfATest, AShardThatIsFoundDamagedWhenAllArePutTogetherIsDoneAgain) {
  for (const auto& [damaged, state] :
       {std::pair{1, v1::JOB_STATE_SUCCEEDED}, {100, v1::JOB_STATE_FAILED}}) {
    TemporaryFolder folder;
    SmallSite site(folder);
    auto kind = std::make_unique<LettersKind>();
    kind->damaged = damaged;
    site.registry.Add(std::move(kind));
    site.StartWorker();
    const v1::Job job = site.Await(*site.Create(SpecOf({"power", "security", "tradition"})));
    ASSERT_EQ(job.state(), state) << job.error().message();
    if (state == v1::JOB_STATE_SUCCEEDED) {
      EXPECT_EQ(job.result().summary().fields().at("letters").number_value(), 22);
      continue;
    }
    EXPECT_EQ(job.error().reason(), "PARTIAL_LOST");
    EXPECT_THAT(job.error().message(), testing::HasSubstr("shard 0 of"));
  }
}

}  // namespace
}  // namespace valuescope::kinds
