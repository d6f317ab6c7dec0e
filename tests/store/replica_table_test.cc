// The processes that share a store, as each other sees them, in every database.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "store/store.h"
#include "tests/store/store_under_test.h"

namespace valuescope::store {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class ReplicaTableTest : public testing::TestWithParam<Database> {
 protected:
  void SetUp() override { Open(); }

  void Open() {
    store_.reset();
    auto opened = database_->Open({});
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
  }

  absl::Status Put(const std::string& id, const std::vector<std::string>& has = {"models/a"},
                   const std::string& record = "record") {
    return store_->PutReplica({.id = id,
                               .started_at = {},
                               .seen_at = {},
                               .kinds = {"count"},
                               .has = has,
                               .record = record});
  }

  std::vector<std::string> Ids() {
    const auto replicas = store_->ListReplicas();
    EXPECT_TRUE(replicas.ok()) << replicas.status();
    std::vector<std::string> ids;
    for (const Replica& replica : *replicas) ids.push_back(replica.id);
    return ids;
  }

  const std::unique_ptr<DatabaseUnderTest> database_ = MakeDatabase(GetParam());
  std::unique_ptr<Store> store_;
};

TEST_P(ReplicaTableTest, AServerIsKnownByWhatItToldLast) {
  ASSERT_TRUE(Put("b").ok());
  ASSERT_TRUE(Put("a").ok());
  const absl::Time first = database_->Now();
  database_->Advance(absl::Seconds(10));
  const std::string bytes("\0\xff", 2);
  ASSERT_TRUE(Put("b", {"models/a;x_y", "models/\"b\"", "\xc3\xa9"}, bytes).ok());
  const auto replicas = store_->ListReplicas();
  ASSERT_TRUE(replicas.ok()) << replicas.status();
  EXPECT_THAT(Ids(), ElementsAre("a", "b"));
  const Replica& told = replicas->at(1);
  EXPECT_THAT(told.kinds, ElementsAre("count"));
  EXPECT_THAT(told.has, ElementsAre("models/a;x_y", "models/\"b\"", "\xc3\xa9"));
  EXPECT_EQ(told.record, bytes);
  EXPECT_LE(absl::AbsDuration(told.started_at - first), absl::Seconds(5));
  EXPECT_GE(told.seen_at - told.started_at, absl::Seconds(10));
}

TEST_P(ReplicaTableTest, AServerThatWasSilentForTooLongIsForgottenWhereOthersAre) {
  ASSERT_TRUE(Put("silent").ok());
  database_->Advance(kReplicaSilence / 2);
  ASSERT_TRUE(Put("heard").ok());
  EXPECT_THAT(Ids(), ElementsAre("heard", "silent"));
  database_->Advance(kReplicaSilence / 2 + absl::Seconds(1));
  if (store_->IsShared()) {
    EXPECT_THAT(Ids(), ElementsAre("heard"));
  } else {
    EXPECT_THAT(Ids(), ElementsAre("heard", "silent")) << "it has nobody to be heard by";
    Open();
    EXPECT_THAT(Ids(), IsEmpty());
  }
}

TEST_P(ReplicaTableTest, AServerThatLeavesIsForgottenAtOnce) {
  ASSERT_TRUE(Put("a").ok());
  ASSERT_TRUE(store_->RemoveReplica("a").ok());
  ASSERT_TRUE(store_->RemoveReplica("never there").ok());
  EXPECT_THAT(Ids(), IsEmpty());
}

TEST(CanRun, TakesTheKindAndEverythingThatIsNeeded) {
  const Replica replica{.id = "a",
                        .started_at = {},
                        .seen_at = {},
                        .kinds = {"count"},
                        .has = {"models/a;1", "models/b;1"},
                        .record = ""};
  EXPECT_TRUE(CanRun(replica, "count", ""));
  EXPECT_TRUE(CanRun(replica, "count", "models/b;1 models/a;1"));
  EXPECT_FALSE(CanRun(replica, "count", "models/a;1 models/c;1"));
  EXPECT_FALSE(CanRun(replica, "count", "models/a"));
  EXPECT_FALSE(CanRun(replica, "other", ""));
}

INSTANTIATE_TEST_SUITE_P(Each, ReplicaTableTest, testing::ValuesIn(kDatabases), NameOfDatabase);

}  // namespace
}  // namespace valuescope::store
