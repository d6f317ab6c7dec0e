// Work that asks a model the same items under several conditions. A unit is an item with all of its
// conditions and forms (orders of options, wordings), which run together, since they begin alike.
// What came of an item is small, so a partial result is all of it: SavedAnswers.
#ifndef VALUESCOPE_KINDS_EVALUATION_WORK_H_
#define VALUESCOPE_KINDS_EVALUATION_WORK_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "engine/engine.h"
#include "engine/model_registry.h"
#include "engine/served_model.h"
#include "jobs/work.h"
#include "kinds/response_work.h"
#include "kinds/saved_work.pb.h"
#include "kinds/sources.h"
#include "rpc/call_context.h"
#include "services/kind.h"
#include "services/label_reading.h"
#include "store/blob_store.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::kinds {

using PreparedConditions = std::vector<std::shared_ptr<const engine::PreparedInterventions>>;

// The inputs of one piece of work. Copies share the model.
struct EvaluationInputs {
  std::string tenant;
  const engine::ModelRegistry* models = nullptr;
  std::shared_ptr<const engine::ServedModel> held;  // as of ResponseInputs
  SavedItems items;
  PreparedConditions conditions;  // null: none
  SavedWork record;               // without data_set until it is saved

  bool background() const { return held == nullptr; }
  const SavedEvaluation& how() const { return record.evaluation(); }
  int readings_per_item() const { return how().conditions_size() * how().num_forms(); }
  // Errors of ModelAsThen.
  absl::StatusOr<std::shared_ptr<const engine::ServedModel>> Model() const;
  // Without what is sampled or scored.
  engine::Request RequestOf(const SavedItem& item, int condition, int form) const;

  jobs::Extent extent() const;
  absl::StatusOr<jobs::SavedWork> Save(store::BlobStore& blobs) const;
  // DATA_LOSS unless the spec is of these versions, whole, and of the kind whose field of SavedWork
  // this is. Errors of services::PreparedFromProto.
  static absl::StatusOr<EvaluationInputs> Open(const Sources& sources, absl::string_view tenant,
                                               absl::string_view spec, SavedWork::KindCase kind);
};

// DATA_LOSS, of a stored spec that is not whole.
absl::Status SpecDamaged();

// A fixed function of how many items there are, each with so many readings.
int64_t ItemsPerShard(int64_t items, int readings_per_item);
// Memory for what comes of the items, as KeptFor takes it.
absl::StatusOr<engine::KeptCaptures> MemoryFor(const EvaluationInputs& inputs,
                                               engine::Engine& engine, bool can_wait);
// Whether work whose record is complete can be stored with a job: RESOURCE_EXHAUSTED, reason
// SPEC_TOO_LARGE or DATA_SET_TOO_LARGE. The call holds what the bytes of the items take.
absl::Status CheckStorable(const EvaluationInputs& inputs, const rpc::CallContext& context);

struct EvaluationAnswers {
  SavedAnswers answers;

  std::string Serialize() const;
};

// An item under a condition in a form.
struct Asking {
  const SavedItem* item = nullptr;
  engine::Request request;  // of its prompt, steered
};

struct Answer {
  SavedReading reading;
  std::vector<engine::Receipt> receipts;  // one an intervention
};

class EvaluationWork : public jobs::WorkOn<EvaluationAnswers> {
 public:
  explicit EvaluationWork(EvaluationInputs inputs, engine::KeptCaptures memory)
      : inputs_(std::move(inputs)), memory_(std::move(memory)) {}

  const EvaluationInputs& inputs() const { return inputs_; }
  // Of the chunks that this object ran.
  const v1::Usage& usage() const { return usage_; }

  jobs::Extent extent() const final { return inputs_.extent(); }
  absl::StatusOr<jobs::SavedWork> Save(store::BlobStore& blobs) const final {
    return inputs_.Save(blobs);
  }

 protected:
  // What comes of each, in order; numbers as many as the kind knows.
  virtual absl::StatusOr<std::vector<Answer>> Ask(const engine::ServedModel& model,
                                                  std::vector<Asking> askings,
                                                  const Cancellation& cancellation,
                                                  v1::Usage& usage) const = 0;
  // How many numbers a reading of the item has.
  virtual int NumbersOf(const SavedItem& item) const = 0;
  // Of all items.
  virtual absl::StatusOr<std::unique_ptr<jobs::Outcome>> FinishAnswers(
      const SavedAnswers& answers) const = 0;

  absl::StatusOr<EvaluationAnswers> BeginSums(int64_t) final { return EvaluationAnswers(); }
  absl::StatusOr<EvaluationAnswers> ParseSums(absl::string_view bytes, int64_t done,
                                              int64_t units) final;
  absl::Status AddUnits(const jobs::UnitRange& units, const Cancellation& cancellation,
                        EvaluationAnswers& sums) final;
  absl::Status AddShard(const EvaluationAnswers& shard, EvaluationAnswers& whole) final;
  absl::StatusOr<std::unique_ptr<jobs::Outcome>> FinishSums(const EvaluationAnswers& whole,
                                                            const Cancellation&) final;

  const EvaluationInputs inputs_;

 private:
  // Whether every item in it has all of its readings.
  bool IsWhole(const SavedAnswers& answers) const;

  const engine::KeptCaptures memory_;
  v1::Usage usage_;
};

// Of labels that were read; `with_text` where something was sampled.
absl::StatusOr<std::vector<Answer>> AnswersOf(
    absl::StatusOr<std::vector<services::LabelReading>> readings, bool with_text);

// The log-probability of each of an item's continuations behind its prompt, natural, summed over
// its tokens.
absl::StatusOr<std::vector<Answer>> ScoreContinuations(const engine::ServedModel& model,
                                                       std::vector<Asking> askings,
                                                       const Cancellation& cancellation,
                                                       v1::Usage& usage);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_EVALUATION_WORK_H_
