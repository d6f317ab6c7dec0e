#include "services/calls_at_once.h"

#include <memory>
#include <utility>
#include <vector>

#include "services/replays.h"

namespace valuescope::services {

absl::Status CallsAtOnce::AnswerOnce(Kind& kind, const store::IdempotencyKey& key,
                                     const rpc::CallContext& context,
                                     const google::protobuf::Message& request,
                                     google::protobuf::Message* response) const {
  VS_ASSIGN_OR_RETURN(const auto earlier, EarlierResult(*store_, context.tenant, key));
  if (earlier) return kind.Replay(*earlier, response);
  VS_ASSIGN_OR_RETURN(const ResolvedWork resolved,
                      kind.Resolve(request, context, {.at_once = true, .display_name = ""}));
  const auto outcome = jobs::RunAtOnce(*resolved.work, context.cancellation);
  if (!outcome.ok()) {
    VS_RETURN_IF_ERROR(context.Why());
    return outcome.status();
  }
  VS_ASSIGN_OR_RETURN(std::vector<store::Resource> resources, (*outcome)->CallResources(*blobs_));
  VS_ASSIGN_OR_RETURN(const std::vector<store::Resource> stored,
                      store_->PutResources(context.tenant, std::move(resources), key));
  kind.Answer(request, resolved, **outcome, stored, response);
  return absl::OkStatus();
}

}  // namespace valuescope::services
