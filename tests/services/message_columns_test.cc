#include "services/message_columns.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "valuescope/v1/common.pb.h"
#include "valuescope/v1/jobs.pb.h"

namespace valuescope::services {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using text::Column;
using text::ColumnType;

const Column& Named(std::span<const Column> columns, const std::string& name) {
  for (const Column& column : columns) {
    if (column.name == name) return column;
  }
  ADD_FAILURE() << "no column " << name;
  return columns[0];
}

template <typename Number>
std::vector<Number> NumbersOf(const Column& column) {
  EXPECT_EQ(column.values.size(), column.length * sizeof(Number));
  std::vector<Number> numbers(column.length);
  std::memcpy(numbers.data(), column.values.data(), column.values.size());
  return numbers;
}

std::vector<std::string> TextsOf(const Column& column) {
  std::vector<std::string> texts;
  for (size_t i = 0; i < column.length; ++i) {
    const auto begin = static_cast<size_t>(column.offsets[i]);
    texts.push_back(
        column.values.substr(begin, static_cast<size_t>(column.offsets[i + 1]) - begin));
  }
  return texts;
}

TEST(MessageColumns, WhatIsMissingIsNullAndNoNumberLosesABit) {
  constexpr int64_t kLarge = (int64_t{1} << 53) + 1;
  MessageColumns table(*v1::PartialStatistic::descriptor());
  v1::PartialStatistic set;
  set.set_name("n");
  set.set_layer(0);
  set.set_value(std::numeric_limits<double>::quiet_NaN());
  set.set_standard_error(0.1);
  set.set_count(kLarge);
  ASSERT_TRUE(table.Add(set).ok());
  ASSERT_TRUE(table.Add(v1::PartialStatistic()).ok());
  EXPECT_EQ(table.rows(), 2u);
  const auto columns = table.columns();
  ASSERT_EQ(columns.size(), 5u);
  EXPECT_THAT(TextsOf(columns[0]), ElementsAre("n", ""));
  EXPECT_FALSE(columns[0].nullable);
  EXPECT_EQ(columns[1].type, ColumnType::kInt32);
  EXPECT_THAT(columns[1].valid, ElementsAre(1, 0));
  EXPECT_THAT(NumbersOf<int32_t>(columns[1]), ElementsAre(0, 0));
  EXPECT_EQ(columns[2].type, ColumnType::kFloat64);
  EXPECT_TRUE(std::isnan(NumbersOf<double>(columns[2])[0]));
  EXPECT_FALSE(columns[2].nullable);
  EXPECT_THAT(columns[3].valid, ElementsAre(1, 0));
  EXPECT_EQ(NumbersOf<double>(columns[3])[0], 0.1);
  EXPECT_EQ(columns[4].type, ColumnType::kInt64);
  EXPECT_THAT(NumbersOf<int64_t>(columns[4]), ElementsAre(kLarge, 0));
}

TEST(MessageColumns, ListsAndEnumsAreAsTheContractNamesThem) {
  constexpr uint64_t kSeed = std::numeric_limits<uint64_t>::max();
  MessageColumns table(*v1::Provenance::descriptor());
  v1::Provenance first, second;
  first.add_seeds(kSeed);
  first.add_seeds(1);
  first.set_site(v1::SITE_RESIDUAL_POST);
  v1::ResourceDigest& input = *second.add_inputs();
  input.set_name("responses");
  ASSERT_TRUE(table.Add(first).ok());
  ASSERT_TRUE(table.Add(second).ok());
  const Column& seeds = Named(table.columns(), "seeds");
  EXPECT_EQ(seeds.type, ColumnType::kList);
  EXPECT_THAT(seeds.offsets, ElementsAre(0, 2, 2));
  EXPECT_THAT(NumbersOf<uint64_t>(seeds.children[0]), ElementsAre(kSeed, 1));
  const Column& site = Named(table.columns(), "site");
  EXPECT_THAT(site.valid, ElementsAre(1, 0));
  EXPECT_THAT(TextsOf(site), ElementsAre("SITE_RESIDUAL_POST", ""));
  const Column& inputs = Named(table.columns(), "inputs");
  EXPECT_THAT(inputs.offsets, ElementsAre(0, 0, 1));
  EXPECT_EQ(inputs.children[0].type, ColumnType::kStruct);
  EXPECT_THAT(TextsOf(Named(inputs.children[0].children, "name")), ElementsAre("responses"));
}

// A list that is empty is not one whose message is missing.
TEST(MessageColumns, WhatBelongsToAMessageThatIsNotSetIsNull) {
  MessageColumns table(*v1::LabelledResponse::descriptor());
  v1::LabelledResponse none, empty;
  empty.mutable_response()->mutable_token_ids();
  ASSERT_TRUE(table.Add(none).ok());
  ASSERT_TRUE(table.Add(empty).ok());
  const Column& ids = Named(table.columns(), "response.token_ids.ids");
  EXPECT_THAT(ids.valid, ElementsAre(0, 1));
  EXPECT_THAT(ids.offsets, ElementsAre(0, 0, 0));
  EXPECT_THAT(Named(table.columns(), "response.text").valid, ElementsAre(0, 0));
}

TEST(MessageColumns, KeepNoRowsOnceTheyWereTakenAway) {
  MessageColumns table(*v1::Provenance::descriptor());
  const size_t none = table.bytes();
  v1::Provenance message;
  message.add_seeds(3);
  message.add_inputs()->set_name("responses");
  ASSERT_TRUE(table.Add(message).ok());
  EXPECT_GT(table.bytes(), none + sizeof(uint64_t));
  table.Clear();
  EXPECT_EQ(table.rows(), 0u);
  EXPECT_EQ(table.bytes(), none);
  EXPECT_THAT(Named(table.columns(), "seeds").children[0].values, IsEmpty());
}

}  // namespace
}  // namespace valuescope::services
