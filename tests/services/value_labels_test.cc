// Labels for several values, as a request or a line of a data set has them.
#include "services/value_labels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "services/data_set_lines.h"

namespace valuescope::services {
namespace {

using ::testing::HasSubstr;

v1::LabelledResponse Labelled(std::initializer_list<std::pair<const char*, bool>> labels) {
  v1::LabelledResponse response;
  for (const auto& [value, expresses] : labels) {
    v1::ValueLabel& label = *response.add_labels();
    label.set_value(value);
    label.set_expresses(expresses);
  }
  return response;
}

TEST(ValueLabelsTest, ValuesAndConditionsThatAreAskedForAreRead) {
  const AskedLabels asked{.values = {{"power", 0}, {"", 1}, {"security", 63}},
                          .conditions = {{"", 3}, {"prompted", 15}}};
  v1::LabelledResponse response =
      Labelled({{"security", true}, {"tradition", true}, {"power", false}});
  auto labels = ReadValueLabels("r", response, asked);
  ASSERT_TRUE(labels.ok()) << labels.status();
  EXPECT_EQ(labels->known, uint64_t{1} << 63 | 1);
  EXPECT_EQ(labels->expressed, uint64_t{1} << 63);
  EXPECT_EQ(labels->condition, 3);
  response.set_expresses(true);
  response.set_condition("prompted");
  labels = ReadValueLabels("r", response, asked);
  EXPECT_EQ(labels->known, uint64_t{1} << 63 | 3);
  EXPECT_EQ(labels->expressed, uint64_t{1} << 63 | 2);
  EXPECT_EQ(labels->condition, 15);
  response.set_condition("another");
  EXPECT_EQ(ReadValueLabels("r", response, asked)->condition, -1);
}

TEST(ValueLabelsTest, LabelsThatAreNoneAreNamed) {
  const auto field = [](const v1::LabelledResponse& response) {
    return DetailsOf(ReadValueLabels("responses[3]", response, {}).status()).field;
  };
  EXPECT_EQ(field(Labelled({{"power", true}, {"", true}})), "responses[3].labels[1].value");
  EXPECT_EQ(field(Labelled({{"power", true}, {"power", false}})), "responses[3].labels[1].value");
  EXPECT_EQ(field(Labelled({{std::string(129, 'a').c_str(), true}})),
            "responses[3].labels[0].value");
  v1::LabelledResponse unset = Labelled({{"power", true}});
  unset.mutable_labels(0)->clear_expresses();
  EXPECT_EQ(field(unset), "responses[3].labels[0].expresses");
  v1::LabelledResponse many;
  for (int i = 0; i < 65; ++i) SetValueLabel(absl::StrCat("v", i), true, many);
  EXPECT_EQ(field(many), "responses[3].labels");
  many.mutable_labels()->RemoveLast();
  EXPECT_EQ(field(many), "");
  EXPECT_EQ(DetailsOf(CheckRoomForLabel("r", many, "another")).field, "r.labels");
  EXPECT_TRUE(CheckRoomForLabel("r", many, "v7").ok());
}

TEST(ValueLabelsTest, ALabelTakesThePlaceOfOneOfTheSameValue) {
  v1::LabelledResponse response = Labelled({{"power", true}, {"security", false}});
  SetValueLabel("security", true, response);
  SetValueLabel("tradition", false, response);
  ASSERT_EQ(response.labels_size(), 3);
  EXPECT_TRUE(response.labels(0).expresses());
  EXPECT_TRUE(response.labels(1).expresses());
  EXPECT_EQ(response.labels(2).value(), "tradition");
  EXPECT_FALSE(response.labels(2).expresses());
}

TEST(ValueLabelsTest, ALabelOfALineIsTrueOrFalseAndNothingElse) {
  const auto read = [](const std::string& labels, const std::string& more = "") {
    const std::string line =
        absl::StrCat(R"({"prompt": {"chat": {"template_arguments": {"expresses": "yes"}}}, )", more,
                     R"("labels": [)", labels, R"(], "response": {"token_ids": {"ids": [1, 2]}}})");
    DataSetLines lines(
        "artifact",
        [&line](int64_t offset, int64_t length) -> absl::StatusOr<std::string> {
          return line.substr(std::min(line.size(), static_cast<size_t>(offset)),
                             static_cast<size_t>(length));
        },
        LineNeeds::kResponse);
    return lines.Next().status();
  };
  const std::string good = R"({"value": "power", "expresses": true})";
  EXPECT_TRUE(
      read(absl::StrCat(good, R"(, {"value": "a", "expresses": null}, {"value": "b"})")).ok());
  for (const char* bad : {R"("yes")", "1", R"("true")"}) {
    const absl::Status status =
        read(absl::StrCat(good, R"(, {"value": "a", "expresses": )", bad, "}, ", good));
    EXPECT_EQ(DetailsOf(status).reason, "BAD_DATA_SET_LINE") << bad;
    EXPECT_THAT(std::string(status.message()), HasSubstr("line 1 ")) << bad;
  }
  EXPECT_THAT(std::string(read(good, R"("expresses": "yes", )").message()),
              HasSubstr("has a `expresses` that is neither"));
}

}  // namespace
}  // namespace valuescope::services
