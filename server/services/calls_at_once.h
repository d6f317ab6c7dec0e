// Calls that do work of a kind at once and answer with what it came to.
#ifndef VALUESCOPE_SERVICES_CALLS_AT_ONCE_H_
#define VALUESCOPE_SERVICES_CALLS_AT_ONCE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "rpc/call_context.h"
#include "services/idempotency.h"
#include "services/kind.h"
#include "store/blob_store.h"
#include "store/store.h"

namespace valuescope::services {

class CallsAtOnce {
 public:
  // All outlive this.
  CallsAtOnce(const KindRegistry* kinds, store::Store* store, store::BlobStore* blobs)
      : kinds_(kinds), store_(store), blobs_(blobs) {}

  // Resolves the request, runs it, stores what it made and answers; a request with the request_id
  // of an earlier one is answered from what that left. `method` is "Service/Method".
  template <typename Request, typename Response>
  absl::Status Answer(absl::string_view kind, absl::string_view method,
                      const rpc::CallContext& context, const Request& request,
                      Response* response) const {
    VS_ASSIGN_OR_RETURN(const store::IdempotencyKey key, KeyOf(method, request));
    return AnswerOnce(kinds_->Get(kind), key, context, request, response);
  }

  // The same of work that leaves nothing, whose requests have no request_id.
  absl::Status AnswerAnew(absl::string_view kind, const rpc::CallContext& context,
                          const google::protobuf::Message& request,
                          google::protobuf::Message* response) const {
    return AnswerOnce(kinds_->Get(kind), store::IdempotencyKey(), context, request, response);
  }

 private:
  absl::Status AnswerOnce(Kind& kind, const store::IdempotencyKey& key,
                          const rpc::CallContext& context, const google::protobuf::Message& request,
                          google::protobuf::Message* response) const;

  const KindRegistry* const kinds_;
  store::Store* const store_;
  store::BlobStore* const blobs_;
};

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_CALLS_AT_ONCE_H_
