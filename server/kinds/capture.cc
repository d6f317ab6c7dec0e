// The kind "capture": what taps see of many inputs (capture_work.h), left in files. The call that
// does so streams it instead (services/activation_service.h); both read inputs and run them in the
// same way (services/captures.h).
//
// Left by a job: "capture", the files (capture_files.h); "index" (capture_index.h). Nothing of time
// or place stands in them.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "google/protobuf/empty.pb.h"
#include "kinds/capture_index.h"
#include "kinds/capture_inputs.h"
#include "kinds/capture_plan.h"
#include "kinds/capture_work.h"
#include "kinds/kinds.h"
#include "kinds/response_work.h"
#include "kinds/texts_work.h"
#include "services/captures.h"
#include "services/study_codec.h"
#include "studies/message_json.h"
#include "studies/provenance.h"
#include "valuescope/v1/activations.pb.h"

namespace valuescope::kinds {
namespace {

using Request = v1::CaptureRequest;

constexpr char kName[] = "capture";
constexpr char kInputs[] = "inputs";  // of a provenance, by their content
constexpr int64_t kDefaultFileBytes = int64_t{1} << 30;

absl::StatusOr<int64_t> FileBytesOf(const Request& request) {
  if (!request.has_max_file_bytes()) return kDefaultFileBytes;
  const int64_t bytes = request.max_file_bytes();
  if (bytes >= 1 && bytes <= kMostCaptureBytes) return bytes;
  return OutOfRange("max_file_bytes", static_cast<double>(bytes), 1,
                    static_cast<double>(kMostCaptureBytes));
}

v1::Provenance ProvenanceOfCapture(const Request& request, const engine::ServedModel& model,
                                   bool rendered_chat, const services::UsedResources& used) {
  v1::Provenance provenance = studies::ProvenanceOf(model, rendered_chat);
  *provenance.mutable_inputs() = services::InputsOf(used, request.artifact());
  provenance.set_options(studies::RecordOfRequest(request, {"model", "inputs", "artifact"}));
  return provenance;
}

services::WorkEstimate EstimateOfCapture(const engine::ServedModel& model,
                                         const CapturingWork& work, int64_t num_tokens) {
  // Of a tensor in the head of its file and in the index; of an input in the index; of what stands
  // there once.
  constexpr int64_t kTensor = 256, kInput = 32, kOnce = 1 << 16;
  const int64_t inputs = work.inputs().record.num_responses();
  services::WorkEstimate estimate =
      EstimateOf(model, num_tokens, inputs,
                 work.bytes() + kTensor * work.num_tensors() + kInput * inputs + kOnce);
  estimate.scratch_bytes = work.bytes();
  return estimate;
}

class CaptureKind
    : public ResponseKind<Request, google::protobuf::Empty, CapturingWork, CaptureOutcome> {
 public:
  explicit CaptureKind(const Sources& sources) : ResponseKind(sources) {}

  absl::string_view Name() const override { return kName; }
  absl::string_view Unit() const override { return "inputs"; }

  absl::StatusOr<std::unique_ptr<jobs::Work>> Open(absl::string_view tenant,
                                                   absl::string_view spec) override {
    VS_ASSIGN_OR_RETURN(const SavedWork record, ParseSavedWork(spec));
    VS_ASSIGN_OR_RETURN(ResponseInputs inputs,
                        ResponseInputs::Open(sources_, tenant, record, SavedWork::kCapture));
    const SavedCapture& of = record.capture();
    if (inputs.texts == nullptr || of.max_file_bytes() < 1) return jobs::PartialDamaged();
    VS_ASSIGN_OR_RETURN(const auto model, inputs.Model());
    services::UsedResources used;
    VS_ASSIGN_OR_RETURN(engine::Request capture,
                        CaptureOf(of.taps(), of.interventions(), inputs.tenant, *model, used));
    capture.background = true;
    CapturePlan plan(capture.taps, model->architecture, of.max_file_bytes());
    return std::make_unique<CapturingWork>(std::move(inputs), std::move(capture), std::move(plan),
                                           *sources_.blobs);
  }

 protected:
  absl::StatusOr<services::ResolvedWork> Resolved(
      const Request& request, const rpc::CallContext& context,
      const services::ResolveOptions& options) override {
    services::ResolvedWork resolved;
    VS_ASSIGN_OR_RETURN(const auto model,
                        services::ModelOfName("model", request.model(), *sources_.models));
    VS_ASSIGN_OR_RETURN(const int64_t max_file_bytes, FileBytesOf(request));
    VS_ASSIGN_OR_RETURN(engine::Request capture, CaptureOf(request.taps(), request.interventions(),
                                                           context.tenant, *model, resolved.used));
    CapturePlan plan(capture.taps, model->architecture, max_file_bytes);
    VS_ASSIGN_OR_RETURN(CaptureInputs read, ReadCaptureInputs(request, capture, plan, *model,
                                                              context, sources_, resolved.used));
    resolved.used[kInputs] = read.digest;
    SavedWork record = RecordOf(*model, /*display_name=*/"", options);
    SavedCapture& of = *record.mutable_capture();
    *of.mutable_taps() = CompleteTaps(request.taps(), capture.taps);
    *of.mutable_interventions() = request.interventions();
    of.set_max_file_bytes(max_file_bytes);
    *record.mutable_provenance() =
        ProvenanceOfCapture(request, *model, read.rendered_chat, resolved.used);
    const int64_t per_shard = plan.InputsPerShard(read.texts.texts_size(), read.bytes);
    ResponseInputs inputs = InputsOfTexts(std::move(read.texts), per_shard, std::move(record),
                                          model, context, sources_);
    VS_RETURN_IF_ERROR(CheckStorable(inputs, context));
    resolved.needs = inputs.needs();
    auto work = std::make_unique<CapturingWork>(std::move(inputs), std::move(capture),
                                                std::move(plan), *sources_.blobs);
    resolved.estimate = EstimateOfCapture(*model, *work, read.num_tokens);
    VS_RETURN_IF_ERROR(CheckFits(*work, *model, context, resolved.estimate.bytes));
    resolved.work = std::move(work);
    return resolved;
  }

  // The call streams.
  void Answered(const Request&, const services::ResolvedWork&, const CapturingWork&,
                const CaptureOutcome&, const std::vector<store::Resource>&,
                google::protobuf::Empty&) const override {
    VS_CHECK(false);
  }
  absl::Status Replayed(const store::Resource&, google::protobuf::Empty&) const override {
    VS_CHECK(false);
  }

 private:
  absl::StatusOr<engine::Request> CaptureOf(
      const google::protobuf::RepeatedPtrField<v1::Tap>& taps,
      const google::protobuf::RepeatedPtrField<v1::Intervention>& interventions,
      const std::string& tenant, const engine::ServedModel& model,
      services::UsedResources& used) const {
    return services::CaptureFromProto(
        taps, interventions, {.tenant = tenant, .model = model, .vectors = *sources_.vectors},
        used);
  }

  // What would make the job fail when all is done.
  absl::Status CheckFits(const CapturingWork& work, const engine::ServedModel& model,
                         const rpc::CallContext& context, int64_t bytes) const {
    const int64_t files = work.num_files();
    if (files > kMostCaptureFiles) {
      return InvalidField("max_file_bytes",
                          absl::StrCat("is so small that there would be ", files,
                                       " files, allowed are at most ", kMostCaptureFiles),
                          "TOO_MANY_FILES");
    }
    VS_RETURN_IF_ERROR(KeptFor(*model.engine, work.MemoryOf(work.extent().units),
                               /*can_wait=*/true)
                           .status());
    return sources_.store->CheckRoomFor(context.tenant, bytes);
  }
};

}  // namespace

std::unique_ptr<services::Kind> Capture(const Sources& sources) {
  return std::make_unique<CaptureKind>(sources);
}

}  // namespace valuescope::kinds
