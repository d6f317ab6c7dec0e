// NeuronService.ScoreSelectivity: from stored probabilities of several values, a set of the neurons
// that tell them apart.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "analysis/statistics.h"
#include "base/error.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "services/idempotency.h"
#include "services/neuron_service.h"
#include "services/replays.h"
#include "services/request_codec.h"
#include "services/stored_neuron_sets.h"
#include "services/study_codec.h"
#include "studies/message_json.h"
#include "studies/provenance.h"
#include "studies/score_selectivity.h"

namespace valuescope::services {
namespace {

constexpr int kMostSets = static_cast<int>(analysis::kMostSelectivityValues);
// A probability: itself, and where its percentile is looked for. Columns of a neuron, as numbers,
// as they are stored, and where they are sorted.
constexpr int64_t kProbabilityMemory = 2 * sizeof(double), kNeuronMemory = 96;
// Expressing responses; probabilities of fewer are coarse.
constexpr int64_t kFewResponses = 10;

struct ReadSets {
  std::vector<NamedNeuronSet> sets;
  std::vector<std::vector<double>> probabilities;  // [values][neurons]
  UsedResources used;
};

absl::StatusOr<analysis::SelectivityOptions> OptionsOf(const v1::ScoreSelectivityRequest& request) {
  analysis::SelectivityOptions options;
  if (request.has_activity_percentile()) {
    options.activity_percentile = request.activity_percentile();
  }
  if (request.has_top_percent()) options.top_percent = request.top_percent();
  if (!(options.activity_percentile >= 0 && options.activity_percentile <= 100)) {
    return OutOfRange("activity_percentile", options.activity_percentile, 0, 100);
  }
  if (options.top_percent > 0 && options.top_percent <= 100) return options;
  return InvalidField("top_percent",
                      absl::StrCat("is ", options.top_percent, ", must be above 0 and at most 100"),
                      "OUT_OF_RANGE");
}

// All sets by name, each checked before any is read.
absl::StatusOr<ReadSets> NameSets(const rpc::CallContext& context,
                                  const v1::ScoreSelectivityRequest& request, store::Store& store) {
  if (request.neuron_sets_size() < 2 || request.neuron_sets_size() > kMostSets) {
    return OutOfRange("neuron_sets", request.neuron_sets_size(), 2, kMostSets);
  }
  ReadSets read;
  for (int i = 0; i < request.neuron_sets_size(); ++i) {
    const std::string field = absl::StrCat("neuron_sets[", i, "]");
    const std::string& name = request.neuron_sets(i);
    if (read.used.contains(name)) return InvalidField(field, "is there twice");
    VS_ASSIGN_OR_RETURN(read.sets.emplace_back(),
                        NeuronSetOfName(context, field, name, store, read.used));
    VS_RETURN_IF_ERROR(
        studies::CheckProbabilities(field, read.sets.back().set, read.sets.front().set));
  }
  return read;
}

absl::Status ReadProbabilities(const rpc::CallContext& context, store::BlobStore& blobs,
                               ReadSets& read) {
  const int64_t neurons = studies::CountNeurons(read.sets.front().set);
  const auto values = static_cast<int64_t>(read.sets.size());
  VS_RETURN_IF_ERROR(context.Hold(neurons * (values * kProbabilityMemory + kNeuronMemory)));
  for (const NamedNeuronSet& named : read.sets) {
    VS_RETURN_IF_ERROR(context.Why());
    // The file, and its columns.
    const int64_t reading = 2 * named.resource.blob_size;
    VS_RETURN_IF_ERROR(context.Hold(reading));
    VS_ASSIGN_OR_RETURN(read.probabilities.emplace_back(),
                        studies::ReadMeanExpressing(blobs, named.resource));
    context.GiveBack(reading);
  }
  return absl::OkStatus();
}

v1::NeuronSet DescribeSet(const v1::ScoreSelectivityRequest& request, const ReadSets& read,
                          const studies::Selectivity& selectivity, int top_k) {
  const v1::NeuronSet& first = read.sets.front().set;
  std::vector<const v1::Provenance*> sources;
  for (const NamedNeuronSet& named : read.sets) sources.push_back(&named.set.provenance());
  v1::NeuronSet set;
  set.set_model(first.model());
  set.set_model_digest(first.model_digest());
  set.set_method(studies::kSelectivityMethod);
  set.set_display_name(request.display_name());
  set.set_top_k(top_k);
  *set.mutable_layers() = studies::SummariseLayers(selectivity.columns, /*top=*/{});
  v1::Provenance& provenance = *set.mutable_provenance();
  provenance = studies::DerivedProvenance(sources);
  provenance.set_site(v1::SITE_MLP_NEURONS);
  provenance.set_sign_rule("log(number of values) - entropy over the values");
  *provenance.mutable_inputs() = InputsOf(read.used);
  provenance.set_options(studies::RecordOfRequest(request, {"display_name", "request_id"}));
  return set;
}

// What a reader of the numbers should know.
void AddWarnings(const v1::ScoreSelectivityRequest& request, const ReadSets& read,
                 const analysis::SelectivityOptions& options, v1::NeuronSet& set) {
  for (size_t i = 0; i < read.sets.size(); ++i) {
    const int64_t responses = read.sets[i].set.provenance().num_expressing();
    if (responses >= kFewResponses) continue;
    set.add_warnings(absl::StrCat("the probabilities of ", request.neuron_sets(static_cast<int>(i)),
                                  " rest on only ", responses, " responses: they are noisy"));
  }
  int64_t members = 0;
  for (const v1::NeuronSetLayer& layer : set.layers()) members += layer.num_members();
  const int64_t most = analysis::CountOfPercent(options.top_percent, studies::CountNeurons(set));
  if (members < most) {
    set.add_warnings(absl::StrCat("only ", members,
                                  " neurons are active enough for some value, of ", most,
                                  " that `top_percent` allows"));
  }
}

}  // namespace

absl::Status NeuronService::ScoreSelectivity(const rpc::CallContext& context,
                                             const v1::ScoreSelectivityRequest& request,
                                             v1::ScoreSelectivityResponse* response) {
  VS_ASSIGN_OR_RETURN(const store::IdempotencyKey key,
                      KeyOf("NeuronService/ScoreSelectivity", request));
  VS_ASSIGN_OR_RETURN(const auto earlier, EarlierResult(*store_, context.tenant, key));
  if (earlier) return ReplayScoreSelectivity(*earlier, *blobs_, response);
  VS_ASSIGN_OR_RETURN(const analysis::SelectivityOptions options, OptionsOf(request));
  VS_ASSIGN_OR_RETURN(const int top_k, TopKOf(request));
  VS_RETURN_IF_ERROR(CheckDisplayName("display_name", request.display_name()));
  VS_ASSIGN_OR_RETURN(ReadSets read, NameSets(context, request, *store_));
  VS_RETURN_IF_ERROR(ReadProbabilities(context, *blobs_, read));
  VS_ASSIGN_OR_RETURN(
      const studies::Selectivity selectivity,
      studies::ScoreSelectivity(read.probabilities, read.sets.front().set.layers(), options));
  v1::NeuronSet set = DescribeSet(request, read, selectivity, top_k);
  AddWarnings(request, read, options, set);
  VS_ASSIGN_OR_RETURN(
      const store::Resource resource,
      PutNeuronSet(set, studies::EncodeColumns(selectivity.columns, selectivity.activity_threshold),
                   context.tenant, key, *store_, *blobs_));
  TellSelectivity(resource, set, selectivity, response);
  return absl::OkStatus();
}

}  // namespace valuescope::services
