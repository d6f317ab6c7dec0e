#include "model/weights.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "model/device_types.h"
#include "observability/log.h"

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
    Bits bits;
    std::memcpy(&bits, bytes.data() + i, sizeof(bits));
    finite &= (bits & exponent) != exponent;
  }
  return finite;
}

bool AllFinite(absl::string_view bytes, DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return AllFinite<uint32_t>(bytes, 0x7f800000);
    case DType::kFloat16:
      return AllFinite<uint16_t>(bytes, 0x7c00);
    case DType::kBFloat16:
      return AllFinite<uint16_t>(bytes, 0x7f80);
    default:
      return true;  // the table allows no others
  }
}

absl::string_view BytesOf(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()};
}

// A tied unembedding that was written out again says the same as the embedding, or one of them
// would silently win.
absl::Status NotTied(absl::string_view why) {
  return Refused(absl::StrCat("tensor \"", kUnembeddingWeight, "\" ", why,
                              " the embedding, but config.json ties them: where the head was "
                              "trained, set its \"tie_word_embeddings\" to false"));
}

using Tensors = std::map<std::string, TensorInFile>;

// Its name in the table, of a tensor of a folder that was saved from the model within
// ("layers.0...") or from a model around it ("model.model.layers.0...").
std::string NameInTable(const std::string& name, const std::set<std::string>& table) {
  constexpr absl::string_view kPrefix = "model.";
  if (absl::StartsWith(name, kPrefix) && table.contains(name.substr(kPrefix.size()))) {
    return name.substr(kPrefix.size());
  }
  const std::string with = absl::StrCat(kPrefix, name);
  return table.contains(with) ? with : name;
}

absl::StatusOr<Tensors> NamedAsInTable(Tensors tensors, const std::set<std::string>& table,
                                       bool tied) {
  Tensors named;
  for (auto& [name, tensor] : tensors) {
    const std::string own = NameInTable(name, table);
    if (!named.emplace(own, std::move(tensor)).second) {
      return Refused(absl::StrCat("tensor \"", own,
                                  "\" is there twice, with and without the "
                                  "prefix \"model.\": remove the one that is not the model's"));
    }
  }
  // What is tied may be stored under either name.
  if (tied && !named.contains(kEmbeddingWeight) && named.contains(kUnembeddingWeight)) {
    auto head = named.extract(kUnembeddingWeight);
    head.key() = kEmbeddingWeight;
    named.insert(std::move(head));
  }
  return named;
}

// What is stored beside a language model and is no part of it: tables of rotations and masks, which
// older versions saved, and the heads of classifiers, rewards and values. transformers ignores
// these too; of any other tensor it says that it may be ignored, but one that a model was trained
// with would be missing from every answer.
bool IsBeside(absl::string_view name) {
  for (const char* part : {"rotary_emb.", "causal_mask"}) {
    if (absl::StrContains(name, part)) return true;
  }
  for (const char* end : {"attn.bias", "attn.masked_bias", "position_ids"}) {
    if (absl::EndsWith(name, end)) return true;
  }
  for (const char* head : {"score.", "v_head.", "value_head.", "classifier.", "qa_outputs."}) {
    if (absl::StartsWith(name, head)) return true;
  }
  return false;
}

absl::Status Missing(const std::string& name) {
  const absl::string_view hint = name == kUnembeddingWeight
                                     ? ": where the embedding serves as the head, set "
                                       "\"tie_word_embeddings\" of config.json to true"
                                     : "";
  return Refused(absl::StrCat("tensor \"", name, "\" is missing", hint));
}

absl::Status CheckAgainstTable(const Tensors& tensors, const Architecture& architecture) {
  std::set<std::string> known;
  for (const WeightSpec& spec : WeightTable(architecture)) {
    known.insert(spec.name);
    const auto found = tensors.find(spec.name);
    if (found == tensors.end()) return Missing(spec.name);
    const TensorPlace& place = found->second.place;
    if (place.shape != spec.shape) {
      return Refused(absl::StrCat("tensor \"", spec.name, "\" has the shape [",
                                  absl::StrJoin(place.shape, ", "), "], config.json asks for [",
                                  absl::StrJoin(spec.shape, ", "), "]"));
    }
    const DType dtype = place.dtype;
    if (dtype != DType::kFloat32 && dtype != DType::kFloat16 && dtype != DType::kBFloat16) {
      return Refused(absl::StrCat("tensor \"", spec.name, "\" is ", NameOf(dtype),
                                  ", served are float32, float16 and bfloat16"));
    }
  }
  // Some exporters write the tied unembedding out again.
  for (const auto& [name, tensor] : tensors) {
    const bool redundant = architecture.tied_embeddings && name == kUnembeddingWeight;
    if (!known.contains(name) && !redundant && !IsBeside(name)) {
      return Refused(absl::StrCat("tensor \"", name.substr(0, kMaxQuotedName),
                                  "\" is unknown to this model: does config.json belong to it?"));
    }
  }
  const auto unembedding = tensors.find(kUnembeddingWeight);
  if (known.contains(kUnembeddingWeight) || unembedding == tensors.end()) return absl::OkStatus();
  const TensorPlace& head = unembedding->second.place;
  const TensorPlace& embedding = tensors.at(kEmbeddingWeight).place;
  const bool same = head.dtype == embedding.dtype && head.shape == embedding.shape;
  return same ? absl::OkStatus() : NotTied("has another shape or type than");
}

void LogIgnored(const std::string& folder, const Tensors& tensors) {
  int64_t count = 0;
  std::string first;
  for (const auto& [name, tensor] : tensors) {
    if (IsBeside(name) && count++ == 0) first = name.substr(0, kMaxQuotedName);
  }
  if (count == 0) return;
  observability::Log(observability::LogLevel::kWarning, "model tensors ignored",
                     {{"model", std::filesystem::path(folder).filename().string()},
                      {"count", count},
                      {"first", first}});
}

std::set<std::string> NamesOf(const Architecture& architecture) {
  std::set<std::string> names = {kUnembeddingWeight};
  for (const WeightSpec& spec : WeightTable(architecture)) names.insert(spec.name);
  return names;
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
  Tensors& tensors = weights->tensors_;
  for (const auto& [name, promised] : files) {
    VS_ASSIGN_OR_RETURN(auto file, ModelFile::Open(folder, name));
    VS_ASSIGN_OR_RETURN(auto places, ReadTensorPlaces(*file));
    for (const std::string& tensor : promised) {
      if (!places.contains(tensor)) {
        return Refused(absl::StrCat("tensor \"", tensor.substr(0, kMaxQuotedName), "\" is not in ",
                                    name, ", where the index says it is"));
      }
    }
    for (auto& [tensor_name, place] : places) {
      const TensorInFile tensor = {.place = std::move(place), .file = file.get()};
      if (!tensors.emplace(tensor_name, tensor).second) {
        return Refused(absl::StrCat("tensor \"", tensor_name, "\" is in two files"));
      }
    }
    weights->files_.push_back(std::move(file));
  }
  VS_ASSIGN_OR_RETURN(tensors, NamedAsInTable(std::move(tensors), NamesOf(architecture),
                                              architecture.tied_embeddings));
  VS_RETURN_IF_ERROR(CheckAgainstTable(tensors, architecture));
  LogIgnored(folder, tensors);
  for (const WeightSpec& spec : WeightTable(architecture)) {
    weights->total_bytes_ += tensors.at(spec.name).place.size;
  }
  weights->tied_ = architecture.tied_embeddings;
  return weights;
}

absl::Status StoredWeights::CheckUnchanged() const {
  for (const auto& file : files_) {
    if (!file->IsUnchanged()) return ModelFilesChanged();
  }
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> StoredWeights::ReadTensor(const std::string& name) const {
  const auto& [place, file] = tensors_.at(name);
  at::Tensor tensor = at::empty(place.shape, at::TensorOptions().dtype(ScalarTypeOf(place.dtype)));
  VS_RETURN_IF_ERROR(
      file->Read(place.offset, place.size, static_cast<char*>(tensor.mutable_data_ptr())));
  return tensor;
}

absl::StatusOr<at::Tensor> StoredWeights::ReadAgain(const std::string& name,
                                                    c10::ScalarType dtype) const {
  VS_ASSIGN_OR_RETURN(const at::Tensor tensor, ReadTensor(name));
  return tensor.to(dtype);
}

absl::StatusOr<at::Tensor> StoredWeights::ReadRowsAgain(const std::string& name, int64_t first,
                                                        int64_t count,
                                                        c10::ScalarType dtype) const {
  const auto& [place, file] = tensors_.at(name);
  VS_CHECK(place.shape.size() == 2 && first >= 0 && count >= 0 && first + count <= place.shape[0]);
  at::Tensor rows =
      at::empty({count, place.shape[1]}, at::TensorOptions().dtype(ScalarTypeOf(place.dtype)));
  const int64_t row_bytes = place.size / place.shape[0];
  VS_RETURN_IF_ERROR(file->Read(place.offset + first * row_bytes, count * row_bytes,
                                static_cast<char*>(rows.mutable_data_ptr())));
  return rows.to(dtype);
}

at::Tensor StoredWeights::Get(const std::string& name, c10::ScalarType dtype) const {
  const auto held = held_.find(name);
  VS_CHECK(held != held_.end());
  return held->second.to(dtype);
}

absl::Status StoredWeights::Read(const std::string& name) {
  VS_ASSIGN_OR_RETURN(at::Tensor tensor, ReadTensor(name));
  const TensorPlace& place = tensors_.at(name).place;
  // Right behind the digest the bytes are still at hand.
  const std::string digest = Sha256Hex(BytesOf(tensor));
  if (!AllFinite(BytesOf(tensor), place.dtype)) {
    return Refused(absl::StrCat("tensor \"", name,
                                "\" holds a value that is not finite: every answer of this model "
                                "would be NaN; is the file damaged?"));
  }
  held_[name] = std::move(tensor);
  if (tied_ && name == kEmbeddingWeight && tensors_.contains(kUnembeddingWeight)) {
    VS_ASSIGN_OR_RETURN(const at::Tensor copy, ReadTensor(kUnembeddingWeight));
    if (Sha256Hex(BytesOf(copy)) != digest) return NotTied("differs from");
  }
  digests_[name] = digest;
  read_bytes_ += place.size;
  return absl::OkStatus();
}

void StoredWeights::Release(const std::string& name) { held_.erase(name); }

double StoredWeights::fraction_read() const {
  return static_cast<double>(read_bytes_) / static_cast<double>(total_bytes_);
}

std::string StoredWeights::Digest(absl::string_view config_json) const {
  Sha256 digest;
  digest.Update(config_json);
  for (const auto& [name, own] : digests_) {
    const TensorPlace& tensor = tensors_.at(name).place;
    digest.Update(absl::StrCat("\n", name, " ", NameOf(tensor.dtype), " [",
                               absl::StrJoin(tensor.shape, ", "), "] ", own));
  }
  return digest.HexDigest();
}

}  // namespace valuescope::model
