// What servers that share a store know of each other's models, and of their speed together.
#include "services/replica_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "valuescope/v1/models.pb.h"

namespace valuescope::services {
namespace {

constexpr char kNeed[] = "models/tiny;w;FLOAT32";

store::Replica ServerOf(const std::string& id, std::optional<double> speed,
                        const std::string& has = kNeed) {
  v1::Replica record;
  record.set_name("name of " + id);
  v1::ModelReplica& model = *record.add_models();
  model.set_model("models/tiny");
  if (speed) model.set_tokens_per_second(*speed);
  return {.id = id,
          .started_at = absl::FromUnixSeconds(1),
          .seen_at = absl::FromUnixSeconds(2),
          .kinds = {"count"},
          .has = {has},
          .record = record.SerializeAsString()};
}

double SpeedOf(const std::vector<store::Replica>& known, const std::string& own = "a") {
  const Replicas replicas([&] { return known; }, own);
  const auto speed = replicas.SpeedTogether("count", kNeed);
  EXPECT_TRUE(speed.ok()) << speed.status();
  return *speed;
}

TEST(Replicas, AreListedByNameWithTheirHeartbeats) {
  const Replicas replicas(
      [] {
        return std::vector<store::Replica>{ServerOf("z", 1.0), ServerOf("a", 1.0)};
      },
      "a");
  const auto listed = replicas.List();
  ASSERT_TRUE(listed.ok()) << listed.status();
  ASSERT_EQ(listed->size(), 2u);
  EXPECT_EQ(listed->at(0).name(), "name of a");
  EXPECT_EQ(listed->at(0).start_time().seconds(), 1);
  EXPECT_EQ(listed->at(0).heartbeat_time().seconds(), 2);
}

TEST(Replicas, AreAsFastTogetherAsTheirMeasuresSay) {
  EXPECT_EQ(SpeedOf({}), 1);
  EXPECT_EQ(SpeedOf({ServerOf("a", 100.0)}), 1);
  EXPECT_EQ(SpeedOf({ServerOf("a", 100.0), ServerOf("b", 300.0)}), 4);
  EXPECT_EQ(SpeedOf({ServerOf("a", 100.0), ServerOf("b", std::nullopt)}), 2);
  EXPECT_EQ(SpeedOf({ServerOf("a", std::nullopt), ServerOf("b", 300.0)}), 2);
}

TEST(Replicas, ThatComputeInAnotherWayAddNoSpeed) {
  EXPECT_EQ(SpeedOf({ServerOf("a", 100.0), ServerOf("b", 300.0, "models/tiny;w;BFLOAT16")}), 1);
  EXPECT_EQ(SpeedOf({ServerOf("a", std::nullopt), ServerOf("b", 300.0, "models/tiny;v;FLOAT32")}),
            1);
}

TEST(Replicas, OthersThatHaveAModelAreTold) {
  const std::vector<store::Replica> known = {
      ServerOf("c", 1.0, "models/tiny"), ServerOf("a", 1.0, "models/tiny"),
      ServerOf("b", 1.0, "models/tiny"), ServerOf("d", 1.0, "models/tiny2")};
  const Replicas replicas([&] { return known; }, "a");
  EXPECT_THAT(replicas.OthersWith("tiny"), testing::ElementsAre("name of b", "name of c"));
  EXPECT_THAT(replicas.OthersWith("small"), testing::IsEmpty());
}

TEST(Replicas, KnowKindsOfOtherVersions) {
  store::Replica newer = ServerOf("b", 1.0);
  newer.kinds.push_back("numbers");
  const Replicas replicas(
      [&] {
        return std::vector<store::Replica>{ServerOf("a", 1.0), newer};
      },
      "a");
  EXPECT_TRUE(replicas.AnyKnows("numbers"));
  EXPECT_FALSE(replicas.AnyKnows("words"));
}

TEST(Replicas, ADamagedRecordIsAnError) {
  store::Replica damaged = ServerOf("b", 1.0);
  damaged.record = "\xff";
  const Replicas replicas([&] { return std::vector<store::Replica>{damaged}; }, "a");
  EXPECT_EQ(replicas.List().status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(replicas.SpeedTogether("count", kNeed).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace valuescope::services
