// What ResponseMeans gives of responses, summed up as it comes: of sites so wide that the means of
// all responses would outgrow the disk (MLP_NEURONS of every layer of a large model). What needs a
// second look at each response cannot be had of it.
#ifndef VALUESCOPE_STUDIES_SUMMED_MEANS_H_
#define VALUESCOPE_STUDIES_SUMMED_MEANS_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "analysis/layer_sums.h"
#include "engine/engine.h"
#include "studies/response_means.h"

namespace valuescope::studies {

class SummedMeans {
 public:
  // Of no response yet, in memory that is the engine's for captures that are kept: its
  // RESOURCE_EXHAUSTED where they do not fit it. Of a shape without token_norms one token of each
  // response is pooled.
  static absl::StatusOr<SummedMeans> Begin(engine::Engine& engine, const MeansShape& shape,
                                           bool weigh_by_tokens);
  // Of its memory, and of what Serialize gives.
  static int64_t Bytes(const MeansShape& shape, bool weigh_by_tokens);

  // How a response counts.
  struct Place {
    int64_t response = 0;  // its number in the set
    int half = 0;
    int label = 0;
    double weight = 1;
    double tokens = 1;  // that were pooled
  };
  // `mean` [elements] is the response's. INVALID_ARGUMENT: it is not finite.
  absl::Status Add(const Place& place, std::span<const float> mean);
  // Others of the same shape.
  absl::Status Add(const SummedMeans& others);

  int64_t count() const { return count_; }
  std::span<const analysis::LayerSums> layers() const { return layers_; }  // [rows]

  // Magic, version, count, sums; little-endian.
  std::string Serialize() const;
  // At most `most` responses. DATA_LOSS for bytes of other sums.
  static absl::StatusOr<SummedMeans> Parse(engine::Engine& engine, absl::string_view bytes,
                                           int64_t most, const MeansShape& shape,
                                           bool weigh_by_tokens);

 private:
  MeansShape shape_;
  bool weigh_by_tokens_ = false;
  int64_t count_ = 0;
  std::vector<analysis::LayerSums> layers_;  // [rows]
  engine::KeptCaptures memory_;
};

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_SUMMED_MEANS_H_
