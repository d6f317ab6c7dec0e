#include "model/weights.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "model/device_types.h"

namespace valuescope::model {
namespace {

absl::Status Refused(absl::string_view why) {
  return ErrorWithReason(absl::StatusCode::kInvalidArgument, "WEIGHTS_DO_NOT_FIT", why);
}

// Longer names are cut in a message.
constexpr size_t kMaxQuotedName = 256;

// Exponents of all ones are the infinities and what is not a number.
template <typename Bits>
bool AllFinite(absl::string_view bytes, Bits exponent) {
  bool finite = true;
  for (size_t i = 0; i < bytes.size(); i += sizeof(Bits)) {
    Bits bits;  // safetensors promises no alignment
    std::memcpy(&bits, bytes.data() + i, sizeof(bits));
    finite &= (bits & exponent) != exponent;
  }
  return finite;
}

bool AllFinite(const StoredTensor& tensor) {
  switch (tensor.dtype) {
    case DType::kFloat32:
      return AllFinite<uint32_t>(tensor.bytes, 0x7f800000);
    case DType::kFloat16:
      return AllFinite<uint16_t>(tensor.bytes, 0x7c00);
    case DType::kBFloat16:
      return AllFinite<uint16_t>(tensor.bytes, 0x7f80);
    default:
      return true;  // the table allows no others
  }
}

// A tied unembedding that was written out again says the same as the embedding, or one of them
// would silently win.
absl::Status NotTied(absl::string_view why) {
  return Refused(absl::StrCat("tensor \"", kUnembeddingWeight, "\" ", why,
                              " the embedding, but config.json ties them"));
}

absl::Status CheckAgainstTable(const std::map<std::string, StoredTensor>& tensors,
                               const Architecture& architecture) {
  std::set<std::string> known;
  for (const WeightSpec& spec : WeightTable(architecture)) {
    known.insert(spec.name);
    const auto found = tensors.find(spec.name);
    if (found == tensors.end())
      return Refused(absl::StrCat("tensor \"", spec.name, "\" is missing"));
    if (found->second.shape != spec.shape) {
      return Refused(absl::StrCat(
          "tensor \"", spec.name, "\" has the shape [", absl::StrJoin(found->second.shape, ", "),
          "], config.json asks for [", absl::StrJoin(spec.shape, ", "), "]"));
    }
    const DType dtype = found->second.dtype;
    if (dtype != DType::kFloat32 && dtype != DType::kFloat16 && dtype != DType::kBFloat16) {
      return Refused(absl::StrCat("tensor \"", spec.name, "\" is ", NameOf(dtype),
                                  ", served are float32, float16 and bfloat16"));
    }
  }
  // Some exporters write the tied unembedding or the rotary table out again; neither adds anything.
  for (const auto& [name, tensor] : tensors) {
    const bool redundant = (architecture.tied_embeddings && name == kUnembeddingWeight) ||
                           absl::StrContains(name, "rotary_emb.inv_freq");
    if (!known.contains(name) && !redundant)
      return Refused(absl::StrCat("tensor \"", name.substr(0, kMaxQuotedName), "\" is unknown"));
  }
  const auto unembedding = tensors.find(kUnembeddingWeight);
  if (known.contains(kUnembeddingWeight) || unembedding == tensors.end()) return absl::OkStatus();
  const StoredTensor& embedding = tensors.at(kEmbeddingWeight);
  const bool same =
      unembedding->second.dtype == embedding.dtype && unembedding->second.shape == embedding.shape;
  return same ? absl::OkStatus() : NotTied("has another shape or type than");
}

}  // namespace

std::vector<WeightSpec> WeightTable(const Architecture& a) {
  const int64_t q = a.num_heads * a.head_dim, kv = a.num_kv_heads * a.head_dim;
  std::vector<WeightSpec> table = {{kEmbeddingWeight, {a.vocabulary, a.hidden}}};
  std::string block;
  const auto norm = [&](const char* name, int64_t width) {
    table.push_back({absl::StrCat(block, name, ".weight"), {width}});
  };
  const auto projection = [&](const char* name, int64_t out, int64_t in, bool bias) {
    table.push_back({absl::StrCat(block, name, ".weight"), {out, in}});
    if (bias) table.push_back({absl::StrCat(block, name, ".bias"), {out}});
  };
  for (int layer = 0; layer < a.num_layers; ++layer) {
    block = absl::StrCat("model.layers.", layer, ".");
    norm("input_layernorm", a.hidden);
    projection("self_attn.q_proj", q, a.hidden, a.qkv_bias);
    projection("self_attn.k_proj", kv, a.hidden, a.qkv_bias);
    projection("self_attn.v_proj", kv, a.hidden, a.qkv_bias);
    if (a.head_norms) {
      norm("self_attn.q_norm", a.head_dim);
      norm("self_attn.k_norm", a.head_dim);
    }
    projection("self_attn.o_proj", a.hidden, q, a.output_bias);
    norm("post_attention_layernorm", a.hidden);
    if (a.post_norms) {
      norm("pre_feedforward_layernorm", a.hidden);
      norm("post_feedforward_layernorm", a.hidden);
    }
    projection("mlp.gate_proj", a.intermediate, a.hidden, a.mlp_bias);
    projection("mlp.up_proj", a.intermediate, a.hidden, a.mlp_bias);
    projection("mlp.down_proj", a.hidden, a.intermediate, a.mlp_bias);
  }
  table.push_back({kFinalNormWeight, {a.hidden}});
  if (!a.tied_embeddings) table.push_back({kUnembeddingWeight, {a.vocabulary, a.hidden}});
  return table;
}

int64_t NumParameters(const Architecture& architecture) {
  double count = 0;  // exact below 2^53
  for (const WeightSpec& spec : WeightTable(architecture)) {
    count += std::accumulate(spec.shape.begin(), spec.shape.end(), 1.0, std::multiplies<>());
  }
  return static_cast<int64_t>(std::min(count, 0x1p56));
}

absl::StatusOr<std::unique_ptr<StoredWeights>> StoredWeights::Open(
    const std::string& folder, const Architecture& architecture) {
  auto weights = std::make_unique<StoredWeights>();
  VS_ASSIGN_OR_RETURN(const auto files, WeightFiles(folder));
  for (const auto& [name, promised] : files) {
    VS_ASSIGN_OR_RETURN(auto file, MappedFile::Open(folder, name));
    VS_ASSIGN_OR_RETURN(auto tensors, ParseSafetensors(name, file->bytes()));
    for (const std::string& tensor : promised) {
      if (!tensors.contains(tensor)) {
        return Refused(absl::StrCat("tensor \"", tensor.substr(0, kMaxQuotedName), "\" is not in ",
                                    name, ", where the index says it is"));
      }
    }
    weights->files_.push_back(std::move(file));
    for (auto& [tensor_name, tensor] : tensors) {
      if (!weights->tensors_.emplace(tensor_name, std::move(tensor)).second) {
        return Refused(absl::StrCat("tensor \"", tensor_name, "\" is in two files"));
      }
    }
  }
  VS_RETURN_IF_ERROR(CheckAgainstTable(weights->tensors_, architecture));
  for (const WeightSpec& spec : WeightTable(architecture)) {
    weights->total_bytes_ += weights->tensors_.at(spec.name).bytes.size();
  }
  weights->tied_ = architecture.tied_embeddings;
  return weights;
}

at::Tensor StoredWeights::Get(const std::string& name, c10::ScalarType dtype) const {
  const StoredTensor& stored = tensors_.at(name);
  // safetensors promises no alignment; the copy in `to` or a kernel may rely on it.
  void* data = const_cast<char*>(stored.bytes.data());
  const bool aligned = reinterpret_cast<uintptr_t>(data) % SizeOf(stored.dtype) == 0;
  at::Tensor tensor;
  if (aligned) {
    tensor =
        at::from_blob(data, stored.shape, at::TensorOptions().dtype(ScalarTypeOf(stored.dtype)));
  } else {
    tensor = at::empty(stored.shape, at::TensorOptions().dtype(ScalarTypeOf(stored.dtype)));
    std::memcpy(tensor.data_ptr(), data, stored.bytes.size());
  }
  return tensor.to(dtype);
}

absl::Status StoredWeights::CheckUnchanged() const {
  for (const auto& file : files_) {
    if (!file->IsUnchanged()) {
      return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "MODEL_FILES_CHANGED",
                             "the model's files were written to since its load began; load it "
                             "again once they are complete");
    }
  }
  return absl::OkStatus();
}

absl::Status StoredWeights::Read(const std::string& name) {
  const StoredTensor& tensor = tensors_.at(name);
  // Right behind the digest the bytes are still at hand.
  const std::string digest = Sha256Hex(tensor.bytes);
  if (!AllFinite(tensor)) {
    return Refused(absl::StrCat("tensor \"", name,
                                "\" holds a value that is not finite: every answer of this model "
                                "would be NaN; is the file damaged?"));
  }
  if (tied_ && name == kEmbeddingWeight && tensors_.contains(kUnembeddingWeight)) {
    if (Sha256Hex(tensors_.at(kUnembeddingWeight).bytes) != digest) return NotTied("differs from");
  }
  digests_[name] = digest;
  read_bytes_ += tensor.bytes.size();
  return absl::OkStatus();
}

double StoredWeights::fraction_read() const {
  return static_cast<double>(read_bytes_) / static_cast<double>(total_bytes_);
}

void StoredWeights::Release(const std::string& name) const {
  MappedFile::Release(tensors_.at(name).bytes);
}

std::string StoredWeights::Digest(absl::string_view config_json) const {
  Sha256 digest;
  digest.Update(config_json);
  for (const auto& [name, own] : digests_) {
    const StoredTensor& tensor = tensors_.at(name);
    digest.Update(absl::StrCat("\n", name, " ", NameOf(tensor.dtype), " [",
                               absl::StrJoin(tensor.shape, ", "), "] ", own));
  }
  return digest.HexDigest();
}

}  // namespace valuescope::model
