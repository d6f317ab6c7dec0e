// What the engine produced, as messages of the contract.
#ifndef VALUESCOPE_SERVICES_RESULT_CODEC_H_
#define VALUESCOPE_SERVICES_RESULT_CODEC_H_

#include <cstdint>
#include <vector>

#include "engine/request.h"
#include "engine/served_model.h"
#include "engine/token_scope.h"
#include "model/architecture.h"
#include "services/request_codec.h"
#include "valuescope/v1/common.pb.h"
#include "valuescope/v1/generation.pb.h"

namespace valuescope::services {

v1::FinishReason FinishReasonToProto(engine::FinishReason reason);
v1::InterventionReceipt ReceiptToProto(const engine::Receipt& receipt);
// `top` only where likeliest tokens were asked for.
v1::Logprobs LogprobsToProto(const std::vector<engine::TokenLogprob>& logprobs);
v1::TopLogprobs TopToProto(const engine::TokenLogprob& logprob);

// Bytes that `taps` can read of a sequence at most. A scope that cannot be resolved counts for
// nothing here: the engine refuses it by name.
int64_t MostCaptureBytes(const std::vector<engine::Tap>& taps, const engine::SequenceExtent& extent,
                         const model::Architecture& architecture);

// What a call that streams captures, of at most `capture_bytes` >= 0 a sequence, holds beside them:
// a chunk, and the bytes that it is sent as.
int64_t RoomForChunks(int64_t capture_bytes);

// Natural, of a response that was scored: the sum over its tokens, in float64.
double SumOfLogprobs(const engine::Completion& completion);

// Adds positions of receipts of a run to those of others with the same interventions, or to none.
void AddReceipts(const std::vector<engine::Receipt>& more, std::vector<engine::Receipt>& receipts);

// Adds what a completion cost.
void AddUsage(const engine::Completion& completion, v1::Usage& usage);

// The model and everything in `used`, with their digests.
void AddDigests(const engine::ServedModel& model, const UsedResources& used,
                google::protobuf::RepeatedPtrField<v1::ResourceDigest>* digests);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_RESULT_CODEC_H_
