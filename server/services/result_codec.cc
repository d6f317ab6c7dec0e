#include "services/result_codec.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "model/site.h"
#include "services/tensor_codec.h"

namespace valuescope::services {

v1::FinishReason FinishReasonToProto(engine::FinishReason reason) {
  switch (reason) {
    case engine::FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case engine::FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

v1::InterventionReceipt ReceiptToProto(const engine::Receipt& receipt) {
  v1::InterventionReceipt proto;
  proto.set_intervention_index(receipt.intervention_index);
  // A layer that no position reached was not touched.
  if (receipt.positions > 0) {
    proto.mutable_layers()->Assign(receipt.layers.begin(), receipt.layers.end());
  }
  proto.set_positions(receipt.positions);
  return proto;
}

v1::TopLogprobs TopToProto(const engine::TokenLogprob& logprob) {
  v1::TopLogprobs proto;
  for (const auto& [id, value] : logprob.top) {
    proto.add_token_ids(id);
    proto.add_logprobs(value);
  }
  return proto;
}

v1::Logprobs LogprobsToProto(const std::vector<engine::TokenLogprob>& logprobs) {
  v1::Logprobs proto;
  for (const engine::TokenLogprob& logprob : logprobs) {
    proto.add_token_logprobs(logprob.logprob);
    if (!logprob.top.empty()) *proto.add_top() = TopToProto(logprob);
  }
  return proto;
}

int64_t MostCaptureBytes(const std::vector<engine::Tap>& taps, const engine::SequenceExtent& extent,
                         const model::Architecture& architecture) {
  int64_t bytes = 0;
  for (const engine::Tap& tap : taps) {
    const auto scope = engine::TokenScope::Resolve(tap.tokens, extent, /*for_tap=*/true);
    if (!scope.ok()) continue;
    const bool one_row =
        tap.reduction != engine::Reduction::kNone || tap.tokens.kind == engine::TokenKind::kLast;
    int64_t elements = 0;  // of one token, in all layers
    for (const engine::NeuronIndices& of_layer : tap.columns) {
      elements += static_cast<int64_t>(of_layer.size());
    }
    if (tap.columns.empty()) {
      const int64_t layers = std::max<int64_t>(1, static_cast<int64_t>(tap.layers.size()));
      elements = layers * model::WidthOf(tap.site, architecture);
    }
    bytes += elements * (one_row ? 1 : scope->MostTokens()) * SizeOf(tap.dtype);
  }
  return bytes;
}

int64_t RoomForChunks(int64_t capture_bytes) { return 2 * std::min(capture_bytes, kMaxChunkBytes); }

double SumOfLogprobs(const engine::Completion& completion) {
  double sum = 0;
  for (const engine::TokenLogprob& token : completion.logprobs) {
    sum += static_cast<double>(token.logprob);
  }
  return sum;
}

void AddReceipts(const std::vector<engine::Receipt>& more, std::vector<engine::Receipt>& receipts) {
  if (receipts.empty()) {
    receipts = more;
    return;
  }
  for (size_t i = 0; i < more.size(); ++i) receipts[i].positions += more[i].positions;
}

void AddUsage(const engine::Completion& completion, v1::Usage& usage) {
  usage.set_prompt_tokens(usage.prompt_tokens() + completion.prompt_tokens);
  usage.set_cached_prompt_tokens(usage.cached_prompt_tokens() + completion.cached_prompt_tokens);
  usage.set_generated_tokens(usage.generated_tokens() + completion.generated_tokens);
}

void AddDigests(const engine::ServedModel& model, const UsedResources& used,
                google::protobuf::RepeatedPtrField<v1::ResourceDigest>* digests) {
  v1::ResourceDigest& own = *digests->Add();
  own.set_name(absl::StrCat("models/", model.id));
  own.set_digest(model.weights_digest);
  for (const auto& [name, digest] : used) {
    v1::ResourceDigest& one = *digests->Add();
    one.set_name(name);
    one.set_digest(digest);
  }
}

}  // namespace valuescope::services
