// What kinds of work over responses that are read as texts have in common. A unit is a text, or a
// pair of them, and what comes of it is one message, so that a partial result is all of these in
// order: `Saved`, a message that has a list of them and nothing else.
#ifndef VALUESCOPE_KINDS_TEXTS_WORK_H_
#define VALUESCOPE_KINDS_TEXTS_WORK_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/cancellation.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "engine/served_model.h"
#include "jobs/work.h"
#include "kinds/response_work.h"
#include "kinds/saved_work.pb.h"
#include "kinds/sources.h"
#include "rpc/call_context.h"
#include "services/given_responses.h"
#include "services/idempotency.h"
#include "services/kind.h"
#include "services/result_codec.h"
#include "services/rubrics.h"
#include "store/store.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::kinds {

template <typename Saved>
struct SavedUnits {
  Saved saved;

  std::string Serialize() const { return services::DeterministicBytes(saved); }
};

// `kSize` tells how many units are in a Saved.
template <typename Saved, int (Saved::*kSize)() const>
class TextsWork : public ResponseWork<SavedUnits<Saved>> {
 public:
  TextsWork(ResponseInputs inputs, int64_t units_per_chunk)
      : ResponseWork<Units>(std::move(inputs)), units_per_chunk_(units_per_chunk) {}

  // Of the chunks that this object ran.
  const v1::Usage& usage() const { return usage_; }

  jobs::Extent extent() const final {
    return {.units = this->inputs_.record.num_responses(),
            .units_per_shard = this->inputs_.record.responses_per_shard(),
            .units_per_chunk = units_per_chunk_};
  }

 protected:
  using Units = SavedUnits<Saved>;

  const SavedText& text(int64_t unit) const {
    return this->inputs_.texts->texts(static_cast<int>(unit));
  }
  services::JudgedFor JudgedFor(const Cancellation& cancellation) const {
    return {.tenant = this->inputs_.tenant,
            .background = this->inputs_.background(),
            .cancellation = cancellation};
  }

  absl::StatusOr<Units> BeginSums(int64_t) final { return Units(); }
  absl::StatusOr<Units> ParseSums(absl::string_view bytes, int64_t done, int64_t) final {
    Units units;
    if (!units.saved.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) ||
        (units.saved.*kSize)() != done) {
      return jobs::PartialDamaged();
    }
    return units;
  }
  absl::Status AddShard(const Units& shard, Units& whole) final {
    whole.saved.MergeFrom(shard.saved);
    return absl::OkStatus();
  }

  v1::Usage usage_;

 private:
  const int64_t units_per_chunk_;
};

// The inputs of a request for such work. `record` is that of the model that is held, or empty where
// none is needed; here it gets all but what the kind alone knows: version, provenance and its own
// field.
inline ResponseInputs InputsOfTexts(SavedTexts texts, int64_t per_shard, SavedWork record,
                                    std::shared_ptr<const engine::ServedModel> held,
                                    const rpc::CallContext& context, const Sources& sources) {
  record.set_as_texts(true);
  record.set_num_responses(texts.texts_size());
  record.set_responses_per_shard(per_shard);
  return {.tenant = context.tenant,
          .models = sources.models,
          .held = std::move(held),
          .responses = {},
          .generation = nullptr,
          .texts = std::make_shared<const SavedTexts>(std::move(texts)),
          .record = std::move(record)};
}

// A kind of such work, which leaves nothing that is named.
template <typename Request, typename Response, typename Work, typename Outcome>
class TextsKind : public ResponseKind<Request, Response, Work, Outcome> {
 public:
  TextsKind(const Sources& sources, SavedWork::KindCase kind)
      : ResponseKind<Request, Response, Work, Outcome>(sources), kind_(kind) {}

  absl::StatusOr<std::unique_ptr<jobs::Work>> Open(absl::string_view tenant,
                                                   absl::string_view spec) final {
    VS_ASSIGN_OR_RETURN(const SavedWork record, ParseSavedWork(spec));
    VS_ASSIGN_OR_RETURN(ResponseInputs inputs,
                        ResponseInputs::Open(this->sources_, tenant, record, kind_));
    if (inputs.texts == nullptr) return jobs::PartialDamaged();
    return OpenWork(std::move(inputs));
  }

 protected:
  // Of inputs of this kind's, which have texts.
  virtual absl::StatusOr<std::unique_ptr<jobs::Work>> OpenWork(ResponseInputs inputs) const = 0;

  // Reads the request's responses one after another by `reader`, whose Add takes a place and a
  // LabelledResponse.
  template <typename Reader>
  absl::Status Read(const Request& request, const rpc::CallContext& context,
                    const services::ResolveOptions& options, services::UsedResources& used,
                    Reader& reader) const {
    const services::ResponseSource source{
        .responses = request.responses(),
        .artifact = request.artifact(),
        .most = options.at_once ? kMostResponsesAtOnce : services::kMostResponses,
        .beyond = "create a job with the same request",
        .labels_required = false};
    VS_ASSIGN_OR_RETURN(services::GivenResponses given,
                        services::GivenResponses::Open(source, context, *this->sources_.store,
                                                       *this->sources_.blobs, used));
    while (true) {
      VS_ASSIGN_OR_RETURN(const std::optional<services::GivenResponse> one, given.Next());
      if (!one) return absl::OkStatus();
      VS_RETURN_IF_ERROR(given.AtLast(reader.Add(one->place, *one->response)));
    }
  }

  void Answered(const Request&, const services::ResolvedWork& resolved, const Work& work,
                const Outcome& outcome, const std::vector<store::Resource>&,
                Response& response) const override {
    response = outcome.result;
    *response.mutable_usage() = work.usage();
    services::AddDigests(*work.inputs().held, resolved.used, response.mutable_digests());
  }

  // Nothing is left of which a second answer could be made, and requests have no request_id.
  absl::Status Replayed(const store::Resource&, Response&) const final { VS_CHECK(false); }

 private:
  const SavedWork::KindCase kind_;
};

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_TEXTS_WORK_H_
