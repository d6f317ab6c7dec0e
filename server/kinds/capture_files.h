// Files of captured tensors, written while inputs run.
//
// A file is put together once all of its inputs are there: its head, which tells where each tensor
// stands, and behind it the tensors, those of larger elements first, so that all are aligned to
// their elements' size, as readers that map a file want them. Until then what comes of inputs lies
// in parts, each a blob of tensors of one element size: those of a chunk. Nothing is held in memory
// but one input's tensors, and a part that was committed is never written again.
#ifndef VALUESCOPE_KINDS_CAPTURE_FILES_H_
#define VALUESCOPE_KINDS_CAPTURE_FILES_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/cancellation.h"
#include "engine/request.h"
#include "google/protobuf/repeated_field.h"
#include "kinds/saved_work.pb.h"
#include "store/blob_store.h"
#include "studies/tensor_file.h"

namespace valuescope::kinds {

using SavedCaptureParts = google::protobuf::RepeatedPtrField<SavedCapturePart>;

// The parts of a file that a chunk adds.
class CapturePartWriter {
 public:
  // `blobs` outlives the writer.
  explicit CapturePartWriter(store::BlobStore* blobs) : blobs_(blobs) {}

  // What came of an input, which is to leave the tensors `planned`. INTERNAL (reason
  // CAPTURE_DIFFERS) where it is anything else; errors of store::BlobWriter.
  absl::Status Add(const std::vector<studies::DeclaredTensor>& planned,
                   const std::vector<engine::Capture>& captures);

  // Makes what was added durable, as parts behind those in `parts`. The writer is empty then.
  absl::Status Close(SavedCaptureParts& parts);

 private:
  absl::Status Append(const studies::DeclaredTensor& planned, DType dtype,
                      const std::vector<int64_t>& shape, absl::string_view bytes);

  store::BlobStore* const blobs_;
  std::map<int64_t, std::unique_ptr<store::BlobWriter>> writers_;  // by size of an element, bytes
};

// The file of `parts`, which hold these tensors, input by input. `metadata` as TensorFileHead has
// it. PartialDamaged (jobs/job_kind.h) where a part is not as it was written.
absl::StatusOr<SavedBlob> JoinCaptureParts(const SavedCaptureParts& parts,
                                           std::vector<studies::DeclaredTensor> tensors,
                                           absl::string_view metadata, store::BlobStore& blobs,
                                           const Cancellation& cancellation);

// PartialDamaged where the file of a finished shard is not there any more, or shorter or longer:
// its bytes are read by whoever downloads it.
absl::Status CheckCaptureFile(const SavedBlob& file, store::BlobStore& blobs);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_CAPTURE_FILES_H_
