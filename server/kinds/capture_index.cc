#include "kinds/capture_index.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "studies/contract_enums.h"
#include "studies/message_json.h"

namespace valuescope::kinds {
namespace {

using nlohmann::ordered_json;
using ExtentOf = absl::FunctionRef<engine::SequenceExtent(int64_t input)>;

constexpr size_t kIndexPieceBytes = size_t{1} << 20;  // written at once

// Text on its way into a blob.
class IndexText {
 public:
  explicit IndexText(std::unique_ptr<store::BlobWriter> writer) : writer_(std::move(writer)) {}

  template <typename... Parts>
  absl::Status Add(const Parts&... parts) {
    absl::StrAppend(&text_, parts...);
    return text_.size() < kIndexPieceBytes ? absl::OkStatus() : Flush();
  }
  absl::StatusOr<store::StoredBlob> Finish() {
    VS_RETURN_IF_ERROR(Flush());
    return writer_->Finish();
  }

 private:
  absl::Status Flush() {
    VS_RETURN_IF_ERROR(writer_->Append(text_));
    text_.clear();
    return absl::OkStatus();
  }

  const std::unique_ptr<store::BlobWriter> writer_;
  std::string text_;
};

ordered_json Metadata(const CaptureIndex& index, ExtentOf extent_of) {
  ordered_json metadata = {{"total_size", int64_t{0}}};
  metadata.update(index.metadata);
  int64_t total = 0;
  ordered_json files = ordered_json::object();
  for (const CaptureFile& file : index.files) {
    files[file.name] = {{"size", file.blob.size()}, {"sha256", file.blob.digest()}};
    for (int64_t input = file.inputs.first; input < file.inputs.end; ++input) {
      total += index.plan.BytesOf(extent_of(input));
    }
  }
  metadata["total_size"] = total;
  metadata["files"] = std::move(files);
  return metadata;
}

absl::Status WriteWeightMap(const CaptureIndex& index, ExtentOf extent_of, IndexText& text) {
  absl::string_view separator = "";
  for (const CaptureFile& file : index.files) {
    for (int64_t input = file.inputs.first; input < file.inputs.end; ++input) {
      for (const studies::DeclaredTensor& tensor : index.plan.TensorsOf(input, extent_of(input))) {
        VS_RETURN_IF_ERROR(text.Add(separator, "\"", tensor.name, "\":\"", file.name, "\""));
        separator = ",\n";
      }
    }
  }
  return absl::OkStatus();
}

// A list of numbers, `number_of` each of `count` inputs.
absl::Status WriteNumbers(absl::string_view name, int64_t count,
                          absl::FunctionRef<std::string(int64_t input)> number_of,
                          IndexText& text) {
  VS_RETURN_IF_ERROR(text.Add("\"", name, "\":["));
  for (int64_t input = 0; input < count; ++input) {
    VS_RETURN_IF_ERROR(text.Add(input == 0 ? "" : ",", number_of(input)));
  }
  return text.Add("]");
}

absl::Status WriteInputs(const CaptureIndex& index, ExtentOf extent_of, IndexText& text) {
  const int64_t count = index.files.empty() ? 0 : index.files.back().inputs.end;
  const auto interventions =
      static_cast<int64_t>(index.touched.size()) / std::max<int64_t>(1, count);
  VS_RETURN_IF_ERROR(WriteNumbers(
      "prompt_tokens", count, [&](int64_t i) { return absl::StrCat(extent_of(i).prompt); }, text));
  VS_RETURN_IF_ERROR(text.Add(",\n"));
  VS_RETURN_IF_ERROR(WriteNumbers(
      "response_tokens", count,
      [&](int64_t i) { return absl::StrCat(extent_of(i).most - extent_of(i).prompt); }, text));
  VS_RETURN_IF_ERROR(text.Add(",\n"));
  return WriteNumbers(
      "touched", count,
      [&](int64_t i) {
        std::string list = "[";
        for (int64_t k = 0; k < interventions; ++k) {
          absl::StrAppend(&list, k == 0 ? "" : ",",
                          index.touched.Get(static_cast<int>(i * interventions + k)));
        }
        return list + "]";
      },
      text);
}

}  // namespace

google::protobuf::RepeatedPtrField<v1::Tap> CompleteTaps(
    const google::protobuf::RepeatedPtrField<v1::Tap>& taps,
    const std::vector<engine::Tap>& compiled) {
  google::protobuf::RepeatedPtrField<v1::Tap> complete = taps;
  for (int i = 0; i < complete.size(); ++i) {
    v1::Tap& tap = complete[i];
    const engine::Tap& of = compiled[static_cast<size_t>(i)];
    tap.set_site(studies::SiteToProto(of.site));
    tap.set_dtype(studies::DataTypeToProto(of.dtype));
    if (tap.reduction() == v1::REDUCTION_UNSPECIFIED) tap.set_reduction(v1::REDUCTION_NONE);
    if (tap.tokens().kind() == v1::TOKEN_KIND_UNSPECIFIED) {
      tap.mutable_tokens()->set_kind(tap.tokens().positions().empty() ? v1::TOKEN_KIND_ALL
                                                                      : v1::TOKEN_KIND_POSITIONS);
    }
    tap.clear_layers();
    if (of.layers.empty()) continue;
    tap.mutable_layers()->mutable_list()->mutable_layers()->Assign(of.layers.begin(),
                                                                   of.layers.end());
  }
  return complete;
}

ordered_json DescribeTaps(const google::protobuf::RepeatedPtrField<v1::Tap>& taps) {
  ordered_json list = ordered_json::array();
  for (const v1::Tap& tap : taps) {
    const auto& layers = tap.layers().list().layers();
    list.push_back({{"site", v1::Site_Name(tap.site())},
                    {"layers", std::vector<int32_t>(layers.begin(), layers.end())},
                    {"tokens", studies::MessageToJson(tap.tokens())},
                    {"reduction", v1::Reduction_Name(tap.reduction())},
                    {"dtype", v1::DataType_Name(tap.dtype())}});
  }
  return list;
}

std::string NameOfCaptureFile(int64_t index, int64_t count) {
  return absl::StrFormat("capture-%05d-of-%05d.safetensors", index + 1, count);
}

absl::StatusOr<store::StoredBlob> WriteCaptureIndex(const CaptureIndex& index, ExtentOf extent_of,
                                                    store::BlobStore& blobs) {
  VS_ASSIGN_OR_RETURN(std::unique_ptr<store::BlobWriter> writer, blobs.NewWriter());
  IndexText text(std::move(writer));
  VS_RETURN_IF_ERROR(text.Add("{\"metadata\":", Metadata(index, extent_of).dump(1), ",\n"));
  VS_RETURN_IF_ERROR(text.Add("\"weight_map\":{\n"));
  VS_RETURN_IF_ERROR(WriteWeightMap(index, extent_of, text));
  VS_RETURN_IF_ERROR(text.Add("},\n\"inputs\":{"));
  VS_RETURN_IF_ERROR(WriteInputs(index, extent_of, text));
  VS_RETURN_IF_ERROR(text.Add("}}\n"));
  return text.Finish();
}

}  // namespace valuescope::kinds
