// Equal keys mean equal content: tenant, tokens, and what acted on them up to the block's end.
#include "engine/prefix_keys.h"

#include <gtest/gtest.h>

#include <set>

namespace valuescope::engine {
namespace {

std::string Nothing(int64_t) { return ""; }

std::vector<int32_t> Tokens(int count) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(100 + i);
  return tokens;
}

std::vector<BlockKey> KeysOf(const std::vector<int32_t>& tokens,
                             const SteeringNamer& steering = Nothing,
                             absl::string_view tenant = "t") {
  return PrefixKeys(tenant, 4).Extend(tokens, steering);
}

TEST(PrefixKeys, NameFullBlocksOnly) {
  EXPECT_TRUE(KeysOf(Tokens(3)).empty());
  EXPECT_EQ(KeysOf(Tokens(4)).size(), 1u);
  EXPECT_EQ(KeysOf(Tokens(11)).size(), 2u);
}

TEST(PrefixKeys, AreTheSameHoweverTheTokensCame) {
  PrefixKeys keys("t", 4);
  std::vector<BlockKey> grown;
  for (int count = 1; count <= 12; ++count) {
    for (BlockKey& key : keys.Extend(Tokens(count), Nothing)) grown.push_back(std::move(key));
  }
  EXPECT_EQ(grown, KeysOf(Tokens(12)));
}

TEST(PrefixKeys, DifferWithEverythingThatABlockDependsOn) {
  std::vector<int32_t> other_first = Tokens(8), other_last = Tokens(8);
  other_first[0] = 7;
  other_last[7] = 7;
  const auto at = [](int64_t place, const std::string& name) {
    return [place, name](int64_t position) -> std::string { return position == place ? name : ""; };
  };
  std::set<BlockKey> second;
  for (const auto& keys :
       {KeysOf(Tokens(8)), KeysOf(other_first), KeysOf(other_last), KeysOf(Tokens(8), Nothing, "u"),
        KeysOf(Tokens(8), at(0, "x")), KeysOf(Tokens(8), at(0, "y")), KeysOf(Tokens(8), at(1, "x")),
        KeysOf(Tokens(8), at(6, "x"))}) {
    ASSERT_EQ(keys.size(), 2u);
    second.insert(keys[1]);
  }
  EXPECT_EQ(second.size(), 8u);
  EXPECT_EQ(KeysOf(Tokens(8))[0], KeysOf(other_last)[0]);
  EXPECT_EQ(KeysOf(Tokens(8), at(6, "x"))[0], KeysOf(Tokens(8))[0]);
}

TEST(PrefixKeys, OneBlockTwiceHasTwoNames) {
  const std::vector<BlockKey> keys = KeysOf({1, 2, 3, 4, 1, 2, 3, 4});
  EXPECT_NE(keys[0], keys[1]);
}

}  // namespace
}  // namespace valuescope::engine
