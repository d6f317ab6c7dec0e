// Messages as the rows of a table. The columns come from the type's descriptor, never from what the
// messages say, so that every table of a type has the same.
#ifndef VALUESCOPE_SERVICES_MESSAGE_COLUMNS_H_
#define VALUESCOPE_SERVICES_MESSAGE_COLUMNS_H_

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "text/arrow_table.h"

namespace valuescope::services {

// The columns that ReadTableRequest of the contract describes. `type` holds no message of its own
// type, no map, no bytes and no list of Structs.
class MessageColumns {
 public:
  explicit MessageColumns(const google::protobuf::Descriptor& type);

  // Adds `message`, of the type, as a row. INVALID_ARGUMENT naming the column where a Struct holds
  // what JSON does not have; no row may be added then.
  absl::Status Add(const google::protobuf::Message& message);

  std::span<const text::Column> columns() const { return columns_; }
  size_t rows() const { return rows_; }
  // Of all values.
  size_t bytes() const;
  // Takes the rows away.
  void Clear();

 private:
  // What a column's values are in a message.
  struct Source {
    // Fields that lead to it, all but the last of them messages that stand in its place.
    std::vector<const google::protobuf::FieldDescriptor*> path;
    std::vector<Source> members;  // of a list of messages
  };

  static void AddColumns(const google::protobuf::Descriptor& type, const Source& owner,
                         const std::string& prefix, std::vector<Source>& sources,
                         std::vector<text::Column>& columns);
  static absl::Status AddRow(const google::protobuf::Message& message,
                             const std::vector<Source>& sources,
                             std::vector<text::Column>& columns);
  static absl::Status AddValue(const google::protobuf::Message* owner, const Source& source,
                               text::Column& column);

  std::vector<Source> sources_;  // by column
  std::vector<text::Column> columns_;
  size_t rows_ = 0;
};

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_MESSAGE_COLUMNS_H_
