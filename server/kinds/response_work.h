// What kinds of work over labelled responses have in common: a model, a data set whose responses
// are the units, as tokens or as texts, or how they are generated (generated_responses.h), and how
// all is found again by a worker.
#ifndef VALUESCOPE_KINDS_RESPONSE_WORK_H_
#define VALUESCOPE_KINDS_RESPONSE_WORK_H_

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
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
#include "kinds/generated_responses.h"
#include "kinds/saved_work.pb.h"
#include "kinds/sources.h"
#include "model/site.h"
#include "nlohmann/json.hpp"
#include "rpc/call_context.h"
#include "services/kind.h"
#include "services/model_needs.h"
#include "services/response_sets.h"
#include "services/result_codec.h"
#include "services/study_codec.h"
#include "store/blob_store.h"
#include "studies/contract_enums.h"
#include "studies/labelled_responses.h"
#include "studies/message_json.h"
#include "studies/provenance.h"
#include "studies/stored_vector.h"

namespace valuescope::kinds {

// Responses that run together and are committed together.
inline constexpr int64_t kResponsesPerChunk = 16;
// That a call takes at once.
inline constexpr int64_t kMostResponsesAtOnce = 2000;
// Of work whose partial results are large.
inline constexpr int64_t kMostLargeShards = 32;
// A multiple of kResponsesPerChunk, so many that there are no more shards; a fixed function of the
// number of responses.
int64_t ResponsesPerLargeShard(int64_t num_responses);

// The inputs of one piece of work. Copies share the model.
struct ResponseInputs {
  std::string tenant;
  const engine::ModelRegistry* models = nullptr;
  // A call holds its model to the end. A job asks for it anew for every chunk, so that who unloads
  // it waits for a chunk only.
  std::shared_ptr<const engine::ServedModel> held;
  studies::ResponseSet responses;                // empty where they are generated, or texts
  std::shared_ptr<const Generation> generation;  // null where they are given
  std::shared_ptr<const SavedTexts> texts;       // those that are read as texts; null where none is
  SavedWork record;                              // without data_set until it is saved

  bool background() const { return held == nullptr; }
  std::span<const studies::LabelledResponse> Of(const jobs::UnitRange& units) const {
    return std::span<const studies::LabelledResponse>(responses.responses)
        .subspan(static_cast<size_t>(units.first), static_cast<size_t>(units.size()));
  }
  jobs::Extent extent() const;
  // Labels and lengths of given responses; of others nothing.
  std::vector<store::Observed> Observe(const jobs::UnitRange& units) const;
  // store::NewJob::needs of work whose model is held: it, and the judge's where that is another.
  std::string needs() const;

  // Errors of ModelAsThen.
  absl::StatusOr<std::shared_ptr<const engine::ServedModel>> Model() const;

  absl::StatusOr<jobs::SavedWork> Save(store::BlobStore& blobs) const;
  // DATA_LOSS unless the spec is of these versions and of the kind whose field of SavedWork this
  // is.
  static absl::StatusOr<ResponseInputs> Open(const Sources& sources, absl::string_view tenant,
                                             const SavedWork& record, SavedWork::KindCase kind);

 private:
  // The bytes that SavedWork.data_set is the digest of.
  std::string DataSet() const;
};

// Work over responses whose partials are `Sums`.
template <typename Sums>
class ResponseWork : public jobs::WorkOn<Sums> {
 public:
  explicit ResponseWork(ResponseInputs inputs) : inputs_(std::move(inputs)) {}

  const ResponseInputs& inputs() const { return inputs_; }
  // Of prompts, found in the cache instead of run.
  int64_t cached_tokens() const { return cached_tokens_; }

  // A unit is a response, unless the work says otherwise.
  jobs::Extent extent() const override { return inputs_.extent(); }
  absl::StatusOr<jobs::SavedWork> Save(store::BlobStore& blobs) const final {
    return inputs_.Save(blobs);
  }

 protected:
  const ResponseInputs inputs_;
  int64_t cached_tokens_ = 0;
};

// A kind of such work.
template <typename Request, typename Response, typename Work, typename Outcome>
class ResponseKind : public services::KindOf<Request, Response, Work, Outcome> {
 public:
  explicit ResponseKind(const Sources& sources) : sources_(sources) {}

  absl::string_view Unit() const override { return "responses"; }
  absl::Status Readiness(absl::string_view needs) const final {
    return services::CheckNeeds(*sources_.models, needs);
  }

 protected:
  // A vector that a record names by its id; none where `id` is empty. NOT_FOUND, DATA_LOSS.
  absl::StatusOr<std::optional<studies::StoredVector>> StoredVectorOf(absl::string_view tenant,
                                                                      const std::string& id) const {
    if (id.empty()) return std::nullopt;
    VS_ASSIGN_OR_RETURN(const store::Resource resource,
                        sources_.store->GetResource(tenant, store::ResourceKind::kVector, id));
    return studies::ReadVector(*sources_.blobs, resource);
  }

  // What an answer tells of the work's inputs and of what it cost.
  static void TellInputs(const services::ResolvedWork& resolved, const Work& work,
                         Response& response) {
    const ResponseInputs& inputs = work.inputs();
    response.set_num_dropped(inputs.responses.num_dropped);
    response.mutable_usage()->set_prompt_tokens(inputs.responses.num_tokens);
    response.mutable_usage()->set_cached_prompt_tokens(work.cached_tokens());
    services::AddDigests(*inputs.held, resolved.used, response.mutable_digests());
  }

  const Sources sources_;
};

// DATA_LOSS for bytes that are none.
absl::StatusOr<SavedWork> ParseSavedWork(absl::string_view spec);
// DATA_LOSS unless the record is of a version that this server reads and of the kind whose field of
// SavedWork this is.
absl::Status CheckRecord(const SavedWork& record, SavedWork::KindCase kind);
// The work's model. Errors of ModelAsThen.
absl::StatusOr<std::shared_ptr<const engine::ServedModel>> ModelOfRecord(
    const SavedWork& record, const engine::ModelRegistry& models);

// RESOURCE_EXHAUSTED, reason SPEC_TOO_LARGE, where a record is too large to be stored with a job.
absl::Status CheckRecordSize(const SavedWork& record);
// Whether work whose record is complete can be stored with a job: also reason DATA_SET_TOO_LARGE.
// The call holds what the bytes of the data set take.
absl::Status CheckStorable(const ResponseInputs& inputs, const rpc::CallContext& context);
// What so many tokens through the model cost.
services::WorkEstimate EstimateOf(const engine::ServedModel& model, int64_t tokens,
                                  int64_t forwards, int64_t bytes_left);
// What every kind over responses costs.
services::WorkEstimate EstimateOf(const engine::ServedModel& model,
                                  const studies::ResponseSet& responses, int64_t bytes_left);

// The vector of that name, usable with the model at `site`, once the call holds memory for it; it
// is added to `used`. Errors of services::HeldVectorOfName and studies::CheckUsable, naming
// `field`.
absl::StatusOr<studies::StoredVector> UsableVectorOfName(const rpc::CallContext& context,
                                                         absl::string_view field,
                                                         const std::string& name, model::Site site,
                                                         const engine::ServedModel& model,
                                                         const Sources& sources,
                                                         services::UsedResources& used);

// Memory for what work makes, bytes, until the result is let go. Where `can_wait`, a refusal for
// now is none, and the result empty: what others hold is gone by the time the work runs, perhaps.
absl::StatusOr<engine::KeptCaptures> KeptFor(engine::Engine& engine, int64_t bytes, bool can_wait);

// An artifact whose bytes are `blob`.
jobs::ArtifactDraft ArtifactOf(store::StoredBlob blob, absl::string_view role,
                               absl::string_view file_name, absl::string_view media_type,
                               const v1::Provenance& provenance);
// Of the text or tensors in `bytes`, which are written to `blobs`.
absl::StatusOr<jobs::ArtifactDraft> MakeArtifact(store::BlobStore& blobs, absl::string_view role,
                                                 absl::string_view file_name,
                                                 absl::string_view media_type,
                                                 absl::string_view bytes,
                                                 const v1::Provenance& provenance);

// format_version of every summary.
inline constexpr int kSummaryVersion = 1;
// What the summary of a job over labels begins with, in the artifact and in the job's result.
nlohmann::json SummaryOf(absl::string_view method, const v1::Provenance& provenance,
                         int64_t num_tokens);
// The artifact "summary": `summary` with the provenance.
absl::StatusOr<jobs::ArtifactDraft> MakeSummary(store::BlobStore& blobs, nlohmann::json summary,
                                                const v1::Provenance& provenance);

// What every record begins with.
SavedWork RecordOf(const engine::ServedModel& model, const std::string& display_name,
                   const services::ResolveOptions& options);

// The inputs of a request for work over its labelled responses, which call and job may have alike.
// What they are of is added to `used`; the record lacks what the kind alone knows: shards,
// provenance and its own field.
template <typename Request>
absl::StatusOr<ResponseInputs> InputsOfRequest(const Request& request,
                                               std::shared_ptr<const engine::ServedModel> model,
                                               const rpc::CallContext& context,
                                               const services::ResolveOptions& options,
                                               const Sources& sources,
                                               services::UsedResources& used) {
  ResponseInputs inputs{.tenant = context.tenant,
                        .models = sources.models,
                        .held = std::move(model),
                        .responses = {},
                        .generation = nullptr,
                        .texts = nullptr,
                        .record = {}};
  VS_ASSIGN_OR_RETURN(inputs.responses,
                      services::ResponseSetOf(
                          {request.responses(), request.artifact(), request.include_end_of_turn(),
                           options.at_once ? kMostResponsesAtOnce : services::kMostResponses,
                           "create a job with the same request", options.labels_required,
                           /*too_many=*/"USE_A_JOB", options.labels},
                          context, *inputs.held, *sources.store, *sources.blobs, used));
  inputs.record = RecordOf(*inputs.held, request.display_name(), options);
  inputs.record.set_num_responses(static_cast<int64_t>(inputs.responses.responses.size()));
  return inputs;
}

// What the responses tell of a result: who labelled them and how many there are. `request` has the
// fields `judge` and `artifact`; those in `without` are left out of the options that are recorded.
template <typename Request>
v1::Provenance ProvenanceOf(const Request& request, const engine::ServedModel& model,
                            const studies::ResponseSet& responses,
                            const services::UsedResources& used, model::Site site,
                            std::initializer_list<absl::string_view> without) {
  v1::Provenance provenance = studies::ProvenanceOf(model, responses.rendered_chat);
  provenance.set_site(studies::SiteToProto(site));
  provenance.set_pooling(v1::POOLING_RESPONSE_MEAN);
  provenance.set_sign_rule(studies::kDifferenceSign);
  provenance.set_judge(services::JudgeOf(request));
  provenance.set_num_expressing(responses.num_expressing);
  provenance.set_num_non_expressing(responses.num_non_expressing);
  provenance.set_num_dropped(responses.num_dropped);
  *provenance.mutable_inputs() = services::InputsOf(used, request.artifact());
  provenance.set_options(studies::RecordOfRequest(request, without));
  return provenance;
}

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_RESPONSE_WORK_H_
