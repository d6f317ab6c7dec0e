#include "services/model_service.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "google/protobuf/io/coded_stream.h"
#include "services/idempotency.h"
#include "services/prompt_codec.h"
#include "services/replica_record.h"
#include "services/reply_size.h"
#include "services/request_codec.h"
#include "services/study_codec.h"
#include "services/tensor_codec.h"

namespace valuescope::services {
namespace {

using google::protobuf::io::CodedOutputStream;

constexpr int kDefaultPageSize = 50;
constexpr int kMostPageSize = 1000;
// Of what is tokenised or turned into text at once.
constexpr size_t kMostTextBytes = size_t{1} << 20;
constexpr int kMostIds = 1 << 18;
// How long UnloadModel waits for a model's requests at most.
constexpr absl::Duration kMostDrain = absl::Minutes(10);

v1::ModelState StateToProto(engine::ModelState state) {
  switch (state) {
    case engine::ModelState::kAvailable:
      return v1::MODEL_STATE_AVAILABLE;
    case engine::ModelState::kLoading:
      return v1::MODEL_STATE_LOADING;
    case engine::ModelState::kReady:
      return v1::MODEL_STATE_READY;
    case engine::ModelState::kFailed:
      return v1::MODEL_STATE_FAILED;
    case engine::ModelState::kUnloading:
      return v1::MODEL_STATE_UNLOADING;
  }
  return v1::MODEL_STATE_UNSPECIFIED;
}

void DescribeLoaded(const engine::ServedModel& model, v1::Model& proto) {
  const model::Architecture& architecture = model.architecture;
  proto.set_family(architecture.family);
  proto.set_num_layers(architecture.num_layers);
  proto.set_hidden_size(static_cast<int32_t>(architecture.hidden));
  proto.set_intermediate_size(static_cast<int32_t>(architecture.intermediate));
  proto.set_num_attention_heads(static_cast<int32_t>(architecture.num_heads));
  proto.set_num_key_value_heads(static_cast<int32_t>(architecture.num_kv_heads));
  proto.set_head_dim(static_cast<int32_t>(architecture.head_dim));
  proto.set_vocab_size(static_cast<int32_t>(architecture.vocabulary));
  proto.set_context_length(static_cast<int32_t>(architecture.max_positions));
  proto.set_dtype(DataTypeToProto(model.dtype));
  proto.set_device(model.device);
  proto.set_batch_invariant(model.batch_invariant);
  proto.set_weights_digest(model.weights_digest);
  proto.set_tied_embeddings(architecture.tied_embeddings);
  proto.set_num_parameters(model.num_parameters);
  proto.set_weight_bytes(model.weight_bytes);
  *proto.mutable_load_time() = TimeToProto(model.load_time);
  for (int site = 0; site <= static_cast<int>(model::Site::kLogits); ++site) {
    const auto one = static_cast<model::Site>(site);
    v1::SiteShape& shape = *proto.add_sites();
    shape.set_site(SiteToProto(one));
    shape.set_width(static_cast<int32_t>(model::WidthOf(one, architecture)));
    shape.set_has_layers(model::IsPerLayer(one));
  }
  if (model.text == nullptr) return;
  proto.set_tokenizer_digest(model.text->tokenizer_digest());
  proto.set_template_digest(model.text->template_digest());
  for (const int32_t id : model.text->eos_ids()) proto.add_stop_token_ids(id);
  if (const auto id = model.text->tokenizer_bos_id()) proto.set_bos_token_id(*id);
  if (const auto id = model.text->tokenizer_eos_id()) proto.set_eos_token_id(*id);
}

v1::Model ModelToProto(const engine::ModelEntry& entry) {
  v1::Model proto;
  proto.set_name(absl::StrCat("models/", entry.id));
  proto.set_state(StateToProto(entry.state));
  proto.set_load_progress(entry.state == engine::ModelState::kReady ? 1.0 : entry.progress);
  if (entry.state == engine::ModelState::kFailed) {
    proto.set_state_message(std::string(entry.error.message()));
  }
  if (entry.model != nullptr) DescribeLoaded(*entry.model, proto);
  return proto;
}

// Who has which of `models`, which are by id; of models that are not among them where `others` are
// asked for.
void AddReplicas(const std::vector<v1::Replica>& replicas, bool others,
                 std::map<std::string, v1::Model>& models) {
  for (const v1::Replica& replica : replicas) {
    for (const v1::ModelReplica& loaded : replica.models()) {
      const std::string id(absl::StripPrefix(loaded.model(), "models/"));
      if (!others && !models.contains(id)) continue;
      v1::Model& model = models[id];
      model.set_name(loaded.model());
      *model.add_replicas() = loaded;
    }
  }
}

// Waits until nothing of a model is left.
class Unloading : public rpc::Waiter<v1::UnloadModelResponse*> {
 public:
  Unloading(std::string id, rpc::AlarmClock* clock, const rpc::Wake& wake)
      : id_(std::move(id)),
        give_up_(absl::Now() + kMostDrain),
        when_gone_(std::make_shared<const std::function<void()>>([gone = gone_, wake] {
          gone->store(true);
          wake();
        })),
        alarm_(clock, [wake] {
          wake();
          return absl::InfiniteFuture();
        }) {
    alarm_.RingAt(give_up_);
  }

  absl::Status Start(engine::ModelRegistry& models) {
    return models.StartUnloading(id_, when_gone_);
  }

  std::optional<absl::Status> Look(v1::UnloadModelResponse* response) override {
    if (gone_->load()) {
      // Not looked up: somebody may load it again by now, and its folder may be gone.
      engine::ModelEntry unloaded;
      unloaded.id = id_;
      *response->mutable_model() = ModelToProto(unloaded);
      return absl::OkStatus();
    }
    if (absl::Now() < give_up_) return std::nullopt;
    return ErrorWithReason(absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED",
                           absl::StrCat("`models/", id_, "` is still unloading, which goes on"));
  }

 private:
  const std::string id_;
  const absl::Time give_up_;
  // Shared with whoever tells, which may be just now while the call ends.
  const std::shared_ptr<std::atomic<bool>> gone_ = std::make_shared<std::atomic<bool>>(false);
  const std::shared_ptr<const std::function<void()>> when_gone_;
  rpc::Alarm alarm_;
};

absl::Status CheckNumIds(absl::string_view field, int count) {
  if (count <= kMostIds) return absl::OkStatus();
  return InvalidField(field, absl::StrCat("are ", count, " ids, allowed are at most ", kMostIds),
                      "OUT_OF_RANGE");
}

absl::Status CheckTextBytes(absl::string_view field, size_t bytes) {
  if (bytes <= kMostTextBytes) return absl::OkStatus();
  return InvalidField(
      field, absl::StrCat("has ", bytes, " bytes of text, allowed are at most ", kMostTextBytes),
      "OUT_OF_RANGE");
}

// Asked first: tokenising takes a hundred times the memory of the text and more.
absl::Status CheckTokenizeSize(const v1::Prompt& prompt) {
  if (prompt.has_text()) return CheckTextBytes("prompt.text", prompt.text().size());
  if (prompt.has_token_ids()) {
    return CheckNumIds("prompt.token_ids.ids", prompt.token_ids().ids_size());
  }
  return CheckTextBytes("prompt.chat.messages", SizeOf(prompt.chat()).bytes);
}

absl::Status CheckFitsAMessage(size_t bytes) {
  return CheckReplySize(static_cast<int64_t>(bytes), "the tokens with their pieces and text",
                        "send less at once");
}

// Bytes that a token of a reply takes at least: its id, and its piece with a tag and a length.
constexpr size_t kFewestTokenBytes = 3;
// And what it takes here at most: its ids, the string that is its piece, and the bytes of both.
constexpr int64_t kTokenMemory = 96;
// What decoding takes of a token until its text is there.
constexpr int64_t kDecodingMemory = 96;

// Before the reply is made of so many tokens.
absl::Status HoldTokens(const rpc::CallContext& context, size_t count) {
  VS_RETURN_IF_ERROR(CheckFitsAMessage(kFewestTokenBytes * count));
  return context.Hold(kTokenMemory * static_cast<int64_t>(count));
}

// As long as the response stays below what one message has. Before the text is made, which is about
// as long as its pieces.
template <typename Response>
absl::Status AddPieces(const rpc::CallContext& context, const std::vector<int32_t>& ids,
                       const text::Tokenizer& tokenizer, Response& response) {
  size_t bytes = response.ByteSizeLong();
  for (const int32_t id : ids) {
    if (context.cancellation.cancelled()) return context.Why();
    std::string piece = tokenizer.Piece(id);
    const auto size = static_cast<uint32_t>(piece.size());
    bytes += 1 + CodedOutputStream::VarintSize32(size) + size;  // a tag, the length, the bytes
    VS_RETURN_IF_ERROR(CheckFitsAMessage(bytes));
    response.add_pieces(std::move(piece));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ModelService::ListModels(const rpc::CallContext&, const v1::ListModelsRequest& request,
                                      v1::ListModelsResponse* response) {
  if (request.page_size() < 0) {
    return InvalidField("page_size", "must not be negative; 0 means 50, at most 1000 are returned");
  }
  // A token is the name that the page before ended with.
  std::string after;
  if (!request.page_token().empty() &&
      (!absl::WebSafeBase64Unescape(request.page_token(), &after) ||
       !CheckResourceId("page_token", after).ok())) {
    return InvalidField("page_token", "is not a token that ListModels returned");
  }
  const int page_size = request.page_size() == 0
                            ? kDefaultPageSize
                            : std::min<int>(request.page_size(), kMostPageSize);
  VS_ASSIGN_OR_RETURN(const std::vector<v1::Replica> replicas, replicas_->List());
  std::map<std::string, v1::Model> models;  // by id
  for (const engine::ModelEntry& entry : models_->List()) models[entry.id] = ModelToProto(entry);
  AddReplicas(replicas, request.all_replicas(), models);
  for (auto model = models.upper_bound(after); model != models.end(); ++model) {
    if (response->models_size() == page_size) {
      const std::string& last = response->models(page_size - 1).name();
      response->set_next_page_token(absl::WebSafeBase64Escape(last.substr(sizeof("models/") - 1)));
      break;
    }
    *response->add_models() = std::move(model->second);
  }
  return absl::OkStatus();
}

absl::Status ModelService::ListReplicas(const rpc::CallContext&, const v1::ListReplicasRequest&,
                                        v1::ListReplicasResponse* response) {
  VS_ASSIGN_OR_RETURN(const std::vector<v1::Replica> replicas, replicas_->List());
  for (const v1::Replica& replica : replicas) *response->add_replicas() = replica;
  return absl::OkStatus();
}

absl::Status ModelService::GetModel(const rpc::CallContext&, const v1::GetModelRequest& request,
                                    v1::GetModelResponse* response) {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName("name", "models", request.name()));
  VS_ASSIGN_OR_RETURN(const engine::ModelEntry entry, models_->Find(id));
  VS_ASSIGN_OR_RETURN(const std::vector<v1::Replica> replicas, replicas_->List());
  std::map<std::string, v1::Model> models = {{id, ModelToProto(entry)}};
  AddReplicas(replicas, /*others=*/false, models);
  *response->mutable_model() = std::move(models[id]);
  return absl::OkStatus();
}

absl::Status ModelService::LoadModel(const rpc::CallContext& context,
                                     const v1::LoadModelRequest& request,
                                     v1::LoadModelResponse* response) {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName("name", "models", request.name()));
  std::optional<DType> dtype;
  if (request.dtype() != v1::DATA_TYPE_UNSPECIFIED) {
    VS_ASSIGN_OR_RETURN(dtype, DataTypeFromProto("dtype", request.dtype()));
    if (*dtype != DType::kFloat32 && *dtype != DType::kFloat16 && *dtype != DType::kBFloat16) {
      return InvalidField("dtype", "must be FLOAT32, BFLOAT16 or FLOAT16");
    }
  }
  VS_ASSIGN_OR_RETURN(const store::IdempotencyKey key, KeyOf("ModelService/LoadModel", request));
  VS_ASSIGN_OR_RETURN(const auto earlier, store_->FindRequest(context.tenant, key));
  if (!earlier) {
    // Loading what is loaded or loading changes nothing.
    const absl::Status status = models_->StartLoading(id, dtype);
    if (!status.ok() && status.code() != absl::StatusCode::kAlreadyExists) return status;
    VS_RETURN_IF_ERROR(store_->PutResources(context.tenant, {}, key).status());
  }
  VS_ASSIGN_OR_RETURN(const engine::ModelEntry entry, models_->Find(id));
  *response->mutable_model() = ModelToProto(entry);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<rpc::Waiter<v1::UnloadModelResponse*>>> ModelService::UnloadModel(
    const rpc::CallContext&, const v1::UnloadModelRequest& request, rpc::Wake wake) {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName("name", "models", request.name()));
  VS_RETURN_IF_ERROR(models_->Find(id).status());
  if (!request.force()) VS_RETURN_IF_ERROR(CheckNoJobRunsOn(id));
  auto unloading = std::make_unique<Unloading>(id, clock_, wake);
  VS_RETURN_IF_ERROR(unloading->Start(*models_));
  return unloading;
}

// Jobs of every tenant: a model is the server's.
absl::Status ModelService::CheckNoJobRunsOn(const std::string& id) const {
  VS_ASSIGN_OR_RETURN(const std::vector<store::JobCount> counts, store_->CountJobs());
  const std::string name = absl::StrCat("models/", id);
  std::set<std::string> tenants;
  for (const store::JobCount& count : counts) {
    if (count.state == store::JobState::kRunning) tenants.insert(count.tenant);
  }
  for (const std::string& tenant : tenants) {
    store::JobFilter running;
    running.states = {store::JobState::kRunning};
    running.model = name;
    VS_ASSIGN_OR_RETURN(const store::JobPage page,
                        store_->ListJobs(tenant, running, {.page_size = 1, .page_token = ""}));
    if (page.jobs.empty()) continue;
    return ErrorWithReason(
        absl::StatusCode::kFailedPrecondition, "JOBS_ARE_RUNNING",
        absl::StrCat("jobs are running on `", name, "`; cancel them or set force"));
  }
  return absl::OkStatus();
}

absl::Status ModelService::Tokenize(const rpc::CallContext& context,
                                    const v1::TokenizeRequest& request,
                                    v1::TokenizeResponse* response) {
  VS_RETURN_IF_ERROR(CheckTokenizeSize(request.prompt()));
  VS_ASSIGN_OR_RETURN(const auto model, ModelOfName("model", request.model(), *models_));
  const bool add_special_tokens =
      request.has_add_special_tokens() ? request.add_special_tokens() : true;
  VS_ASSIGN_OR_RETURN(
      TokenisedPrompt prompt,
      PromptFromProto(
          "prompt", request.prompt(), *model,
          {.add_special_tokens = add_special_tokens, .now = absl::Now(), .within_context = false}));
  const text::Tokenizer& tokenizer = model->text->tokenizer();
  VS_RETURN_IF_ERROR(context.Why());
  VS_RETURN_IF_ERROR(HoldTokens(context, prompt.ids.size()));
  VS_RETURN_IF_ERROR(context.Hold(2 * static_cast<int64_t>(prompt.text.size())));
  response->mutable_token_ids()->Assign(prompt.ids.begin(), prompt.ids.end());
  VS_RETURN_IF_ERROR(AddPieces(context, prompt.ids, tokenizer, *response));
  if (request.prompt().has_token_ids()) {
    VS_RETURN_IF_ERROR(context.Hold(kDecodingMemory * static_cast<int64_t>(prompt.ids.size())));
    VS_ASSIGN_OR_RETURN(prompt.text, tokenizer.Decode(prompt.ids, /*skip_special_tokens=*/false));
  }
  response->set_rendered_text(std::move(prompt.text));
  response->set_tokenizer_digest(model->text->tokenizer_digest());
  if (prompt.from_chat) response->set_template_digest(model->text->template_digest());
  return CheckFitsAMessage(response->ByteSizeLong());
}

absl::Status ModelService::Detokenize(const rpc::CallContext& context,
                                      const v1::DetokenizeRequest& request,
                                      v1::DetokenizeResponse* response) {
  VS_RETURN_IF_ERROR(CheckNumIds("token_ids", request.token_ids_size()));
  VS_ASSIGN_OR_RETURN(const auto model, ModelOfName("model", request.model(), *models_));
  VS_RETURN_IF_ERROR(HoldTokens(context, static_cast<size_t>(request.token_ids_size())));
  VS_RETURN_IF_ERROR(context.Hold(kDecodingMemory * request.token_ids_size()));
  const std::vector<int32_t> ids(request.token_ids().begin(), request.token_ids().end());
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= model->architecture.vocabulary) {
      return OutOfRange(absl::StrCat("token_ids[", i, "]"), ids[i], 0,
                        static_cast<double>(model->architecture.vocabulary - 1));
    }
  }
  const text::Tokenizer& tokenizer = model->text->tokenizer();
  VS_RETURN_IF_ERROR(AddPieces(context, ids, tokenizer, *response));
  VS_ASSIGN_OR_RETURN(std::string text, tokenizer.Decode(ids, request.skip_special_tokens()));
  response->set_text(std::move(text));
  return CheckFitsAMessage(response->ByteSizeLong());
}

}  // namespace valuescope::services
