// Tables in Arrow's IPC formats, for everything that reads columns: written batch by batch, so that
// a table needs no more memory than a batch. Equal batches give equal bytes.
#ifndef VALUESCOPE_TEXT_ARROW_TABLE_H_
#define VALUESCOPE_TEXT_ARROW_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

struct VsArrowTable;

namespace valuescope::text {

enum class ColumnType : uint8_t {
  kBoolean,
  kInt32,
  kInt64,
  kUint32,
  kUint64,
  kFloat32,
  kFloat64,
  kUtf8,
  kList,    // its one child has the items of all rows, one after another
  kStruct,  // its children have as many values as it has
};

// A column and its values in some rows.
struct Column {
  std::string name;
  ColumnType type = ColumnType::kUtf8;
  bool nullable = false;
  size_t length = 0;                   // values, nulls counted
  std::vector<uint8_t> valid;          // [length] where nullable: 0 for null
  std::vector<int32_t> offsets = {0};  // of texts and lists: [length + 1]
  std::string values;  // [length] in the machine's order, a byte a boolean; or texts
  std::vector<Column> children;
};

enum class ArrowFormat : uint8_t { kFile, kStream };

class ArrowTable {
 public:
  // A table of such columns, whose values are not looked at. INTERNAL where there is no such table.
  static absl::StatusOr<std::unique_ptr<ArrowTable>> Create(std::span<const Column> columns,
                                                            ArrowFormat format);
  ~ArrowTable();
  ArrowTable(const ArrowTable&) = delete;
  ArrowTable& operator=(const ArrowTable&) = delete;

  // Adds `num_rows` rows as a batch: bytes of the table, the next ones. INTERNAL where the columns
  // are no rows of it.
  absl::StatusOr<std::string> Write(std::span<const Column> columns, size_t num_rows);

  // The bytes that end it, once.
  absl::StatusOr<std::string> Finish();

 private:
  explicit ArrowTable(VsArrowTable* handle) : handle_(handle) {}

  VsArrowTable* const handle_;
};

}  // namespace valuescope::text

#endif  // VALUESCOPE_TEXT_ARROW_TABLE_H_
