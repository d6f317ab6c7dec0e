// The part of ArtifactService that makes tables of data sets: line by line, held for no longer than
// it takes to fill a batch of rows.
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "services/artifact_service.h"
#include "services/data_set_lines.h"
#include "services/message_columns.h"
#include "services/response_sets.h"
#include "text/arrow_table.h"
#include "valuescope/v1/evaluation.pb.h"
#include "valuescope/v1/sweeps.pb.h"

namespace valuescope::services {
namespace {

// A batch has as many rows as reach this. Readers see it, so it is part of a table's bytes.
constexpr size_t kBatchBytes = size_t{1} << 20;
constexpr size_t kBatchRows = size_t{1} << 16;
// Pieces of the file, a batch as it grows, is copied, encoded and cut, and a chunk as it is sent.
constexpr int64_t kWorkingBytes = int64_t{16} << 20;
// Of a byte of a line: "{}," becomes a message, then a row of columns that is copied and encoded.
constexpr int64_t kBytesOfLineByte = 96;

const google::protobuf::Message* PrototypeOf(v1::LineType type) {
  switch (type) {
    case v1::LINE_TYPE_UNSPECIFIED:
    case v1::LINE_TYPE_LABELLED_RESPONSE:
      return &v1::LabelledResponse::default_instance();
    case v1::LINE_TYPE_QUESTIONNAIRE_ITEM:
      return &v1::QuestionnaireItem::default_instance();
    case v1::LINE_TYPE_CHOICE_QUESTION:
      return &v1::ChoiceQuestion::default_instance();
    case v1::LINE_TYPE_TAGGED_RESPONSE:
      return &v1::TaggedResponse::default_instance();
    case v1::LINE_TYPE_RESPONSE_PAIR:
      return &v1::ResponsePair::default_instance();
    case v1::LINE_TYPE_SWEEP_POINT:
      return &v1::SweepPoint::default_instance();
    default:
      return nullptr;
  }
}

// The lines of a data set as rows, in batches.
class LineRows {
 public:
  LineRows(const google::protobuf::Message& prototype, ReadPiece read,
           const rpc::CallContext& context)
      : lines_("artifact", std::move(read)),
        context_(context),
        prototype_(prototype),
        columns_(*prototype.GetDescriptor()) {}

  const MessageColumns& columns() const { return columns_; }

  // Leaves in the columns the next batch; whether it has rows.
  absl::StatusOr<bool> Next() {
    columns_.Clear();
    while (columns_.rows() < kBatchRows && columns_.bytes() < kBatchBytes) {
      if (context_.cancellation.cancelled()) return context_.Why();
      VS_ASSIGN_OR_RETURN(const std::optional<JsonLine> line, lines_.Next());
      if (!line) break;
      VS_RETURN_IF_ERROR(Add(*line));
    }
    return columns_.rows() > 0;
  }

 private:
  absl::Status Add(const JsonLine& line) {
    const auto size = static_cast<int64_t>(line.text.size());
    VS_RETURN_IF_ERROR(context_.Hold(kBytesOfLineByte * std::max<int64_t>(size - longest_, 0)));
    longest_ = std::max(longest_, size);
    const std::unique_ptr<google::protobuf::Message> message(prototype_.New());
    // Fields of that name that are true or false, in any of the messages.
    VS_RETURN_IF_ERROR(
        lines_.Parse(line, {"expresses", "labels.expresses", "reverse", "passes"}, *message));
    const absl::Status added = columns_.Add(*message);
    if (added.ok()) return absl::OkStatus();
    return BadLine(lines_.field(), line.number, added.message());
  }

  JsonLines lines_;
  const rpc::CallContext& context_;
  const google::protobuf::Message& prototype_;
  MessageColumns columns_;
  int64_t longest_ = 0;  // line, bytes
};

// A table's bytes on their way out: all are counted and digested, those from an offset on are sent.
class TableChunks {
 public:
  TableChunks(int64_t offset, rpc::StreamWriter<v1::ReadTableResponse>& writer)
      : offset_(offset), writer_(writer) {}

  absl::Status Send(absl::string_view bytes) {
    digest_.Update(bytes);
    const int64_t begin = end_.size_bytes();
    end_.set_size_bytes(begin + static_cast<int64_t>(bytes.size()));
    if (end_.size_bytes() <= offset_) return absl::OkStatus();
    const int64_t skipped = std::max<int64_t>(offset_ - begin, 0);
    bytes.remove_prefix(static_cast<size_t>(skipped));
    for (size_t place = 0; place < bytes.size(); place += kArtifactChunk) {
      v1::ReadTableResponse part;
      v1::ArtifactChunk& chunk = *part.mutable_chunk();
      chunk.set_offset(begin + skipped + static_cast<int64_t>(place));
      chunk.set_data(std::string(bytes.substr(place, kArtifactChunk)));
      chunk.set_crc32c(Crc32c(chunk.data()));
      VS_RETURN_IF_ERROR(writer_.Write(std::move(part)));
    }
    return absl::OkStatus();
  }

  absl::Status End(int64_t rows) {
    v1::ReadTableResponse last;
    end_.set_rows(rows);
    end_.set_sha256(digest_.HexDigest());
    *last.mutable_end() = end_;
    return writer_.Write(std::move(last));
  }

 private:
  const int64_t offset_;
  rpc::StreamWriter<v1::ReadTableResponse>& writer_;
  Sha256 digest_;
  v1::TableEnd end_;
};

}  // namespace

absl::Status ArtifactService::ReadTable(const rpc::CallContext& context,
                                        const v1::ReadTableRequest& request,
                                        rpc::StreamWriter<v1::ReadTableResponse>& writer) {
  const google::protobuf::Message* prototype = PrototypeOf(request.line_type());
  if (prototype == nullptr)
    return InvalidField("line_type", "must be a LINE_TYPE_... of the contract");
  if (!v1::TableFormat_IsValid(request.format())) {
    return InvalidField("format", "must be a TABLE_FORMAT_... of the contract");
  }
  if (request.offset() < 0) return InvalidField("offset", "must not be negative");
  VS_ASSIGN_OR_RETURN(const store::Resource data_set,
                      DataSetOfName("artifact", request.artifact(), context.tenant, *store_));
  VS_RETURN_IF_ERROR(context.Hold(kWorkingBytes));
  LineRows rows(
      *prototype,
      [&](int64_t offset, int64_t length) {
        return blobs_->Read(data_set.blob_digest, offset, length);
      },
      context);
  const auto format = request.format() == v1::TABLE_FORMAT_ARROW_STREAM ? text::ArrowFormat::kStream
                                                                        : text::ArrowFormat::kFile;
  VS_ASSIGN_OR_RETURN(const auto table, text::ArrowTable::Create(rows.columns().columns(), format));
  TableChunks chunks(request.offset(), writer);
  int64_t num_rows = 0;
  while (true) {
    VS_ASSIGN_OR_RETURN(const bool any, rows.Next());
    if (!any) break;
    num_rows += static_cast<int64_t>(rows.columns().rows());
    VS_ASSIGN_OR_RETURN(const std::string bytes,
                        table->Write(rows.columns().columns(), rows.columns().rows()));
    VS_RETURN_IF_ERROR(chunks.Send(bytes));
  }
  VS_ASSIGN_OR_RETURN(const std::string bytes, table->Finish());
  VS_RETURN_IF_ERROR(chunks.Send(bytes));
  return chunks.End(num_rows);
}

}  // namespace valuescope::services
