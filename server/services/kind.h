// A kind of work as the services know it: what turns a request of the contract into work, and what
// the work came to into an answer. A job of the kind and a call of it are the same work.
#ifndef VALUESCOPE_SERVICES_KIND_H_
#define VALUESCOPE_SERVICES_KIND_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "google/protobuf/message.h"
#include "jobs/work.h"
#include "rpc/call_context.h"
#include "services/request_codec.h"
#include "store/store.h"

namespace valuescope::services {

struct WorkEstimate {
  int64_t tokens = 0;         // through the model
  int64_t forwards = 0;       // of a sequence; a backward pass counts as two
  int64_t bytes = 0;          // of what is left at the end
  int64_t scratch_bytes = 0;  // of disk, at most, for the means of responses until the end
  absl::Duration time;        // alone on this server
};

struct ResolvedWork {
  std::unique_ptr<jobs::Work> work;
  std::string needs;  // store::NewJob::needs, as services/model_needs.h has them
  WorkEstimate estimate;
  UsedResources used;  // with artifacts by name; in a job they stay as long as it needs them
};

struct AskedLabels;

struct ResolveOptions {
  bool at_once = false;                 // for a call, which takes less and holds its model
  std::string display_name;             // of a result for which the request has none
  bool labels_required = true;          // ResponseSource has it; the kind's own to say
  const AskedLabels* labels = nullptr;  // likewise
};

// Thread-safe.
class Kind : public jobs::WorkKind {
 public:
  // What a unit is, in the plural: "responses".
  virtual absl::string_view Unit() const = 0;

  // `request` is the message that the field Name() of a JobSpec holds. Everything that can be
  // refused is refused here, naming fields of the request; RESOURCE_EXHAUSTED (reason USE_A_JOB)
  // where it is more than a call takes at once.
  virtual absl::StatusOr<ResolvedWork> Resolve(const google::protobuf::Message& request,
                                               const rpc::CallContext& context,
                                               const ResolveOptions& options) = 0;

  // The answer to a call. `stored` are the outcome's resources.
  virtual void Answer(const google::protobuf::Message& request, const ResolvedWork& resolved,
                      const jobs::Outcome& outcome, const std::vector<store::Resource>& stored,
                      google::protobuf::Message* response) const = 0;
  // To a call that was answered before, from what it left first.
  virtual absl::Status Replay(const store::Resource& earlier,
                              google::protobuf::Message* response) const = 0;
};

// A kind whose messages, work and outcome have these types.
template <typename Request, typename Response, typename Work, typename Outcome>
class KindOf : public Kind {
 public:
  absl::StatusOr<ResolvedWork> Resolve(const google::protobuf::Message& request,
                                       const rpc::CallContext& context,
                                       const ResolveOptions& options) final {
    return Resolved(As<Request>(request), context, options);
  }
  void Answer(const google::protobuf::Message& request, const ResolvedWork& resolved,
              const jobs::Outcome& outcome, const std::vector<store::Resource>& stored,
              google::protobuf::Message* response) const final {
    Answered(As<Request>(request), resolved, static_cast<const Work&>(*resolved.work),
             static_cast<const Outcome&>(outcome), stored, As<Response>(*response));
  }
  absl::Status Replay(const store::Resource& earlier,
                      google::protobuf::Message* response) const final {
    return Replayed(earlier, As<Response>(*response));
  }

 protected:
  virtual absl::StatusOr<ResolvedWork> Resolved(const Request& request,
                                                const rpc::CallContext& context,
                                                const ResolveOptions& options) = 0;
  virtual void Answered(const Request& request, const ResolvedWork& resolved, const Work& work,
                        const Outcome& outcome, const std::vector<store::Resource>& stored,
                        Response& response) const = 0;
  virtual absl::Status Replayed(const store::Resource& earlier, Response& response) const = 0;

 private:
  template <typename Message>
  static const Message& As(const google::protobuf::Message& message) {
    VS_CHECK(message.GetDescriptor() == Message::descriptor());
    return static_cast<const Message&>(message);
  }
  template <typename Message>
  static Message& As(google::protobuf::Message& message) {
    VS_CHECK(message.GetDescriptor() == Message::descriptor());
    return static_cast<Message&>(message);
  }
};

// The kinds that this server runs. Filled before anything asks.
class KindRegistry {
 public:
  // Its name is one of a field of JobSpec, and no other kind's.
  void Add(std::unique_ptr<Kind> kind);

  // Null where there is none.
  Kind* Find(absl::string_view name) const;
  // There is one.
  Kind& Get(absl::string_view name) const;
  // For people: "a, b".
  std::string Names() const;
  std::vector<jobs::JobKind*> ForWorkers() const;

 private:
  std::vector<std::unique_ptr<Kind>> kinds_;
};

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_KIND_H_
