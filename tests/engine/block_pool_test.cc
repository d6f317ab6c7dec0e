// Blocks go from free to held to cached and back, and only cached ones are forgotten.
#include "engine/block_pool.h"

#include <gtest/gtest.h>

namespace valuescope::engine {
namespace {

TEST(BlockPool, AReleasedBlockThatWasNotPublishedIsFree) {
  BlockPool pool(2);
  const int64_t block = pool.Take();
  EXPECT_EQ(pool.holders(block), 1);
  EXPECT_EQ(pool.held(), 1);
  pool.Release(block);
  EXPECT_EQ(pool.available(), 2);
  EXPECT_EQ(pool.cached(), 0);
}

TEST(BlockPool, APublishedBlockIsFoundWhileHeldAndWhileCached) {
  BlockPool pool(2);
  const int64_t block = pool.Take();
  EXPECT_EQ(pool.Find("a"), std::nullopt);
  pool.Publish(block, "a");
  EXPECT_EQ(pool.Find("a"), block);
  pool.Hold(block);
  EXPECT_EQ(pool.holders(block), 2);
  pool.Release(block);
  EXPECT_EQ(pool.cached(), 0);
  pool.Release(block);
  EXPECT_EQ(pool.cached(), 1);
  EXPECT_EQ(pool.available(), 2);
  EXPECT_EQ(pool.Find("a"), block);
  pool.Hold(block);
  EXPECT_EQ(pool.held(), 1);
  EXPECT_EQ(pool.cached(), 0);
}

TEST(BlockPool, TakesFreeBlocksFirstAndThenTheOneCachedLongestAgo) {
  BlockPool pool(3);
  const int64_t a = pool.Take(), b = pool.Take();
  pool.Publish(a, "a");
  pool.Publish(b, "b");
  pool.Release(a);
  pool.Release(b);
  pool.Take();
  EXPECT_TRUE(pool.Find("a") && pool.Find("b"));
  pool.Hold(a);  // used again, so `b` is the older one
  pool.Release(a);
  EXPECT_EQ(pool.Take(), b);
  EXPECT_EQ(pool.Find("b"), std::nullopt);
  EXPECT_EQ(pool.Find("a"), a);
  EXPECT_FALSE(pool.published(b));
}

TEST(BlockPool, TheFirstOfTwoBlocksWithOneContentIsTheOneThatIsFound) {
  BlockPool pool(2);
  const int64_t first = pool.Take(), second = pool.Take();
  pool.Publish(first, "a");
  pool.Publish(second, "a");
  EXPECT_EQ(pool.Find("a"), first);
  EXPECT_FALSE(pool.published(second));
  pool.Release(second);
  EXPECT_EQ(pool.Find("a"), first);
  EXPECT_EQ(pool.cached(), 0);
}

TEST(BlockPool, ABlockKeepsItsFirstName) {
  BlockPool pool(1);
  const int64_t block = pool.Take();
  pool.Publish(block, "a");
  pool.Publish(block, "b");
  EXPECT_EQ(pool.Find("b"), std::nullopt);
}

}  // namespace
}  // namespace valuescope::engine
