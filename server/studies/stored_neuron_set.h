// Neuron sets as they are kept: a resource whose record is the contract's NeuronSet and whose blob
// holds the full columns. Its name is the head of its digest.
//
//   record    model, digest of its weights, method, top_k, summaries a layer, warnings, provenance
//   blob      safetensors; for each layer l, in order of neurons, [intermediate] each:
//             layer.{l}.score                FLOAT64
//             layer.{l}.class                INT32, numbers of the contract's NeuronClass, and
//             layer.{l}.angle                FLOAT64, degrees: geometric classification only
//             layer.{l}.mean_expressing      FLOAT64, and
//             layer.{l}.mean_non_expressing  FLOAT64: direct contribution and activation
//                                            probability only
//             layer.{l}.member               INT32, 1 or 0, and
//             layer.{l}.values               INT64, bit k for value k: selectivity only, and once
//             activity_threshold             FLOAT64 [1]
//   digest    SHA-256 over model digest, method, top_k, the blob's digest, summaries a layer,
//             warnings and provenance. Sets stored before the last three entered keep theirs.
//
// The blob is read by users as artifacts/neuron-set.ID.
#ifndef VALUESCOPE_STUDIES_STORED_NEURON_SET_H_
#define VALUESCOPE_STUDIES_STORED_NEURON_SET_H_

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "analysis/neuron_geometry.h"
#include "google/protobuf/repeated_field.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::studies {

inline constexpr char kDirectContributionMethod[] = "direct_contribution";
inline constexpr char kActivationProbabilityMethod[] = "activation_probability_difference";
inline constexpr char kAttributionPatchingMethod[] = "attribution_patching";
inline constexpr char kIntegratedGradientsMethod[] = "integrated_gradients";
inline constexpr char kCausalAblationMethod[] = "causal_ablation";
inline constexpr char kLogProbabilityIncreaseMethod[] = "log_probability_increase";
inline constexpr char kGeometricMethod[] = "geometric";
inline constexpr char kSelectivityMethod[] = "selectivity";
inline constexpr char kNeuronSetArtifactPrefix[] = "neuron-set.";

// All neurons of one block; columns that the method does not have are empty, the others have one
// element a neuron.
struct NeuronColumns {
  int layer = 0;
  std::vector<double> scores = {};
  std::vector<analysis::NeuronClass> classes = {};
  std::vector<double> angles = {};  // degrees
  std::vector<double> mean_expressing = {};
  std::vector<double> mean_non_expressing = {};
  std::optional<double> completeness_gap = {};   // integrated gradients
  std::optional<double> mean_absolute_gap = {};  // integrated gradients
  std::vector<int32_t> members = {};             // selectivity: 1 of a member, else 0
  std::vector<int64_t> values = {};              // selectivity: bit k for value k
};

// The `top_k` members by |score| over all layers, largest first, ties by layer, then index. Where
// the method chooses members (it assigns classes, or by selectivity) they are those; else all
// neurons compete.
google::protobuf::RepeatedPtrField<v1::NeuronScore> TopNeurons(
    std::span<const NeuronColumns> columns, int64_t top_k);

// Indices of neurons by layer, ascending.
using NeuronsByLayer = std::map<int, std::vector<int64_t>>;

// All members: those that the method chose, else the `top_k` first. Only those of `neuron_class`
// where it is not UNSPECIFIED.
NeuronsByLayer MembersByLayer(std::span<const NeuronColumns> columns, int64_t top_k,
                              v1::NeuronClass neuron_class);

// Members or not, the `count` neurons of each layer of the largest |score|, ties by index; among
// those of `neuron_class` where it is not UNSPECIFIED.
NeuronsByLayer TopOfEachLayer(std::span<const NeuronColumns> columns, int64_t count,
                              v1::NeuronClass neuron_class);

// Neurons that a set scores, of all layers.
int64_t CountNeurons(const v1::NeuronSet& set);

// Whether the method of a set assigns classes.
bool AssignsClasses(const v1::NeuronSet& set);

// Sum, extremes and members of each layer of a set without classes, whose members are `top` unless
// its columns tell them.
google::protobuf::RepeatedPtrField<v1::NeuronSetLayer> SummariseLayers(
    std::span<const NeuronColumns> columns,
    const google::protobuf::RepeatedPtrField<v1::NeuronScore>& top);

// The blob's bytes; with `activity_threshold` of a set of selectivity.
std::string EncodeColumns(std::span<const NeuronColumns> columns,
                          std::optional<double> activity_threshold = std::nullopt);

// The resource to put into the store; `blob` holds EncodeColumns' bytes. RESOURCE_EXHAUSTED where
// the record is too large to keep.
absl::StatusOr<store::Resource> MakeNeuronSetResource(const v1::NeuronSet& set,
                                                      const store::StoredBlob& blob);

// The set without what the columns and the store tell. DATA_LOSS where it is damaged.
absl::StatusOr<v1::NeuronSet> DescribeNeuronSet(const store::Resource& resource);

// The full columns without means, layers ascending.
absl::StatusOr<std::vector<NeuronColumns>> ReadColumns(store::BlobStore& blobs,
                                                       const store::Resource& resource);

// mean_expressing of a set that has it, layers ascending one after another.
absl::StatusOr<std::vector<double>> ReadMeanExpressing(store::BlobStore& blobs,
                                                       const store::Resource& resource);

// Of a set of selectivity.
absl::StatusOr<double> ReadActivityThreshold(store::BlobStore& blobs,
                                             const store::Resource& resource);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_STORED_NEURON_SET_H_
