#include "base/id.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace valuescope {
namespace {

TEST(ResourceId, AcceptsNamesAsPeopleWriteThem) {
  for (const char* id : {"SmolLM2-135M-Instruct", "a", "v1.2_x", "0"}) {
    EXPECT_TRUE(CheckResourceId("model", id).ok()) << id;
  }
}

TEST(ResourceId, RefusesWhateverCouldLeaveAFolder) {
  for (const char* id : {"", "..", ".hidden", "a/b", "a\\b", "a..b", "-x", "a b", "\xc3\xa9"}) {
    EXPECT_FALSE(CheckResourceId("model", id).ok()) << id;
  }
  EXPECT_FALSE(CheckResourceId("model", std::string(129, 'a')).ok());
}

TEST(DisplayName, HasNoNul) {
  const absl::Status refused = CheckDisplayName("display_name", absl::string_view("a\0b", 3));
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DetailsOf(refused).field, "display_name");
}

TEST(DisplayName, HasAtMost256Bytes) {
  EXPECT_TRUE(CheckDisplayName("display_name", std::string(256, 'x')).ok());
  const absl::Status refused = CheckDisplayName("header.display_name", std::string(257, 'x'));
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DetailsOf(refused).field, "header.display_name");
  EXPECT_EQ(refused.message(), "`header.display_name`: has 257 bytes, allowed are at most 256");
}

TEST(Uuid, IsFreshAndOfVersionFour) {
  const std::string one = NewUuid();
  EXPECT_EQ(one.size(), 36u);
  EXPECT_EQ(one[14], '4');
  EXPECT_NE(one, NewUuid());
}

}  // namespace
}  // namespace valuescope
