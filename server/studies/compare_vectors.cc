#include "studies/compare_vectors.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "analysis/token_scores.h"
#include "analysis/vector_cosines.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::studies {
namespace {

absl::Status CheckComparable(const std::vector<NamedVector>& vectors) {
  const StoredVector& first = *vectors.front().vector;
  for (size_t i = 1; i < vectors.size(); ++i) {
    const StoredVector& vector = *vectors[i].vector;
    const std::string field = absl::StrCat("vectors[", i, "]");
    if (vector.record.model_digest() != first.record.model_digest()) {
      return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "WRONG_MODEL",
                             absl::StrCat(field, " is a vector of another model than vectors[0]"));
    }
    if (vector.site() != first.site() || vector.width() != first.width()) {
      return InvalidField(field, "is a vector of another site or width than vectors[0]",
                          "WRONG_SITE");
    }
  }
  return absl::OkStatus();
}

std::span<const float> RowAt(const StoredVector& vector, int layer) {
  return vector.row(model::IsPerLayer(vector.site()) ? *vector.RowOfLayer(layer) : 0);
}

analysis::ComparedRow ComparedRowAt(const StoredVector& vector, int layer) {
  analysis::ComparedRow compared;
  compared.row = RowAt(vector, layer);
  for (const v1::VectorStatistics& row : vector.record.statistics()) {
    if (row.layer() != layer) continue;
    if (row.has_split_half_cosine()) compared.split_half_cosine = row.split_half_cosine();
    if (row.has_reliability()) compared.reliability = row.reliability();
  }
  return compared;
}

v1::VectorCosine CosineToProto(const std::string& first, const std::string& second, int layer,
                               const analysis::RowComparison& compared) {
  v1::VectorCosine cosine;
  cosine.set_first(first);
  cosine.set_second(second);
  cosine.set_layer(layer);
  if (compared.cosine) cosine.set_cosine(*compared.cosine);
  if (compared.disattenuated_cosine) {
    cosine.set_disattenuated_cosine(*compared.disattenuated_cosine);
  }
  if (compared.noise_floor) cosine.set_noise_floor(*compared.noise_floor);
  return cosine;
}

void AddTokensToProto(const std::vector<analysis::ScoredToken>& tokens,
                      const std::function<std::string(int32_t id)>& piece,
                      google::protobuf::RepeatedPtrField<v1::TokenScore>* protos) {
  for (const analysis::ScoredToken& token : tokens) {
    v1::TokenScore& proto = *protos->Add();
    proto.set_token_id(token.id);
    proto.set_piece(piece(token.id));
    proto.set_score(token.score);
  }
}

}  // namespace

bool IsResidual(model::Site site) {
  switch (site) {
    case model::Site::kEmbedding:
    case model::Site::kResidualPre:
    case model::Site::kResidualMid:
    case model::Site::kResidualPost:
      return true;
    default:
      return false;
  }
}

absl::StatusOr<std::vector<v1::VectorCosine>> CompareVectors(
    const std::vector<NamedVector>& vectors, const std::vector<int>& layers,
    const Cancellation& cancellation) {
  if (vectors.empty()) return InvalidField("vectors", "must not be empty");
  VS_RETURN_IF_ERROR(CheckComparable(vectors));
  std::vector<v1::VectorCosine> cosines(vectors.size() * (vectors.size() - 1) / 2 * layers.size());
  for (size_t l = 0; l < layers.size(); ++l) {
    VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
    std::vector<analysis::ComparedRow> rows;
    for (const NamedVector& each : vectors) rows.push_back(ComparedRowAt(*each.vector, layers[l]));
    const std::vector<analysis::RowComparison> compared = analysis::CompareRows(rows);
    size_t pair = 0;
    for (size_t i = 0; i < vectors.size(); ++i) {
      for (size_t j = i + 1; j < vectors.size(); ++j, ++pair) {
        cosines[pair * layers.size() + l] =
            CosineToProto(vectors[i].name, vectors[j].name, layers[l], compared[pair]);
      }
    }
  }
  return cosines;
}

absl::StatusOr<std::vector<v1::VectorTokens>> TokensOfVectors(
    const std::vector<NamedVector>& vectors, const std::vector<int>& layers, int count,
    const engine::Engine& engine, const std::function<std::string(int32_t id)>& piece,
    const Cancellation& cancellation) {
  const int64_t hidden = engine.architecture().hidden;
  const int64_t vocabulary = engine.architecture().vocabulary;
  std::vector<float> directions;  // [vectors x layers, hidden]
  directions.reserve(vectors.size() * layers.size() * static_cast<size_t>(hidden));
  for (const NamedVector& each : vectors) {
    for (const int layer : layers) {
      const std::span<const float> row = RowAt(*each.vector, layer);
      directions.insert(directions.end(), row.begin(), row.end());
    }
  }
  std::vector<analysis::ExtremeScores> scores(vectors.size() * layers.size(),
                                              analysis::ExtremeScores(static_cast<size_t>(count)));
  // Some tenths of a second lie between two looks at `cancellation`.
  constexpr int64_t kProducts = int64_t{1} << 30;
  const int64_t part = std::max<int64_t>(
      1, std::min(kUnembeddingBytes / (hidden * static_cast<int64_t>(sizeof(float))),
                  kProducts / static_cast<int64_t>(directions.size())));
  for (int64_t first = 0; first < vocabulary; first += part) {
    VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
    VS_ASSIGN_OR_RETURN(const HostTensor rows,  // [part, hidden]
                        engine.UnembeddingRows(first, std::min(part, vocabulary - first)));
    analysis::AddTokens(rows.As<float>(), directions, hidden, static_cast<int32_t>(first), scores);
  }
  std::vector<v1::VectorTokens> tokens(scores.size());
  for (size_t i = 0; i < scores.size(); ++i) {
    tokens[i].set_vector(vectors[i / layers.size()].name);
    tokens[i].set_layer(layers[i % layers.size()]);
    const auto row = std::span<const float>(directions)
                         .subspan(i * static_cast<size_t>(hidden), static_cast<size_t>(hidden));
    // All tokens score alike; the first of them would be no finding.
    if (std::all_of(row.begin(), row.end(), [](float x) { return x == 0; })) continue;
    AddTokensToProto(scores[i].Largest(), piece, tokens[i].mutable_top());
    AddTokensToProto(scores[i].Smallest(), piece, tokens[i].mutable_bottom());
  }
  return tokens;
}

}  // namespace valuescope::studies
