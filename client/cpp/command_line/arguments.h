// The small languages of the command line: layers ("14", "10-14", "3,5,7-9", "all"), steering
// ("NAME:coefficient@layers"), sites, scopes and reductions by their names. Everything a person
// mistypes comes back as a sentence that shows what is allowed.
#ifndef VALUESCOPE_COMMAND_LINE_ARGUMENTS_H_
#define VALUESCOPE_COMMAND_LINE_ARGUMENTS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::command_line {

// "14", "10-14", "3,5,7-9" or "all".
absl::StatusOr<v1::Layers> ParseLayers(absl::string_view text);

// "vectors/ID:6@14" or "file:PATH.f32:6@10-14". The file holds little-endian float32 numbers: one
// row, or one row a layer. `scope` is the name of a token kind, such as "from_last_prompt".
absl::StatusOr<v1::Intervention> ParseSteering(absl::string_view text, absl::string_view scope);

// Lower-case names without their prefix: "residual_post", "from_last_prompt", "mean".
absl::StatusOr<v1::Site> ParseSite(absl::string_view name);
absl::StatusOr<v1::TokenKind> ParseTokenKind(absl::string_view name);
absl::StatusOr<v1::Reduction> ParseReduction(absl::string_view name);

// "x" or "models/x" -> "models/x".
std::string ResourceName(absl::string_view collection, absl::string_view name);

// A file's bytes; "-" is standard input.
absl::StatusOr<std::string> ReadFile(const std::string& path);

}  // namespace valuescope::command_line

#endif  // VALUESCOPE_COMMAND_LINE_ARGUMENTS_H_
