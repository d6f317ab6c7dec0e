#include <algorithm>
#include <iostream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "arguments.h"
#include "commands.h"
#include "output.h"
#include "output_file.h"
#include "pages.h"
#include "requests.h"

namespace valuescope::command_line {
namespace {

// Of a name that was checked while the command line was parsed.
v1::VectorFormat FormatOf(const std::string& name) {
  return name == "gguf" ? v1::VECTOR_FORMAT_GGUF : v1::VECTOR_FORMAT_SAFETENSORS;
}

// A row for each layer of a vector.
void PrintStatistics(const google::protobuf::RepeatedPtrField<v1::VectorStatistics>& statistics) {
  std::vector<std::vector<std::string>> rows = {
      {"LAYER", "EXPRESSING", "OTHERS", "NORM", "TRUE NORM", "NORM/|X|", "SPLIT-HALF", "AUROC"}};
  for (const v1::VectorStatistics& row : statistics) {
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
}

// A row for each of several vectors; its layers are for --json and for the vector itself.
void PrintValueVectors(const v1::ExtractVectorsResponse& response) {
  std::vector<std::vector<std::string>> rows = {
      {"VALUE", "CONDITIONS", "VECTOR", "EXPRESSING", "OTHERS", "UNLABELLED", "AUROC"}};
  for (const v1::ValueVectorResult& one : response.vectors()) {
    double auroc = 0;
    for (const v1::VectorStatistics& row : one.statistics()) auroc = std::max(auroc, row.auroc());
    rows.push_back({one.value(), absl::StrJoin(one.conditions(), ","),
                    one.has_vector() ? one.vector().name() : one.absence(),
                    absl::StrCat(one.num_expressing()), absl::StrCat(one.num_non_expressing()),
                    absl::StrCat(one.num_unlabelled()),
                    auroc > 0 ? absl::StrFormat("%.3f", auroc) : "-"});
  }
  PrintTable(rows);
  for (const v1::ValueVectorResult& one : response.vectors()) {
    for (const std::string& warning : one.warnings()) {
      std::cerr << one.value() << ": " << warning << "\n";
    }
  }
}

}  // namespace

int ListVectors(const Globals& globals, bool shared) {
  Client client = globals.Connect();
  v1::ListVectorsRequest listing;
  listing.set_shared(shared);
  const auto vectors = AllPages<v1::Vector>(
      listing, [&](const auto& request) { return client.ListVectors(request); },
      [](const auto& page) { return page.vectors(); });
  if (!vectors.ok()) return Fail(vectors.status());
  if (globals.json) return PrintJsonLines(*vectors);
  std::vector<std::vector<std::string>> rows = {
      {"VECTOR", "MODEL", "SITE", "LAYERS", "WIDTH", "OWNER", "NAME"}};
  for (const v1::Vector& vector : *vectors) {
    rows.push_back({vector.name(), vector.model(),
                    LowerWithoutPrefix(v1::Site_Name(vector.site()), "SITE_"),
                    absl::StrCat(vector.layers_size()), absl::StrCat(vector.width()),
                    vector.owner(), vector.display_name()});
  }
  PrintTable(rows);
  return kOk;
}

int ExtractVectors(const Globals& globals, const ExtractFlags& flags) {
  auto request = MakeExtraction(flags);
  if (!request.ok()) return FailUsage(request.status());
  Client client = globals.Connect();
  if (flags.queries.empty()) {
    const int placed = PlaceDataSet(client, flags.data_set, request->mutable_artifact());
    if (placed != kOk) return placed;
  }
  if (flags.job.job) {
    v1::JobSpec spec;
    *spec.mutable_extract_vectors() = *std::move(request);
    return CreateJob(globals, client, std::move(spec), flags.display_name, flags.job);
  }
  const auto response = client.ExtractVectors(*request);
  if (!response.ok()) return Fail(response.status());
  if (globals.json) {
    PrintJson(*response);
    return kOk;
  }
  if (!flags.values.empty()) {
    PrintValueVectors(*response);
  } else {
    std::cout << response->vector().name() << "\n";
    if (!response->responses_artifact().empty()) {
      std::cout << response->responses_artifact() << "\n";
    }
    PrintStatistics(response->statistics());
  }
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

int ImportVectors(const Globals& globals, const ImportFlags& flags) {
  const auto site = ParseSite(flags.site);
  if (!site.ok()) return FailUsage(site.status());
  v1::ImportVectorsHeader header;
  header.set_model(ResourceName("models", flags.model));
  header.set_format(FormatOf(flags.format));
  header.set_site(*site);
  header.set_display_name(flags.display_name);
  v1::GgufConvention convention = v1::GGUF_CONVENTION_UNSPECIFIED;
  v1::GgufConvention_Parse(
      absl::StrCat("GGUF_CONVENTION_", absl::AsciiStrToUpper(flags.convention)), &convention);
  header.set_convention(convention);
  const auto bytes = ReadFile(flags.path);
  if (!bytes.ok()) return FailUsage(bytes.status());
  Client client = globals.Connect();
  const auto response = client.ImportVectors(*bytes, header);
  if (!response.ok()) return Fail(response.status());
  if (globals.json) {
    PrintJson(*response);
    return kOk;
  }
  std::vector<std::vector<std::string>> rows = {{"VECTOR", "LAYER", "TENSOR"}};
  for (const v1::ImportedRow& row : response->rows()) {
    rows.push_back({row.vector(), absl::StrCat(row.layer()), row.tensor()});
  }
  PrintTable(rows);
  return kOk;
}

int ExportVectors(const Globals& globals, const ExportFlags& flags) {
  v1::ExportVectorsRequest request;
  for (const std::string& name : flags.names) request.add_vectors(ResourceName("vectors", name));
  request.set_format(FormatOf(flags.format));
  const auto layers = ParseLayers(flags.layers);
  if (!layers.ok()) return FailUsage(layers.status());
  *request.mutable_layers() = *layers;
  OutputFile file(flags.path);
  if (absl::Status status = file.Open(); !status.ok()) return FailUsage(status);
  Client client = globals.Connect();
  absl::Status status =
      client.ExportVectors(request, [&](const std::string& part) { return file.Write(part); });
  if (status.ok()) status = file.Keep();
  return status.ok() ? kOk : Fail(status);
}

}  // namespace valuescope::command_line
