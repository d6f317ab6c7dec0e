#include "engine/admission.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "engine/intervention_table.h"
#include "engine/sampler.h"
#include "engine/token_quotas.h"

namespace valuescope::engine {
namespace {

constexpr int kMaxTopLogprobs = 20;

class PlacedObserver : public Observer {
 public:
  PlacedObserver(std::shared_ptr<Observer> observer,
                 std::shared_ptr<const QueueShares::Place> place)
      : observer_(std::move(observer)), place_(std::move(place)) {}
  void OnDelta(const Delta& delta) override { observer_->OnDelta(delta); }
  void OnFinish(absl::StatusOr<Completion> completion) override {
    place_.reset();
    observer_->OnFinish(std::move(completion));
  }

 private:
  const std::shared_ptr<Observer> observer_;
  std::shared_ptr<const QueueShares::Place> place_;
};

}  // namespace

Admission::Admission(const model::Architecture& architecture, const EngineOptions& options,
                     const SchedulerOptions& scheduling, EngineMemory& memory)
    : architecture_(architecture),
      scheduling_(scheduling),
      memory_(memory),
      shares_(options.max_batch_rows, options.max_waiting),
      queue_share_of_(options.queue_share_of),
      token_quotas_(options.token_quotas) {}

absl::Status Admission::QueueFull(absl::string_view why) const {
  return RetryLater("QUEUE_FULL", why, absl::Ceil(shares_.UntilOneIsFree(), absl::Milliseconds(1)));
}

absl::StatusOr<Admission::Admitted> Admission::Admit(const Request& request,
                                                     const SequenceExtent& extent,
                                                     std::shared_ptr<Observer> observer) {
  const double share = queue_share_of_ ? queue_share_of_(request.tenant) : 1;
  auto place = shares_.Take(request.tenant, request.client, share);
  if (place == nullptr) {
    return QueueFull("others' requests may have what is left of the queue; it is shared");
  }
  Admitted admitted;
  admitted.observer = std::make_shared<PlacedObserver>(std::move(observer), std::move(place));
  VS_ASSIGN_OR_RETURN(admitted.interventions, InterventionsFor(extent, request));
  VS_ASSIGN_OR_RETURN(admitted.taps, TapsFor(extent, request.taps));
  VS_ASSIGN_OR_RETURN(admitted.leases.request, memory_.requests.Take(Sequence::HostBytes(request)));
  VS_ASSIGN_OR_RETURN(admitted.leases.captures, memory_.captures.Take(admitted.taps.bytes()));
  if (token_quotas_ == nullptr || request.background) return admitted;
  const size_t tokens = request.prompt.size() + request.given_response.size();
  admitted.leases.tokens = token_quotas_->Take(request.tenant, static_cast<int64_t>(tokens));
  return admitted;
}

absl::Status Admission::Check(const Request& request) const {
  VS_ASSIGN_OR_RETURN(const SequenceExtent extent, CheckedExtent(request));
  VS_RETURN_IF_ERROR(InterventionsFor(extent, request).status());
  return TapsFor(extent, request.taps).status();
}

absl::StatusOr<SequenceExtent> Admission::CheckedExtent(const Request& request) const {
  VS_RETURN_IF_ERROR(CheckTokens(request));
  const SequenceExtent extent{.prompt = static_cast<int64_t>(request.prompt.size()),
                              .most = Sequence::MostFed(request),
                              .generates = request.sampling.has_value()};
  if (scheduling_.CanEverFit(extent.most)) return extent;
  return NeverFits("KV_CACHE_TOO_SMALL",
                   absl::StrCat("a request of ", extent.most,
                                " tokens does not fit this server's key/value cache of ",
                                scheduling_.num_blocks * scheduling_.block_size, " tokens"));
}

// Whether the tables could hold them if nobody else were there.
absl::StatusOr<std::shared_ptr<const CompiledInterventions>> Admission::InterventionsFor(
    const SequenceExtent& extent, const Request& request) const {
  std::shared_ptr<const PreparedInterventions> prepared = request.prepared;
  if (prepared == nullptr) {
    VS_ASSIGN_OR_RETURN(prepared,
                        PreparedInterventions::Prepare(request.interventions, architecture_));
  }
  VS_ASSIGN_OR_RETURN(auto compiled, prepared->For(extent));
  VS_RETURN_IF_ERROR(
      memory_.tables.CheckEverFits(InterventionTables(c10::kCPU).BytesWith(*compiled)));
  return compiled;
}

// Tokens trimmed or not fed never reach a tap, so taps may hope for every token that is fed.
absl::StatusOr<SequenceTaps> Admission::TapsFor(const SequenceExtent& extent,
                                                const std::vector<Tap>& taps) const {
  return SequenceTaps::Compile(taps, extent, architecture_, memory_.captures.capacity());
}

absl::Status Admission::CheckTokens(const Request& request) const {
  VS_RETURN_IF_ERROR(CheckLengths(request));
  VS_RETURN_IF_ERROR(CheckIds("prompt", request.prompt));
  VS_RETURN_IF_ERROR(CheckIds("given_response", request.given_response));
  if (request.top_logprobs < 0 || request.top_logprobs > kMaxTopLogprobs) {
    return OutOfRange("top_logprobs", request.top_logprobs, 0, kMaxTopLogprobs);
  }
  if (!request.sampling) return absl::OkStatus();
  const Sampling& sampling = *request.sampling;
  const int64_t room = architecture_.max_positions - static_cast<int64_t>(request.prompt.size());
  if (sampling.max_tokens < 1 || sampling.max_tokens > room) {
    return OutOfRange("sampling.max_tokens", sampling.max_tokens, 1, static_cast<double>(room));
  }
  if (sampling.top_logprobs > kMaxTopLogprobs) {
    return OutOfRange("sampling.top_logprobs", sampling.top_logprobs, 0, kMaxTopLogprobs);
  }
  return InField("sampling", CheckSampling(sampling, architecture_.vocabulary));
}

absl::Status Admission::CheckLengths(const Request& request) const {
  const int64_t context = architecture_.max_positions;
  const int64_t prompt = static_cast<int64_t>(request.prompt.size());
  const int64_t response = static_cast<int64_t>(request.given_response.size());
  if (prompt == 0) return InvalidField("prompt", "has no tokens; it needs at least one");
  // At least one token must fit behind a prompt that is continued.
  const int64_t most_prompt = context - (request.sampling ? 1 : 0);
  if (prompt > most_prompt) {
    return InvalidField("prompt",
                        absl::StrCat("has ", prompt, " tokens, allowed are 1 to ", most_prompt,
                                     " with this model's context of ", context, " tokens"),
                        "PROMPT_TOO_LONG");
  }
  if (response > context - prompt) {
    return InvalidField("given_response",
                        absl::StrCat("has ", response, " tokens, allowed are at most ",
                                     context - prompt, " behind a prompt of ", prompt,
                                     " with this model's context of ", context, " tokens"),
                        "RESPONSE_TOO_LONG");
  }
  return absl::OkStatus();
}

absl::Status Admission::CheckIds(absl::string_view field, const std::vector<int32_t>& ids) const {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= architecture_.vocabulary) {
      return OutOfRange(absl::StrCat(std::string(field), "[", i, "]"), ids[i], 0,
                        static_cast<double>(architecture_.vocabulary - 1));
    }
  }
  return absl::OkStatus();
}

}  // namespace valuescope::engine
