#include "services/study_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "services/data_set_lines.h"

namespace valuescope::services {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr char kGood[] =
    R"({"prompt": {"text": "hi"}, "response": {"token_ids": {"ids": [4, 5]}}, "expresses": true})";
constexpr char kCamel[] =
    R"({"prompt": {"tokenIds": {"ids": [1]}}, "response": {"text": "a"}, "expresses": false, "queryId": "q"})";

// A file that gives `most` bytes at a time.
ReadPiece FileOf(std::string bytes, int64_t most = 1 << 30) {
  return [bytes = std::move(bytes), most](int64_t offset, int64_t length) {
    return bytes.substr(static_cast<size_t>(offset), static_cast<size_t>(std::min(length, most)));
  };
}

absl::StatusOr<std::vector<DataSetLine>> LinesOf(const ReadPiece& file) {
  DataSetLines reader("artifact", file, LineNeeds::kLabel);
  std::vector<DataSetLine> lines;
  while (true) {
    auto line = reader.Next();
    if (!line.ok()) return line.status();
    if (!*line) return lines;
    lines.push_back(**line);
  }
}

absl::Status Refusal(const std::string& bytes) { return LinesOf(FileOf(bytes)).status(); }

TEST(DataSetLinesTest, BothSpellingsAndBlankLinesAreRead) {
  const auto lines = LinesOf(FileOf(std::string("\n") + kGood + "\r\n  \n" + kCamel));
  ASSERT_TRUE(lines.ok()) << lines.status();
  ASSERT_EQ(lines->size(), 2u);
  EXPECT_EQ((*lines)[0].number, 2);
  EXPECT_THAT((*lines)[0].response.response().token_ids().ids(), ElementsAre(4, 5));
  EXPECT_EQ((*lines)[1].number, 4);
  EXPECT_EQ((*lines)[1].response.query_id(), "q");
}

TEST(DataSetLinesTest, PiecesOfAnySizeGiveTheSameLines) {
  for (const char* end : {"", "\n", "\n\n \n"}) {
    const std::string file = std::string("\n\n") + kGood + "\n \n" + kCamel + end;
    for (const int64_t most : {1, 2, 7, 64, 1000}) {
      const auto lines = LinesOf(FileOf(file, most));
      ASSERT_TRUE(lines.ok()) << lines.status();
      ASSERT_EQ(lines->size(), 2u);
      EXPECT_EQ((*lines)[0].number, 3);
      EXPECT_EQ((*lines)[1].number, 5);
      EXPECT_EQ((*lines)[1].response.query_id(), "q");
      EXPECT_EQ(*CountDataSetLines(FileOf(file, most), 100), 2);
    }
  }
}

TEST(DataSetLinesTest, CountingStopsOneAboveTheMost) {
  int64_t read = 0;
  const ReadPiece endless = [&read](int64_t, int64_t) {
    ++read;
    return std::string("not even JSON\n\n  \n");
  };
  EXPECT_EQ(*CountDataSetLines(endless, 5), 6);
  EXPECT_EQ(read, 6);
  EXPECT_EQ(*CountDataSetLines(FileOf(" \n\t\n"), 5), 0);
}

TEST(DataSetLinesTest, ABadLineIsNamedByItsNumberAndNeverQuoted) {
  const std::string good = std::string(kGood) + "\n";
  for (const std::string bad :
       {R"({"secret_text": 1})", R"({"prompt": {"text": "secret_text"})",
        R"({"prompt": {"text": "secret_text"}, "expresses": true})",
        R"({"response": {"text": "secret_text"}, "expresses": true})",
        R"({"prompt": {"text": "secret_text"}, "response": {"text": "b"}})"}) {
    const absl::Status status = Refusal(good + "\n" + bad);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_EQ(DetailsOf(status).field, "artifact");
    EXPECT_THAT(std::string(status.message()), HasSubstr("line 3"));
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr("secret_text")));
  }
  EXPECT_THAT(std::string(Refusal(std::string(kMaxLineBytes + 1, 'x')).message()),
              HasSubstr("line 1"));
  EXPECT_EQ(Refusal("\n \n").code(), absl::StatusCode::kInvalidArgument);
}

TEST(StudyCodecTest, AVectorCarriesTheRowsChosenAndTheDigestOfTheWhole) {
  studies::StoredVector vector;
  vector.record.set_width(2);
  vector.record.add_layers(1);
  vector.record.add_layers(4);
  vector.rows = {1, 2, 3, 4};
  for (const int layer : {1, 4}) {
    v1::VectorStatistics& row = *vector.record.add_statistics();
    row.set_layer(layer);
    row.set_norm(layer + 2);
  }
  store::Resource resource;
  resource.kind = store::ResourceKind::kVector;
  resource.id = "abc";
  resource.digest = "def";
  const v1::Vector message =
      VectorToProto(resource, vector, {.with_data = true, .with_statistics = true, .layers = {4}});
  EXPECT_EQ(message.name(), "vectors/abc");
  EXPECT_EQ(message.digest(), "def");
  EXPECT_THAT(message.layers(), ElementsAre(4));
  EXPECT_THAT(message.data().shape(), ElementsAre(1, 2));
  EXPECT_EQ(message.data().data().size(), 8u);
  ASSERT_EQ(message.statistics_size(), 1);
  EXPECT_EQ(message.statistics(0).norm(), 6);
  EXPECT_FALSE(message.statistics(0).has_auroc());
}

TEST(StudyCodecTest, ANeuronSetNamesItsColumns) {
  v1::NeuronSet set;
  set.add_layers()->set_score_sum(1.5);
  store::Resource resource;
  resource.kind = store::ResourceKind::kNeuronSet;
  resource.id = "abc";
  google::protobuf::RepeatedPtrField<v1::NeuronScore> top;
  top.Add()->set_index(3);
  const v1::NeuronSet message = NeuronSetToProto(resource, set, top);
  EXPECT_EQ(message.artifact(), "artifacts/neuron-set.abc");
  EXPECT_EQ(message.top(0).index(), 3);
  EXPECT_EQ(message.layers(0).score_sum(), 1.5);
}

}  // namespace
}  // namespace valuescope::services
