#include "services/activation_service.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/memory_ledger.h"
#include "base/status_macros.h"
#include "services/captures.h"
#include "services/request_codec.h"
#include "services/result_codec.h"
#include "services/tensor_codec.h"

namespace valuescope::services {
namespace {

// All inputs.
absl::StatusOr<std::vector<CapturedSequence>> SequencesFromProto(const rpc::CallContext& context,
                                                                 const v1::CaptureRequest& request,
                                                                 const engine::Request& capture,
                                                                 const engine::ServedModel& model,
                                                                 MemoryLedger::Lease& memory) {
  SequenceReader reader(&context, &capture, &model);
  std::vector<CapturedSequence> sequences;
  for (int i = 0; i < request.inputs_size(); ++i) {
    const v1::CaptureInput& input = request.inputs(i);
    VS_ASSIGN_OR_RETURN(CapturedSequence sequence,
                        reader.Read(absl::StrCat("inputs[", i, "]"), input.prompt(),
                                    input.has_response() ? &input.response() : nullptr));
    VS_RETURN_IF_ERROR(memory.Grow(static_cast<int64_t>(sizeof(sequence)) +
                                   sequence.extent().most *
                                       static_cast<int64_t>(sizeof(sequence.prompt.front()))));
    sequences.push_back(std::move(sequence));
  }
  return sequences;
}

// Of any of them.
int64_t MostCaptureBytesOf(const std::vector<CapturedSequence>& sequences,
                           const engine::Request& capture, const engine::ServedModel& model) {
  int64_t most = 0;
  for (const CapturedSequence& sequence : sequences) {
    most = std::max(most, MostCaptureBytes(capture.taps, sequence.extent(), model.architecture));
    if (most >= kMaxChunkBytes) break;
  }
  return most;
}

absl::Status WriteInput(int index, const CapturedSequence& sequence,
                        const engine::Completion& completion,
                        rpc::StreamWriter<v1::CaptureResponse>& writer) {
  v1::CaptureResponse first;
  v1::InputReceipts& receipts = *first.mutable_receipts();
  receipts.set_input_index(index);
  for (const engine::Receipt& receipt : completion.receipts) {
    *receipts.add_receipts() = ReceiptToProto(receipt);
  }
  receipts.set_prompt_tokens(static_cast<int32_t>(sequence.prompt.size()));
  receipts.set_response_tokens(static_cast<int32_t>(sequence.response.size()));
  VS_RETURN_IF_ERROR(writer.Write(std::move(first)));
  for (const engine::Capture& capture : completion.captures) {
    VS_RETURN_IF_ERROR(ForEachChunk(capture, index, [&](v1::CaptureChunk chunk) {
      v1::CaptureResponse event;
      *event.mutable_chunk() = std::move(chunk);
      return writer.Write(std::move(event));
    }));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ActivationService::Capture(const rpc::CallContext& context,
                                        const v1::CaptureRequest& request,
                                        rpc::StreamWriter<v1::CaptureResponse>& writer) {
  VS_ASSIGN_OR_RETURN(const auto model, ModelOfName("model", request.model(), *models_));
  VS_RETURN_IF_ERROR(model->engine->CheckAccepts());
  if (!request.artifact().empty()) {
    return InvalidField("artifact", "is served only in a job; give inputs");
  }
  if (request.has_max_file_bytes()) {
    return InvalidField("max_file_bytes", "is of a job's files; a call streams");
  }
  if (request.inputs_size() < 1 || request.inputs_size() > kMostCaptureInputs) {
    return OutOfRange("inputs", request.inputs_size(), 1, kMostCaptureInputs);
  }
  UsedResources used;
  VS_ASSIGN_OR_RETURN(
      const engine::Request capture,
      CaptureFromProto(request.taps(), request.interventions(),
                       {.tenant = context.tenant, .model = *model, .vectors = *vectors_}, used));
  VS_ASSIGN_OR_RETURN(const auto memory, model->engine->TakeRequestMemory(0));
  VS_ASSIGN_OR_RETURN(const std::vector<CapturedSequence> sequences,
                      SequencesFromProto(context, request, capture, *model, *memory));
  VS_RETURN_IF_ERROR(context.Hold(RoomForChunks(MostCaptureBytesOf(sequences, capture, *model))));
  v1::CaptureResponse last;
  v1::Usage& usage = *last.mutable_summary()->mutable_usage();
  VS_RETURN_IF_ERROR(RunCaptures(context, *model->engine, capture, sequences, /*first=*/0,
                                 [&](int index, const engine::Completion& completion) {
                                   AddUsage(completion, usage);
                                   return WriteInput(index, sequences[static_cast<size_t>(index)],
                                                     completion, writer);
                                 }));
  AddDigests(*model, used, last.mutable_summary()->mutable_digests());
  return writer.Write(std::move(last));
}

}  // namespace valuescope::services
