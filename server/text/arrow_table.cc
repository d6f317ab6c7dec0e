#include "text/arrow_table.h"

#include "base/status_macros.h"
#include "text/library_failure.h"
#include "text/rust_interface.h"

namespace valuescope::text {
namespace {

// What the library is shown of columns; valid as long as they are.
struct Shown {
  explicit Shown(std::span<const Column> columns) {
    within.reserve(columns.size());
    for (const Column& column : columns) {
      const Shown& children = within.emplace_back(column.children);
      list.push_back({.name = Borrow(column.name),
                      .type = static_cast<VsColumnType>(column.type),
                      .nullable = column.nullable,
                      .length = column.length,
                      .valid = BytesOf(column.valid),
                      .offsets = BytesOf(column.offsets),
                      .values = Borrow(column.values),
                      .children = children.list.data(),
                      .num_children = children.list.size()});
    }
  }

  template <typename Element>
  static VsBytes BytesOf(const std::vector<Element>& elements) {
    return {reinterpret_cast<const char*>(elements.data()), elements.size() * sizeof(Element)};
  }

  std::vector<VsColumn> list;
  std::vector<Shown> within;
};

absl::StatusOr<std::string> BytesOr(VsFailure failure, const OwnedString& bytes,
                                    const OwnedString& error) {
  VS_RETURN_IF_ERROR(StatusOf(failure, error, "table"));
  return std::string(View(bytes));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ArrowTable>> ArrowTable::Create(std::span<const Column> columns,
                                                               ArrowFormat format) {
  const Shown shown(columns);
  VsArrowTable* handle = nullptr;
  OwnedString error;
  VS_RETURN_IF_ERROR(
      StatusOf(vs_arrow_table_new(shown.list.data(), shown.list.size(),
                                  format == ArrowFormat::kFile, &handle, error.out()),
               error, "table"));
  return std::unique_ptr<ArrowTable>(new ArrowTable(handle));
}

ArrowTable::~ArrowTable() { vs_arrow_table_free(handle_); }

absl::StatusOr<std::string> ArrowTable::Write(std::span<const Column> columns, size_t num_rows) {
  const Shown shown(columns);
  OwnedString bytes, error;
  const VsFailure failure = vs_arrow_table_write(handle_, shown.list.data(), shown.list.size(),
                                                 num_rows, bytes.out(), error.out());
  return BytesOr(failure, bytes, error);
}

absl::StatusOr<std::string> ArrowTable::Finish() {
  OwnedString bytes, error;
  const VsFailure failure = vs_arrow_table_finish(handle_, bytes.out(), error.out());
  return BytesOr(failure, bytes, error);
}

}  // namespace valuescope::text
