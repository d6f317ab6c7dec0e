// The index of a capture: which file has which tensor, as Hugging Face tells it of models of
// several files, and what a reader has to know of the tensors.
#ifndef VALUESCOPE_KINDS_CAPTURE_INDEX_H_
#define VALUESCOPE_KINDS_CAPTURE_INDEX_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "engine/request.h"
#include "engine/token_scope.h"
#include "google/protobuf/repeated_field.h"
#include "jobs/work.h"
#include "kinds/capture_plan.h"
#include "kinds/saved_work.pb.h"
#include "nlohmann/json.hpp"
#include "store/blob_store.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::kinds {

inline constexpr char kCaptureIndexName[] = "capture.safetensors.index.json";

// The taps of a request with their defaults filled in; `compiled` are the same.
google::protobuf::RepeatedPtrField<v1::Tap> CompleteTaps(
    const google::protobuf::RepeatedPtrField<v1::Tap>& taps,
    const std::vector<engine::Tap>& compiled);

// A JSON list of what is read: of each tap its site, layers, tokens, reduction and dtype.
nlohmann::ordered_json DescribeTaps(const google::protobuf::RepeatedPtrField<v1::Tap>& taps);

struct CaptureFile {
  std::string name;
  jobs::UnitRange inputs;
  SavedBlob blob;
};

// "capture-00001-of-00003.safetensors" of file 0 of 3.
std::string NameOfCaptureFile(int64_t index, int64_t count);

struct CaptureIndex {
  const CapturePlan& plan;
  const std::vector<CaptureFile>& files;
  nlohmann::ordered_json metadata;                          // without total_size and files
  const google::protobuf::RepeatedField<int64_t>& touched;  // as SavedCaptures, of all inputs
};

// Writes the index to `blobs`, piece by piece.
absl::StatusOr<store::StoredBlob> WriteCaptureIndex(
    const CaptureIndex& index, absl::FunctionRef<engine::SequenceExtent(int64_t input)> extent_of,
    store::BlobStore& blobs);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_CAPTURE_INDEX_H_
