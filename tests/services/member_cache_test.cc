// Members of neuron sets: which are kept and which make room.
#include "services/member_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace valuescope::services {
namespace {

using testing::ElementsAre;

MemberCache::Members Of(std::vector<int64_t> indices) { return {{3, std::move(indices)}}; }

TEST(MemberCache, KeepsWhatWasUsedLastWithinItsBytes) {
  MemberCache cache(4 * sizeof(int64_t));
  const MemberCache::Key first{"a", v1::NEURON_CLASS_UNSPECIFIED},
      second{"a", v1::NEURON_CLASS_SHARED}, third{"b", v1::NEURON_CLASS_UNSPECIFIED};
  MemberCache::Members members;
  EXPECT_FALSE(cache.Find(first, members));
  cache.Keep(first, Of({1, 2}));
  cache.Keep(second, Of({3}));
  ASSERT_TRUE(cache.Find(first, members));
  EXPECT_THAT(members.at(3), ElementsAre(1, 2));
  cache.Keep(third, Of({4, 5}));  // the second was not used for longest
  EXPECT_TRUE(cache.Contains(first));
  EXPECT_FALSE(cache.Contains(second));
  EXPECT_TRUE(cache.Contains(third));
  cache.Keep(second, Of({1, 2, 3, 4, 5}));  // larger than all that may be kept
  EXPECT_FALSE(cache.Contains(second));
  EXPECT_TRUE(cache.Contains(first));
  // What was handed out outlives its place.
  ASSERT_TRUE(cache.Find(third, members));
  cache.Keep(second, Of({7, 8, 9, 10}));
  EXPECT_FALSE(cache.Contains(third));
  EXPECT_THAT(members.at(3), ElementsAre(4, 5));
}

}  // namespace
}  // namespace valuescope::services
