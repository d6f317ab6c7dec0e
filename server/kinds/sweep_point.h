// What runs at one point of a steering sweep: for each evaluation in turn the stages of its kind of
// work, which are those that the kinds run by themselves, opened under the point's condition. A
// unit of a stage is what its kind says: a response, a text, an item.
#ifndef VALUESCOPE_KINDS_SWEEP_POINT_H_
#define VALUESCOPE_KINDS_SWEEP_POINT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/cancellation.h"
#include "jobs/work.h"
#include "kinds/response_work.h"
#include "kinds/saved_work.pb.h"
#include "kinds/sources.h"
#include "kinds/sweep_grid.h"
#include "services/kind.h"

namespace valuescope::kinds {

// The kinds that a sweep is made of.
struct SweepKinds {
  explicit SweepKinds(const Sources& sources);
  // That of an evaluation, by the field that its work has in SavedWork. DATA_LOSS.
  absl::StatusOr<services::Kind*> Of(SavedWork::KindCase kind) const;

  const std::unique_ptr<services::Kind> responses, questionnaire, choices, tagged_responses;
};

// What points are opened from. All outlive them.
struct SweepContext {
  const Sources& sources;
  const SweepKinds& kinds;
  const std::string& tenant;
  const SavedSweep& sweep;
};

struct SweepStage {
  int evaluation = 0;
  bool of_texts = false;  // measures the responses of the stage before
  int64_t units = 0;
};
// The same at every point.
std::vector<SweepStage> StagesOf(const SavedSweep& sweep);
int64_t UnitsOf(const std::vector<SweepStage>& stages);

// The name that the condition of an evaluation has at a point.
std::string ConditionAt(const std::string& point, const SavedSweep& sweep, int evaluation);

// The responses of an evaluation at a point, or at none where that does not matter.
absl::StatusOr<ResponseInputs> OpenResponses(const SweepContext& context, int evaluation,
                                             const std::string& point,
                                             const Interventions& interventions);

class SweepPointRun {
 public:
  // Errors of who opens work of each kind.
  static absl::StatusOr<std::unique_ptr<SweepPointRun>> Open(const SweepContext& context,
                                                             const std::string& point,
                                                             const Interventions& interventions);

  // Runs units of the point, which follow those that are in `saved`.
  absl::Status Run(const jobs::UnitRange& units, const Cancellation& cancellation,
                   SavedSweepShard& saved);
  // Of all units: adds the point's measures and its responses, in the place of the stages.
  absl::Status Finish(const Cancellation& cancellation, SavedSweepShard& saved);

 private:
  // One of the two, but for texts, whose work is made once their responses are there.
  struct Stage {
    std::optional<ResponseInputs> responses;
    std::unique_ptr<jobs::Work> work;
  };

  SweepPointRun(const SweepContext& context, std::string point)
      : context_(context), point_(std::move(point)), plan_(StagesOf(context.sweep)) {}

  absl::Status RunStage(size_t stage, const jobs::UnitRange& units,
                        const Cancellation& cancellation, SavedSweepShard& saved);
  absl::Status Generate(const ResponseInputs& inputs, const jobs::UnitRange& units,
                        const Cancellation& cancellation, std::string& saved) const;
  absl::Status OpenTexts(size_t stage, const SavedSweepShard& saved);
  absl::StatusOr<std::unique_ptr<jobs::Outcome>> OutcomeOf(size_t stage,
                                                           const Cancellation& cancellation,
                                                           const SavedSweepShard& saved);
  absl::Status FinishResponses(size_t stage, const Cancellation& cancellation,
                               SavedSweepShard& saved);
  absl::Status FinishItems(size_t stage, const Cancellation& cancellation, SavedSweepShard& saved);

  const SweepContext context_;
  const std::string point_;
  const std::vector<SweepStage> plan_;
  std::vector<Stage> stages_;
};

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_SWEEP_POINT_H_
