#include <iostream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "arguments.h"
#include "commands.h"
#include "output.h"
#include "output_file.h"
#include "pages.h"

namespace valuescope::command_line {

int ListArtifacts(const Globals& globals, bool shared) {
  Client client = globals.Connect();
  v1::ListArtifactsRequest listing;
  listing.set_shared(shared);
  const auto artifacts = AllPages<v1::Artifact>(
      listing, [&](const auto& request) { return client.ListArtifacts(request); },
      [](const auto& page) { return page.artifacts(); });
  if (!artifacts.ok()) return Fail(artifacts.status());
  if (globals.json) return PrintJsonLines(*artifacts);
  std::vector<std::vector<std::string>> rows = {
      {"ARTIFACT", "TYPE", "BYTES", "SHA-256", "OWNER", "NAME"}};
  for (const v1::Artifact& artifact : *artifacts) {
    rows.push_back({artifact.name(), artifact.media_type(), absl::StrCat(artifact.size_bytes()),
                    ShortDigest(artifact.sha256()), artifact.owner(), artifact.display_name()});
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

namespace {

// Of names that were checked while the command line was parsed.
v1::ReadTableRequest TableRequest(const ReadFlags& flags) {
  v1::ReadTableRequest request;
  request.set_artifact(ResourceName("artifacts", flags.name));
  request.set_format(flags.format == "arrow_stream" ? v1::TABLE_FORMAT_ARROW_STREAM
                                                    : v1::TABLE_FORMAT_ARROW_FILE);
  v1::LineType line_type = v1::LINE_TYPE_UNSPECIFIED;
  v1::LineType_Parse(absl::StrCat("LINE_TYPE_", absl::AsciiStrToUpper(flags.lines)), &line_type);
  request.set_line_type(line_type);
  return request;
}

}  // namespace

int ReadArtifact(const Globals& globals, const ReadFlags& flags) {
  if (flags.format == "stored" && !flags.lines.empty()) {
    return FailUsage(absl::InvalidArgumentError("--lines: goes with --format arrow"));
  }
  OutputFile file(flags.path);
  if (absl::Status status = file.Open(); !status.ok()) return FailUsage(status);
  Client client = globals.Connect();
  const auto sink = [&](const std::string& bytes) { return file.Write(bytes); };
  const auto finish = [&](const auto& read) {
    if (!read.ok()) return Fail(read.status());
    if (absl::Status status = file.Keep(); !status.ok()) return Fail(status);
    if (globals.json && !file.is_standard_output()) PrintJson(*read);
    return static_cast<int>(kOk);
  };
  if (flags.format == "stored") {
    return finish(client.ReadArtifact(ResourceName("artifacts", flags.name), sink));
  }
  return finish(client.ReadTable(TableRequest(flags), sink));
}

}  // namespace valuescope::command_line
