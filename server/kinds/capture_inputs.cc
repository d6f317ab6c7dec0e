#include "kinds/capture_inputs.h"

#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "services/captures.h"
#include "services/data_set_lines.h"
#include "services/idempotency.h"
#include "services/response_sets.h"

namespace valuescope::kinds {
namespace {

absl::Status TooLarge(absl::string_view what) {
  return NeverFits("CAPTURE_TOO_LARGE",
                   absl::StrCat(what, "; choose fewer layers, tokens or inputs, or a reduction"));
}

absl::Status CheckCount(int64_t inputs, const CapturePlan& plan) {
  const int64_t tensors = inputs * plan.TensorsPerInput();
  if (tensors <= kMostCaptureTensors) return absl::OkStatus();
  return TooLarge(absl::StrCat("`taps` leave ", plan.TensorsPerInput(), " tensors of each of ",
                               inputs, " inputs, a job at most ", kMostCaptureTensors, " of all"));
}

// What is wrong with a line, or with a tap because of it.
absl::Status AtLine(int64_t number, const absl::Status& status) {
  if (!absl::IsInvalidArgument(status)) return status;
  const ErrorDetails details = DetailsOf(status);
  if (absl::StartsWith(details.field, "prompt") || absl::StartsWith(details.field, "response")) {
    return InvalidField("artifact", absl::StrCat("line ", number, ": ", status.message()),
                        details.reason);
  }
  return InvalidField(details.field,
                      absl::StrCat(details.description, " (for line ", number, " of `artifact`)"),
                      details.reason);
}

class InputReader {
 public:
  InputReader(const rpc::CallContext& context, const engine::Request& capture,
              const engine::ServedModel& model, const CapturePlan& plan)
      : context_(context), reader_(&context, &capture, &model), plan_(plan) {}

  absl::Status Add(const std::string& place, const v1::Prompt& prompt,
                   const v1::Response* response) {
    VS_ASSIGN_OR_RETURN(const services::CapturedSequence sequence,
                        reader_.Read(place, prompt, response));
    SavedText& text = *inputs_.texts.add_texts();
    inputs_.bytes += plan_.BytesOf(sequence.extent());
    if (inputs_.bytes > kMostCaptureBytes) {
      return TooLarge(absl::StrCat("`taps` leave ", inputs_.bytes, " bytes of the first ",
                                   inputs_.texts.texts_size(), " inputs, a job at most ",
                                   kMostCaptureBytes, " of all"));
    }
    inputs_.num_tokens += sequence.extent().most;
    text.mutable_prompt()->Assign(sequence.prompt.begin(), sequence.prompt.end());
    text.mutable_ids()->Assign(sequence.response.begin(), sequence.response.end());
    digest_.Update(Sha256Hex(services::DeterministicBytes(text)));
    return context_.Hold(static_cast<int64_t>(text.SpaceUsedLong()));
  }

  CaptureInputs Take() {
    inputs_.digest = digest_.HexDigest();
    inputs_.rendered_chat = reader_.rendered_chat();
    return std::move(inputs_);
  }

 private:
  const rpc::CallContext& context_;
  services::SequenceReader reader_;
  const CapturePlan& plan_;
  CaptureInputs inputs_;
  Sha256 digest_;
};

template <typename Of>
const v1::Response* ResponseOf(const Of& input) {
  return input.has_response() ? &input.response() : nullptr;
}

absl::Status ReadLines(services::ReadPiece read, const CapturePlan& plan, InputReader& reader) {
  VS_ASSIGN_OR_RETURN(const int64_t count, services::CountDataSetLines(read, kMostCaptureLines));
  if (count > kMostCaptureLines) {
    return NeverFits("DATA_SET_TOO_LARGE",
                     absl::StrCat("`artifact` has more lines than a job captures, which is ",
                                  kMostCaptureLines, "; split the data set"));
  }
  VS_RETURN_IF_ERROR(CheckCount(count, plan));
  services::DataSetLines lines("artifact", std::move(read), services::LineNeeds::kPrompt);
  while (true) {
    VS_ASSIGN_OR_RETURN(const std::optional<services::DataSetLine> line, lines.Next());
    if (!line) return absl::OkStatus();
    VS_RETURN_IF_ERROR(AtLine(line->number, reader.Add(/*place=*/"", line->response.prompt(),
                                                       ResponseOf(line->response))));
  }
}

}  // namespace

engine::SequenceExtent ExtentOf(const SavedText& input) {
  return {.prompt = input.prompt_size(), .most = int64_t{input.prompt_size()} + input.ids_size()};
}

absl::StatusOr<CaptureInputs> ReadCaptureInputs(
    const v1::CaptureRequest& request, const engine::Request& capture, const CapturePlan& plan,
    const engine::ServedModel& model, const rpc::CallContext& context, const Sources& sources,
    services::UsedResources& used) {
  if (request.inputs().empty() == request.artifact().empty()) {
    return InvalidField("inputs", "must be given inline or as `artifact`, one of the two");
  }
  if (request.inputs_size() > services::kMostCaptureInputs) {
    return OutOfRange("inputs", request.inputs_size(), 1, services::kMostCaptureInputs);
  }
  InputReader reader(context, capture, model, plan);
  if (!request.artifact().empty()) {
    VS_ASSIGN_OR_RETURN(services::ReadPiece read,
                        services::OpenDataSet("artifact", request.artifact(), context.tenant,
                                              *sources.store, *sources.blobs, used));
    VS_RETURN_IF_ERROR(ReadLines(std::move(read), plan, reader));
    return reader.Take();
  }
  VS_RETURN_IF_ERROR(CheckCount(request.inputs_size(), plan));
  for (int i = 0; i < request.inputs_size(); ++i) {
    const v1::CaptureInput& input = request.inputs(i);
    VS_RETURN_IF_ERROR(
        reader.Add(absl::StrCat("inputs[", i, "]"), input.prompt(), ResponseOf(input)));
  }
  return reader.Take();
}

}  // namespace valuescope::kinds
