// What ResponseMeans gives of responses, one after another, for as long as an extraction needs it.
// Halves, areas under curves, components and probes look at every response again, so that sums
// alone would not do. A shard's means are in memory and can be stored; those of all shards are put
// aside in a scratch file and read a row at a time, so that memory does not grow with responses.
#ifndef VALUESCOPE_STUDIES_KEPT_MEANS_H_
#define VALUESCOPE_STUDIES_KEPT_MEANS_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "analysis/extraction.h"
#include "engine/engine.h"
#include "store/blob_store.h"
#include "studies/response_means.h"

namespace valuescope::studies {

class KeptMeans : public analysis::ActivationReader {
 public:
  // None yet of `responses`, in memory, which is the engine's for captures that are kept: its
  // RESOURCE_EXHAUSTED where they do not fit it.
  static absl::StatusOr<KeptMeans> Begin(engine::Engine& engine, int64_t responses,
                                         const MeansShape& shape);
  // The same in a scratch file of `blobs`, all but the norms of tokens.
  static absl::StatusOr<KeptMeans> BeginAside(engine::Engine& engine, store::BlobStore& blobs,
                                              int64_t responses, const MeansShape& shape);
  // Memory of BeginAside and bytes of its scratch file.
  static int64_t BytesInMemory(int64_t responses, const MeansShape& shape);
  static int64_t BytesAside(int64_t responses, const MeansShape& shape);

  const MeansShape& shape() const { return shape_; }
  int64_t count() const { return count_; }
  // Of a response, [rows]; empty where the plan wanted none.
  std::span<const float> token_norms(int64_t response) const;
  // A layer is a row here.
  absl::Status Read(int64_t response, int64_t row, int64_t begin,
                    std::span<float> out) const override;

  // Of these in memory.
  void Add(std::span<const float> mean);  // [elements]
  // In order, behind these; the others are in memory. UNAVAILABLE (reason STORAGE_FULL).
  absl::Status Add(const KeptMeans& others);

  // Magic, version, elements, count, numbers; little-endian. Of means in memory.
  std::string Serialize() const;
  // `done` of `responses`, to which the others can be added, in memory. DATA_LOSS for bytes of
  // other numbers.
  static absl::StatusOr<KeptMeans> Parse(engine::Engine& engine, absl::string_view bytes,
                                         int64_t done, int64_t responses, const MeansShape& shape);

 private:
  static absl::StatusOr<KeptMeans> WithRoom(engine::Engine& engine, int64_t responses,
                                            const MeansShape& shape, int64_t numbers);

  MeansShape shape_;
  int64_t most_ = 0;  // responses
  int64_t count_ = 0;
  // In memory [count, elements], as ResponseMeans gives them; aside the norms alone [count, rows].
  std::vector<float> numbers_;
  // [rows, most, width], so that all of a row lie together. Null: in memory.
  std::unique_ptr<store::ScratchFile> aside_;
  engine::KeptCaptures memory_;
};

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_KEPT_MEANS_H_
