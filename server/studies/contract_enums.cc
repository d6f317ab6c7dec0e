#include "studies/contract_enums.h"

namespace valuescope::studies {
namespace {

template <typename Theirs, typename Ours>
constexpr Theirs AfterUnspecified(Ours ours) {
  return static_cast<Theirs>(static_cast<int>(ours) + 1);
}

template <typename Ours>
constexpr std::optional<Ours> Within(int number, Ours last) {
  if (number < 1 || number > static_cast<int>(last) + 1) return std::nullopt;
  return static_cast<Ours>(number - 1);
}

using analysis::NeuronClass;
using model::Site;
static_assert(AfterUnspecified<v1::Site>(Site::kEmbedding) == v1::SITE_EMBEDDING);
static_assert(AfterUnspecified<v1::Site>(Site::kResidualPost) == v1::SITE_RESIDUAL_POST);
static_assert(AfterUnspecified<v1::Site>(Site::kMlpNeurons) == v1::SITE_MLP_NEURONS);
static_assert(AfterUnspecified<v1::Site>(Site::kLogits) == v1::SITE_LOGITS);
static_assert(AfterUnspecified<v1::DataType>(DType::kFloat32) == v1::DATA_TYPE_FLOAT32);
static_assert(AfterUnspecified<v1::DataType>(DType::kBFloat16) == v1::DATA_TYPE_BFLOAT16);
static_assert(AfterUnspecified<v1::DataType>(DType::kInt64) == v1::DATA_TYPE_INT64);
static_assert(AfterUnspecified<v1::NeuronClass>(NeuronClass::kNone) == v1::NEURON_CLASS_NONE);
static_assert(AfterUnspecified<v1::NeuronClass>(NeuronClass::kSharedNegative) ==
              v1::NEURON_CLASS_SHARED_NEGATIVE);

}  // namespace

v1::Site SiteToProto(Site site) { return AfterUnspecified<v1::Site>(site); }

std::optional<Site> SiteOf(v1::Site site) { return Within(site, Site::kLogits); }

v1::DataType DataTypeToProto(DType dtype) { return AfterUnspecified<v1::DataType>(dtype); }

std::optional<DType> DataTypeOf(v1::DataType dtype) { return Within(dtype, DType::kInt64); }

v1::NeuronClass ClassToProto(NeuronClass neuron_class) {
  return AfterUnspecified<v1::NeuronClass>(neuron_class);
}

std::optional<NeuronClass> ClassOf(int number) {
  return Within(number, NeuronClass::kSharedNegative);
}

}  // namespace valuescope::studies
