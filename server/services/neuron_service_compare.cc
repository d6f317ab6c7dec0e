// NeuronService.CompareNeuronSets: overlaps of stored sets of one model.
#include <iterator>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "services/neuron_service.h"
#include "services/reply_size.h"
#include "services/request_codec.h"
#include "services/stored_neuron_sets.h"
#include "studies/compare_neuron_sets.h"

namespace valuescope::services {
namespace {

constexpr int kMostComparedSets = 64;
// An overlap: fewest bytes of the message, and what it takes here with the bytes it is sent as.
constexpr int64_t kFewestOverlapBytes = 6, kOverlapMemory = 256;

// The neurons of all sets that are compared.
struct ComparedSets {
  std::vector<studies::NeuronsByLayer> sets;
  std::map<int, int64_t> neurons_of_layer;  // of each layer that any set has
  UsedResources used;
};

absl::StatusOr<ComparedSets> ReadComparedSets(const rpc::CallContext& context,
                                              const v1::CompareNeuronSetsRequest& request,
                                              store::Store& store, store::BlobStore& blobs) {
  ComparedSets read;
  std::string model_digest;
  for (int i = 0; i < request.sets_size(); ++i) {
    VS_RETURN_IF_ERROR(context.Why());
    const v1::NeuronSetFilter& filter = request.sets(i);
    const std::string field = absl::StrCat("sets[", i, "]");
    VS_ASSIGN_OR_RETURN(const NamedNeuronSet named,
                        NeuronSetOfName(context, absl::StrCat(field, ".neuron_set"),
                                        filter.neuron_set(), store, read.used));
    if (i == 0) model_digest = named.set.model_digest();
    if (named.set.model_digest() != model_digest) {
      return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "WRONG_MODEL",
                             absl::StrCat("`", field, "` is a set of another model than sets[0]"));
    }
    VS_RETURN_IF_ERROR(CheckFilter(field, filter, named.set));
    for (const v1::NeuronSetLayer& layer : named.set.layers()) {
      read.neurons_of_layer[layer.layer()] = layer.num_neurons();
    }
    VS_ASSIGN_OR_RETURN(read.sets.emplace_back(), HeldNeurons(context, filter, named, blobs));
  }
  return read;
}

constexpr char kFewerSets[] = "ask for fewer `sets`";

// Before anything is compared.
absl::Status HoldReply(const rpc::CallContext& context, const ComparedSets& read) {
  const auto sets = static_cast<int64_t>(read.sets.size());
  const auto layers = static_cast<int64_t>(read.neurons_of_layer.size());
  const int64_t overlaps = sets * (sets - 1) / 2 * (1 + layers);
  VS_RETURN_IF_ERROR(CheckReplySize(
      overlaps * kFewestOverlapBytes,
      absl::StrCat("the overlaps of ", sets, " sets at ", layers, " layers"), kFewerSets));
  return context.Hold(overlaps * kOverlapMemory);
}

}  // namespace

absl::Status NeuronService::CompareNeuronSets(const rpc::CallContext& context,
                                              const v1::CompareNeuronSetsRequest& request,
                                              v1::CompareNeuronSetsResponse* response) {
  if (request.sets_size() < 2 || request.sets_size() > kMostComparedSets) {
    return OutOfRange("sets", request.sets_size(), 2, kMostComparedSets);
  }
  VS_ASSIGN_OR_RETURN(const ComparedSets read,
                      ReadComparedSets(context, request, *store_, *blobs_));
  VS_RETURN_IF_ERROR(HoldReply(context, read));
  VS_ASSIGN_OR_RETURN(auto overlaps, studies::CompareNeuronSets(read.sets, read.neurons_of_layer,
                                                                context.cancellation));
  response->mutable_overlaps()->Assign(std::make_move_iterator(overlaps.begin()),
                                       std::make_move_iterator(overlaps.end()));
  for (const auto& [name, digest] : read.used) {
    v1::ResourceDigest& proto = *response->add_digests();
    proto.set_name(name);
    proto.set_digest(digest);
  }
  return CheckReplySize(static_cast<int64_t>(response->ByteSizeLong()), "the overlaps", kFewerSets);
}

}  // namespace valuescope::services
