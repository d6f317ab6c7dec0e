#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "arguments.h"
#include "commands.h"
#include "output.h"
#include "pages.h"
#include "requests.h"

namespace valuescope::command_line {

int ListVectors(const Globals& globals) {
  Client client = globals.Connect();
  const auto vectors = AllPages<v1::Vector>(
      v1::ListVectorsRequest(), [&](const auto& request) { return client.ListVectors(request); },
      [](const auto& page) { return page.vectors(); });
  if (!vectors.ok()) return Fail(vectors.status());
  if (globals.json) return PrintJsonLines(*vectors);
  std::vector<std::vector<std::string>> rows = {
      {"VECTOR", "MODEL", "SITE", "LAYERS", "WIDTH", "NAME"}};
  for (const v1::Vector& vector : *vectors) {
    rows.push_back(
        {vector.name(), vector.model(), LowerWithoutPrefix(v1::Site_Name(vector.site()), "SITE_"),
         absl::StrCat(vector.layers_size()), absl::StrCat(vector.width()), vector.display_name()});
  }
  PrintTable(rows);
  return kOk;
}

int ExtractVectors(const Globals& globals, const ExtractFlags& flags) {
  const auto layers = ParseLayers(flags.layers);
  if (!layers.ok()) {
    Fail(layers.status());
    return kUsageError;
  }
  Client client = globals.Connect();
  const auto artifact = DataSetArtifact(client, flags.data_set);
  if (!artifact.ok()) return Fail(artifact.status());
  v1::ExtractVectorsRequest request;
  request.set_model(ResourceName("models", flags.model));
  request.set_artifact(*artifact);
  *request.mutable_layers() = *layers;
  request.set_display_name(flags.display_name);
  const auto response = client.ExtractVectors(request);
  if (!response.ok()) return Fail(response.status());
  if (globals.json) {
    PrintJson(*response);
    return kOk;
  }
  std::cout << response->vector().name() << "\n";
  std::vector<std::vector<std::string>> rows = {
      {"LAYER", "EXPRESSING", "OTHERS", "NORM", "TRUE NORM", "NORM/|X|", "SPLIT-HALF", "AUROC"}};
  for (const v1::VectorStatistics& row : response->statistics()) {
    rows.push_back(
        {absl::StrCat(row.layer()), absl::StrCat(row.num_expressing()),
         absl::StrCat(row.num_non_expressing()), absl::StrFormat("%.4g", row.norm()),
         row.has_squared_norm_interval() ? absl::StrFormat("%.4g-%.4g", row.norm_interval().lower(),
                                                           row.norm_interval().upper())
                                         : "-",
         row.has_relative_norm() ? absl::StrFormat("%.3g", row.relative_norm()) : "-",
         row.has_split_half_cosine() ? absl::StrFormat("%.3f", row.split_half_cosine()) : "-",
         row.has_auroc() ? absl::StrFormat("%.3f", row.auroc()) : "-"});
  }
  PrintTable(rows);
  PrintWarnings(response->warnings());
  return kOk;
}

int DecomposeVectors(const Globals& globals, const std::string& intrinsic,
                     const std::string& prompted) {
  v1::DecomposeVectorsRequest request;
  v1::VectorPair& pair = *request.add_pairs();
  pair.set_intrinsic(ResourceName("vectors", intrinsic));
  pair.set_prompted(ResourceName("vectors", prompted));
  Client client = globals.Connect();
  const auto response = client.DecomposeVectors(request);
  if (!response.ok()) return Fail(response.status());
  if (globals.json) {
    PrintJson(*response);
    return kOk;
  }
  const v1::PairDecomposition& parts = response->decompositions(0);
  PrintTable({{"shared axis", parts.shared().name()},
              {"difference axis", parts.difference().name()},
              {"intrinsic, orthogonalised", parts.intrinsic_orthogonal().name()},
              {"prompted, orthogonalised", parts.prompted_orthogonal().name()}});
  std::vector<std::vector<std::string>> rows = {{"LAYER", "COSINE", "NORM KEPT", "S1", "S2"}};
  for (const v1::LayerDecomposition& layer : parts.layers()) {
    rows.push_back({absl::StrCat(layer.layer()), absl::StrFormat("%.3f", layer.cosine()),
                    absl::StrFormat("%.3f", layer.retained_norm_fraction()),
                    absl::StrFormat("%.4g", layer.singular_value_shared()),
                    absl::StrFormat("%.4g", layer.singular_value_difference())});
  }
  PrintTable(rows);
  PrintWarnings(parts.warnings());
  PrintWarnings(response->warnings());
  return kOk;
}

}  // namespace valuescope::command_line
