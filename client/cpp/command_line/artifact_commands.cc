#include <iostream>

#include "absl/strings/str_cat.h"
#include "arguments.h"
#include "commands.h"
#include "output.h"
#include "output_file.h"
#include "pages.h"

namespace valuescope::command_line {

int ListArtifacts(const Globals& globals) {
  Client client = globals.Connect();
  const auto artifacts = AllPages<v1::Artifact>(
      v1::ListArtifactsRequest(),
      [&](const auto& request) { return client.ListArtifacts(request); },
      [](const auto& page) { return page.artifacts(); });
  if (!artifacts.ok()) return Fail(artifacts.status());
  if (globals.json) return PrintJsonLines(*artifacts);
  std::vector<std::vector<std::string>> rows = {{"ARTIFACT", "TYPE", "BYTES", "SHA-256", "NAME"}};
  for (const v1::Artifact& artifact : *artifacts) {
    rows.push_back({artifact.name(), artifact.media_type(), absl::StrCat(artifact.size_bytes()),
                    ShortDigest(artifact.sha256()), artifact.display_name()});
  }
  PrintTable(rows);
  return kOk;
}

int WriteArtifact(const Globals& globals, const std::string& path, const std::string& media_type) {
  const auto bytes = ReadFile(path);
  if (!bytes.ok()) return FailUsage(bytes.status());
  v1::WriteArtifactHeader header;
  header.set_media_type(media_type);
  header.set_display_name(path.substr(path.find_last_of('/') + 1));
  Client client = globals.Connect();
  const auto artifact = client.WriteArtifact(*bytes, header);
  if (!artifact.ok()) return Fail(artifact.status());
  if (globals.json) {
    PrintJson(*artifact);
  } else {
    std::cout << artifact->name() << "\n";
  }
  return kOk;
}

int ReadArtifact(const Globals& globals, const std::string& name, const std::string& path) {
  OutputFile file(path);
  if (absl::Status status = file.Open(); !status.ok()) return FailUsage(status);
  Client client = globals.Connect();
  const auto artifact = client.ReadArtifact(
      ResourceName("artifacts", name), [&](const std::string& bytes) { return file.Write(bytes); });
  if (!artifact.ok()) return Fail(artifact.status());
  if (absl::Status status = file.Keep(); !status.ok()) return Fail(status);
  if (globals.json && !file.is_standard_output()) PrintJson(*artifact);
  return kOk;
}

}  // namespace valuescope::command_line
