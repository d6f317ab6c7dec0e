#include <iostream>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "arguments.h"
#include "commands.h"
#include "output.h"
#include "requests.h"

namespace valuescope::command_line {
namespace {

std::string OrDash(bool known, double number) {
  return known ? absl::StrFormat("%.3f", number) : "-";
}

// "stimulation:vectors/A:vectors/B".
absl::StatusOr<v1::VectorPair> ParsePair(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  if (parts.size() != 3 || parts[1].empty() || parts[2].empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text, "\" must be VALUE:INTRINSIC:PROMPTED, two vectors"));
  }
  v1::VectorPair pair;
  pair.set_value(parts[0]);
  pair.set_intrinsic(ResourceName("vectors", parts[1]));
  pair.set_prompted(ResourceName("vectors", parts[2]));
  return pair;
}

std::string ShownTokens(const google::protobuf::RepeatedPtrField<v1::TokenScore>& tokens) {
  return absl::StrJoin(tokens, " ", [](std::string* out, const v1::TokenScore& token) {
    absl::StrAppend(out, token.piece(), absl::StrFormat("(%.3g)", token.score()));
  });
}

void PrintTokens(const v1::CompareVectorsResponse& response) {
  if (response.tokens().empty()) return;
  std::vector<std::vector<std::string>> rows = {{"VECTOR", "LAYER", "FOR", "AGAINST"}};
  for (const v1::VectorTokens& row : response.tokens()) {
    rows.push_back({row.vector(), absl::StrCat(row.layer()), ShownTokens(row.top()),
                    ShownTokens(row.bottom())});
  }
  PrintTable(rows);
}

// A layer whose points are all one has no circumplex.
std::vector<std::string> RowOf(const v1::MeanDelta& delta, const v1::Circumplex* circle) {
  std::vector<std::string> row = {absl::StrCat(delta.layer()),
                                  absl::StrFormat("%.4g", delta.norm()),
                                  absl::StrFormat("%.3f", delta.explained_variance()),
                                  absl::StrFormat("%.3f", delta.mean_pairwise_cosine())};
  for (const auto number :
       {&v1::Circumplex::r_squared, &v1::Circumplex::null_mean,
        &v1::Circumplex::null_95th_percentile, &v1::Circumplex::null_p_value,
        &v1::Circumplex::permutation_p_value, &v1::Circumplex::plane_variance_share}) {
    row.push_back(OrDash(circle != nullptr, circle == nullptr ? 0 : (circle->*number)()));
  }
  return row;
}

}  // namespace

int CompareVectors(const Globals& globals, const CompareFlags& flags) {
  const auto layers = ParseLayers(flags.layers);
  if (!layers.ok()) return FailUsage(layers.status());
  v1::CompareVectorsRequest request;
  for (const std::string& name : flags.names) request.add_vectors(ResourceName("vectors", name));
  *request.mutable_layers() = *layers;
  request.set_top_tokens(flags.top_tokens);
  Client client = globals.Connect();
  const auto response = client.CompareVectors(request);
  if (!response.ok()) return Fail(response.status());
  if (globals.json) {
    PrintJson(*response);
    return kOk;
  }
  std::vector<std::vector<std::string>> rows = {
      {"FIRST", "SECOND", "LAYER", "COSINE", "DISATTENUATED", "NOISE FLOOR"}};
  for (const v1::VectorCosine& one : response->cosines()) {
    rows.push_back({one.first(), one.second(), absl::StrCat(one.layer()),
                    OrDash(one.has_cosine(), one.cosine()),
                    OrDash(one.has_disattenuated_cosine(), one.disattenuated_cosine()),
                    OrDash(one.has_noise_floor(), one.noise_floor())});
  }
  if (rows.size() > 1) PrintTable(rows);
  PrintTokens(*response);
  return kOk;
}

int CompareValues(const Globals& globals, const ValuesFlags& flags) {
  v1::DecomposeVectorsRequest request;
  for (const std::string& text : flags.pairs) {
    const auto pair = ParsePair(text);
    if (!pair.ok()) return FailUsage(pair.status());
    *request.add_pairs() = *pair;
  }
  const auto layers = ParseLayers(flags.layers);
  if (!layers.ok()) return FailUsage(layers.status());
  *request.mutable_layers() = *layers;
  request.set_unit_deltas(flags.unit_deltas);
  v1::CircumplexAngles angles = v1::CIRCUMPLEX_ANGLES_UNSPECIFIED;
  v1::CircumplexAngles_Parse(
      absl::StrCat("CIRCUMPLEX_ANGLES_", absl::AsciiStrToUpper(flags.angles)), &angles);
  if (flags.angles != "none") {
    v1::CircumplexOptions& circumplex = *request.mutable_circumplex();
    circumplex.set_angles(angles);
    if (flags.null_samples) circumplex.set_null_samples(*flags.null_samples);
    if (flags.seed) circumplex.set_seed(*flags.seed);
  } else if (flags.null_samples || flags.seed) {
    return FailUsage(absl::InvalidArgumentError(
        "--null_samples and --seed go with a circumplex, not with --angles none"));
  }
  Client client = globals.Connect();
  const auto response = client.DecomposeVectors(request);
  if (!response.ok()) return Fail(response.status());
  if (globals.json) {
    PrintJson(*response);
    return kOk;
  }
  PrintTable({{"mean delta", response->mean_delta().name()}});
  std::map<int, const v1::Circumplex*> circles;
  for (const v1::Circumplex& circle : response->circumplexes()) circles[circle.layer()] = &circle;
  std::vector<std::vector<std::string>> rows = {{"LAYER", "DELTA", "EXPLAINED", "PAIR COSINE",
                                                 "CIRCLE R2", "RANDOM", "RANDOM 95%", "P RANDOM",
                                                 "P PERMUTED", "IN PLANE"}};
  for (const v1::MeanDelta& delta : response->mean_deltas()) {
    rows.push_back(RowOf(delta, circles[delta.layer()]));
  }
  PrintTable(rows);
  for (const v1::PairDecomposition& pair : response->decompositions()) {
    PrintWarnings(pair.warnings());
  }
  PrintWarnings(response->warnings());
  return kOk;
}

}  // namespace valuescope::command_line
