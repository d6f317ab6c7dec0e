// The work of a steering sweep: the baseline, then every point of the grid (kinds/sweep_grid.h). A
// point is a shard; its units are those of its stages (kinds/sweep_point.h), so what a killed
// server loses is a chunk of them. Where random sets of neurons are drawn, the baseline's shard has
// as many units more, which look at the neurons in its responses, and comes before all others, so
// that all of them draw the same sets.
#ifndef VALUESCOPE_KINDS_SWEEP_WORK_H_
#define VALUESCOPE_KINDS_SWEEP_WORK_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "analysis/matched_neurons.h"
#include "base/cancellation.h"
#include "engine/engine.h"
#include "jobs/work.h"
#include "kinds/response_work.h"
#include "kinds/saved_work.pb.h"
#include "kinds/sources.h"
#include "kinds/sweep_grid.h"
#include "kinds/sweep_point.h"
#include "nlohmann/json.hpp"
#include "store/blob_store.h"
#include "valuescope/v1/sweeps.pb.h"

namespace valuescope::kinds {

// What came of a point or, of all of them, the points and what is written of their responses.
struct SweepSums {
  SavedSweepShard shard;
  engine::KeptCaptures memory;
  std::vector<v1::SweepPoint> points;  // the baseline first
  std::vector<std::string> warnings;   // those of the baseline
  std::string first_with_warnings;     // name of a point
  int64_t num_with_warnings = 0;       // points
  std::string first_not_finite;        // name of a point
  int64_t num_not_finite = 0;          // points
  std::unique_ptr<store::BlobWriter> lines;

  std::string Serialize() const;
};

class SweepOutcome : public jobs::Outcome {
 public:
  SweepOutcome(v1::SteeringSweepResult found, std::vector<v1::SweepPoint> points,
               std::optional<store::StoredBlob> lines)
      : result(std::move(found)), points_(std::move(points)), lines_(std::move(lines)) {}

  absl::StatusOr<std::vector<store::Resource>> Resources(store::BlobStore&) const override {
    return std::vector<store::Resource>();
  }
  absl::StatusOr<std::vector<jobs::ArtifactDraft>> Artifacts(
      store::BlobStore& blobs) const override;
  std::string Summary(const std::vector<store::Resource>&) const override;

  const v1::SteeringSweepResult result;  // with its provenance

 private:
  nlohmann::json Described() const;

  const std::vector<v1::SweepPoint> points_;
  const std::optional<store::StoredBlob> lines_;
};

class SweepWork : public jobs::WorkOn<SweepSums> {
 public:
  // Of a record that is whole. `drafts` are the evaluations' work where the record does not have it
  // yet: such work can be saved, and only what is opened from that can run.
  SweepWork(const Sources& sources, const SweepKinds& kinds, std::string tenant, SavedWork record,
            const engine::ServedModel& model, std::vector<std::unique_ptr<jobs::Work>> drafts);

  int64_t num_points() const { return grid_.size(); }
  // Memory that so many units take at most.
  int64_t BytesOf(int64_t units) const;
  jobs::Extent extent() const override;
  absl::StatusOr<jobs::SavedWork> Save(store::BlobStore& blobs) const override;

 protected:
  absl::StatusOr<SweepSums> BeginSums(int64_t units) override;
  absl::StatusOr<SweepSums> ParseSums(absl::string_view bytes, int64_t done,
                                      int64_t units) override;
  absl::Status PrepareWith(const SweepSums& first) override;
  absl::Status AddUnits(const jobs::UnitRange& units, const Cancellation& cancellation,
                        SweepSums& sums) override;
  absl::Status AddShard(const SweepSums& shard, SweepSums& whole) override;
  absl::StatusOr<std::unique_ptr<jobs::Outcome>> FinishSums(
      const SweepSums& whole, const Cancellation& cancellation) override;

 private:
  const SavedSweep& sweep() const { return record_.steering_sweep(); }
  SweepContext context() const {
    return {.sources = sources_, .kinds = kinds_, .tenant = tenant_, .sweep = sweep()};
  }
  // Units that look at neurons; 0: no random sets are drawn.
  int64_t num_looks() const;
  int64_t units_per_point() const;
  // Of the grid; -1 is the baseline.
  absl::StatusOr<SweepPointRun*> Opened(int64_t point);
  // Units of a point alone.
  absl::Status Measure(int64_t point, const jobs::UnitRange& units,
                       const Cancellation& cancellation, SavedSweepShard& shard);
  void SetNotFinite(int64_t point, SavedSweepShard& shard) const;
  absl::Status Look(const jobs::UnitRange& units, const Cancellation& cancellation,
                    SavedSweepShard& shard);
  // Those by responses as they are at the baseline, which have the queries.
  absl::Status OpenQueries();
  absl::Status AddLines(const SavedSweepShard& shard, SweepSums& whole);
  v1::Provenance WholeProvenance() const;

  const Sources sources_;
  const SweepKinds& kinds_;
  const std::string tenant_;
  const SavedWork record_;
  const SweepGrid grid_;
  const int64_t intermediate_;
  const std::vector<std::unique_ptr<jobs::Work>> drafts_;
  std::optional<analysis::NeuronMatching> matching_;
  std::unique_ptr<SweepPointRun> run_;  // of point opened_
  int64_t opened_ = -2;
  std::vector<ResponseInputs> queries_;  // one an evaluation by responses
};

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_SWEEP_WORK_H_
