// Neuron sets as they are kept: a resource whose metadata (JSON) holds summaries a layer, and whose
// blob holds the full columns. Its name is the head of its digest.
//
//   blob      safetensors; for each layer l, in order of neurons, [intermediate] each:
//             layer.{l}.score                FLOAT64
//             layer.{l}.class                INT32, numbers of the contract's NeuronClass, and
//             layer.{l}.angle                FLOAT64, degrees: geometric classification only
//             layer.{l}.mean_expressing      FLOAT64, and
//             layer.{l}.mean_non_expressing  FLOAT64: direct contribution only
//   digest    SHA-256 over model digest, method, top_k, the blob's digest, summaries a layer,
//             warnings and provenance. Sets stored before the last three entered keep theirs.
//
// The blob is read by users as artifacts/neuron-set.ID.
#ifndef VALUESCOPE_STUDIES_STORED_NEURON_SET_H_
#define VALUESCOPE_STUDIES_STORED_NEURON_SET_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "analysis/neuron_geometry.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "studies/provenance.h"

namespace valuescope::studies {

inline constexpr char kDirectContributionMethod[] = "direct_contribution";
inline constexpr char kGeometricMethod[] = "geometric";
inline constexpr int kNeuronSetFormatVersion = 1;
inline constexpr char kNeuronSetArtifactPrefix[] = "neuron-set.";

// All neurons of one block; columns that the method does not have are empty, the others have one
// element a neuron.
struct NeuronColumns {
  int layer = 0;
  std::vector<double> scores;
  std::vector<analysis::NeuronClass> classes;
  std::vector<double> angles;  // degrees
  std::vector<double> mean_expressing;
  std::vector<double> mean_non_expressing;
};

struct NeuronScore {
  int layer = 0;
  int32_t index = 0;
  double score = 0;
  std::optional<analysis::NeuronClass> neuron_class;
  std::optional<double> angle;
};

struct ClassCount {
  analysis::NeuronClass neuron_class = analysis::NeuronClass::kNone;
  int64_t count = 0;
  double expected = 0;  // under the isotropic null, out of the neurons kept
};

struct NeuronSetLayer {
  int layer = 0;
  int64_t num_neurons = 0;
  int64_t num_members = 0;
  std::vector<ClassCount> classes;  // empty where the method assigns none
  double score_sum = 0;
  double score_min = 0;
  double score_max = 0;
};

struct StoredNeuronSet {
  std::string model;  // "models/ID"
  std::string model_digest;
  std::string method;
  std::string display_name;
  int64_t top_k = 0;                   // as asked for
  std::vector<NeuronSetLayer> layers;  // ascending
  std::vector<std::string> warnings;   // what a reader of the numbers should know
  Provenance provenance;
};

// Number of a class in the contract, and back (nullopt for none of ours).
int32_t ContractNumber(analysis::NeuronClass neuron_class);
std::optional<analysis::NeuronClass> ClassOfContractNumber(int32_t number);

// The `top_k` members by |score| over all layers, largest first, ties by layer, then index. Where
// classes are assigned, members are the neurons that were kept; else all neurons compete.
std::vector<NeuronScore> TopNeurons(std::span<const NeuronColumns> columns, int64_t top_k);

// All members: the neurons that were kept where classes are assigned, else the `top_k` first.
std::vector<NeuronScore> Members(std::span<const NeuronColumns> columns, int64_t top_k);

// Sum, extremes and members of each layer of a set without classes, whose members are `top`.
std::vector<NeuronSetLayer> SummariseLayers(std::span<const NeuronColumns> columns,
                                            std::span<const NeuronScore> top);

// The blob's bytes.
std::string EncodeColumns(std::span<const NeuronColumns> columns);

// The resource to put into the store; `blob` holds EncodeColumns' bytes.
store::Resource MakeNeuronSetResource(const StoredNeuronSet& set, const store::StoredBlob& blob);

// The set's metadata. DATA_LOSS where it is damaged.
absl::StatusOr<StoredNeuronSet> DescribeNeuronSet(const store::Resource& resource);

// The full columns, layers ascending.
absl::StatusOr<std::vector<NeuronColumns>> ReadColumns(store::BlobStore& blobs,
                                                       const store::Resource& resource);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_STORED_NEURON_SET_H_
