#include "text/arrow_table.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

namespace valuescope::text {
namespace {

std::string BytesOf(const std::vector<int64_t>& numbers) {
  std::string bytes(numbers.size() * sizeof(int64_t), '\0');
  std::memcpy(bytes.data(), numbers.data(), bytes.size());
  return bytes;
}

std::vector<Column> SomeRows() {
  return {{.name = "count",
           .type = ColumnType::kInt64,
           .nullable = true,
           .length = 2,
           .valid = {1, 0},
           .values = BytesOf({(int64_t{1} << 53) + 1, 0})},
          {.name = "words",
           .type = ColumnType::kList,
           .length = 2,
           .offsets = {0, 2, 2},
           .children = {{.name = "item", .length = 2, .offsets = {0, 1, 3}, .values = "abc"}}}};
}

absl::StatusOr<std::string> TableOf(const std::vector<Column>& rows, size_t num_rows,
                                    ArrowFormat format = ArrowFormat::kFile) {
  auto table = ArrowTable::Create(SomeRows(), format);
  if (!table.ok()) return table.status();
  auto bytes = (*table)->Write(rows, num_rows);
  if (!bytes.ok()) return bytes;
  const auto end = (*table)->Finish();
  if (!end.ok()) return end;
  return *bytes + *end;
}

TEST(ArrowTable, EqualRowsGiveEqualBytesOfTheFormatAskedFor) {
  const auto file = TableOf(SomeRows(), 2);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->substr(0, 6), "ARROW1");
  EXPECT_EQ(file->substr(file->size() - 6), "ARROW1");
  EXPECT_EQ(*TableOf(SomeRows(), 2), *file);
  const auto stream = TableOf(SomeRows(), 2, ArrowFormat::kStream);
  ASSERT_TRUE(stream.ok()) << stream.status();
  EXPECT_EQ(stream->substr(0, 4), "\xff\xff\xff\xff");
  EXPECT_NE(file->find(BytesOf({(int64_t{1} << 53) + 1})), std::string::npos);
}

// What another room gets wrong is an error of the server, never a crash.
TEST(ArrowTable, RowsThatContradictThemselvesAreRefused) {
  const auto refused = [](auto change, size_t num_rows = 2) {
    std::vector<Column> rows = SomeRows();
    change(rows);
    return TableOf(rows, num_rows).status();
  };
  EXPECT_EQ(refused([](auto&) {}), absl::OkStatus());
  for (const absl::Status& status :
       {refused([](auto& rows) { rows[0].values.pop_back(); }),
        refused([](auto& rows) { rows[0].length = 1; }),
        refused([](auto& rows) { rows[0].valid.push_back(1); }),
        refused([](auto& rows) { rows[0].type = ColumnType::kInt32; }), refused([](auto& rows) {
          rows[1].offsets = {0, 2, 3};
        }),
        refused([](auto& rows) {
          rows[1].offsets = {0, 2, 1};
        }),
        refused([](auto& rows) {
          rows[1].offsets = {-1, 2, 2};
        }),
        refused([](auto& rows) { rows[1].offsets = {0}; }),
        refused([](auto& rows) { rows[1].children.clear(); }),
        refused([](auto& rows) { rows[1].children[0].values = "a\xff\xfe"; }),
        refused([](auto& rows) {
          rows[1].children[0].offsets = {0, 1, 4};
        }),
        refused([](auto& rows) { rows.pop_back(); }), refused([](auto&) {}, /*num_rows=*/3)}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
  }
}

}  // namespace
}  // namespace valuescope::text
