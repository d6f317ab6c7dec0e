// VectorService.CompareVectors: vectors of one model and site by layer, and their tokens.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "services/reply_size.h"
#include "services/request_codec.h"
#include "services/stored_vectors.h"
#include "services/vector_service.h"
#include "studies/compare_vectors.h"

namespace valuescope::services {
namespace {

constexpr int kMostVectors = 64;
constexpr int kMostTopTokens = 100;
// A cosine beside its two names: fewest bytes of the message, and what it takes here with the bytes
// it is sent as.
constexpr int64_t kFewestCosineBytes = 6, kCosineMemory = 512;
// A token: id, an empty piece and score at least; and what it takes here, from its score on.
constexpr int64_t kFewestTokenBytes = 13, kTokenMemory = 256;

// What all of the request's names are, and their rows.
struct ReadVectors {
  std::vector<studies::StoredVector> vectors;
  std::vector<studies::NamedVector> named;
  UsedResources used;
};

absl::StatusOr<ReadVectors> ReadAll(const rpc::CallContext& context,
                                    const v1::CompareVectorsRequest& request, store::Store& store,
                                    store::BlobStore& blobs) {
  ReadVectors read;
  read.vectors.reserve(static_cast<size_t>(request.vectors_size()));
  for (int i = 0; i < request.vectors_size(); ++i) {
    VS_RETURN_IF_ERROR(context.Why());
    VS_ASSIGN_OR_RETURN(studies::StoredVector vector,
                        HeldVectorOfName(context, absl::StrCat("vectors[", i, "]"),
                                         request.vectors(i), {}, store, blobs, read.used));
    read.vectors.push_back(std::move(vector));
    read.named.push_back({.name = request.vectors(i), .vector = &read.vectors.back()});
  }
  return read;
}

absl::StatusOr<std::vector<int>> LayersOf(const v1::CompareVectorsRequest& request,
                                          const ReadVectors& read) {
  const v1::Layers* chosen = request.has_layers() ? &request.layers() : nullptr;
  const model::Site site = read.vectors.front().site();
  if (!model::IsPerLayer(site)) {
    VS_RETURN_IF_ERROR(LayersFromProto("layers", chosen, {.site = site}).status());
    return std::vector<int>{0};
  }
  std::vector<const studies::StoredVector*> vectors;
  for (const studies::StoredVector& vector : read.vectors) {
    // Another site is refused by its own name, not for the layers that it has not.
    if (vector.site() == site) vectors.push_back(&vector);
  }
  return LayersOfVectors(chosen, vectors);
}

// Before anything is computed: what the reply has at least, in one message, and what it takes here.
absl::Status HoldReply(const rpc::CallContext& context, const v1::CompareVectorsRequest& request,
                       size_t num_layers) {
  const int64_t vectors = request.vectors_size(), layers = static_cast<int64_t>(num_layers);
  const int64_t pairs = vectors * (vectors - 1) / 2, tokens = int64_t{2} * request.top_tokens();
  int64_t names = 0;  // bytes; every vector is in vectors - 1 pairs
  for (const std::string& name : request.vectors()) names += static_cast<int64_t>(name.size());
  VS_RETURN_IF_ERROR(
      CheckReplySize(layers * (pairs * kFewestCosineBytes + names * (vectors - 1)),
                     absl::StrCat("the cosines of ", pairs, " pairs at ", layers, " layers"),
                     "ask for fewer `vectors` or `layers`"));
  VS_RETURN_IF_ERROR(
      CheckReplySize(layers * vectors * tokens * kFewestTokenBytes,
                     absl::StrCat("the tokens of ", vectors, " vectors at ", layers, " layers"),
                     "ask for fewer `top_tokens`, `vectors` or `layers`"));
  return context.Hold(layers * (pairs * kCosineMemory + vectors * tokens * kTokenMemory));
}

}  // namespace

absl::Status VectorService::CompareVectors(const rpc::CallContext& context,
                                           const v1::CompareVectorsRequest& request,
                                           v1::CompareVectorsResponse* response) {
  if (request.vectors_size() < 1 || request.vectors_size() > kMostVectors) {
    return OutOfRange("vectors", request.vectors_size(), 1, kMostVectors);
  }
  if (request.top_tokens() < 0 || request.top_tokens() > kMostTopTokens) {
    return OutOfRange("top_tokens", request.top_tokens(), 0, kMostTopTokens);
  }
  VS_ASSIGN_OR_RETURN(const ReadVectors read, ReadAll(context, request, *store_, *blobs_));
  VS_ASSIGN_OR_RETURN(const std::vector<int> layers, LayersOf(request, read));
  VS_RETURN_IF_ERROR(HoldReply(context, request, layers.size()));
  VS_ASSIGN_OR_RETURN(auto cosines,
                      studies::CompareVectors(read.named, layers, context.cancellation));
  response->mutable_cosines()->Assign(std::make_move_iterator(cosines.begin()),
                                      std::make_move_iterator(cosines.end()));
  if (request.top_tokens() > 0) {
    VS_RETURN_IF_ERROR(AddTokens(context, read.named, layers, request.top_tokens(), response));
  }
  for (const auto& [name, digest] : read.used) {
    v1::ResourceDigest& proto = *response->add_digests();
    proto.set_name(name);
    proto.set_digest(digest);
  }
  return CheckReplySize(static_cast<int64_t>(response->ByteSizeLong()), "the comparisons",
                        "ask for fewer `vectors`, `layers` or `top_tokens`");
}

absl::Status VectorService::AddTokens(const rpc::CallContext& context,
                                      const std::vector<studies::NamedVector>& vectors,
                                      const std::vector<int>& layers, int count,
                                      v1::CompareVectorsResponse* response) const {
  const studies::StoredVector& first = *vectors.front().vector;
  if (!studies::IsResidual(first.site())) {
    return InvalidField("top_tokens",
                        absl::StrCat("must be 0: a vector at ", model::NameOf(first.site()),
                                     " is no direction in the residual stream"),
                        "WRONG_SITE");
  }
  VS_ASSIGN_OR_RETURN(const auto model,
                      ModelOfName("vectors[0].model", first.record.model(), *models_));
  VS_RETURN_IF_ERROR(studies::CheckUsable(first, *model, first.site(), "vectors[0]"));
  // The rows once more one under the other, and a part of the unembedding: as stored, widened, with
  // the gain, and handed over.
  const auto row_bytes = first.width() * static_cast<int64_t>(sizeof(float));
  const auto rows = static_cast<int64_t>(vectors.size() * layers.size());
  const int64_t part =
      std::min(studies::kUnembeddingBytes, model->architecture.vocabulary * row_bytes);
  VS_RETURN_IF_ERROR(context.Hold(rows * row_bytes + 4 * std::max(part, row_bytes)));
  VS_ASSIGN_OR_RETURN(
      auto tokens,
      studies::TokensOfVectors(
          vectors, layers, count, *model->engine,
          [&](int32_t id) { return model->text->tokenizer().Piece(id); }, context.cancellation));
  response->mutable_tokens()->Assign(std::make_move_iterator(tokens.begin()),
                                     std::make_move_iterator(tokens.end()));
  return absl::OkStatus();
}

}  // namespace valuescope::services
