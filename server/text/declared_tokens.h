// The tokens that tokenizer_config.json declares beside those of tokenizer.json, as transformers
// reads them.
#ifndef VALUESCOPE_TEXT_DECLARED_TOKENS_H_
#define VALUESCOPE_TEXT_DECLARED_TOKENS_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"
#include "text/tokenizer.h"

namespace valuescope::text {

// The special tokens by name ("bos_token", but also "image_token") that chat templates find as
// variables. Those that tokenizer_config.json lacks are read from special_tokens_map.json.
std::vector<std::pair<std::string, std::string>> NamedSpecialTokens(
    const nlohmann::json& tokenizer_config, const nlohmann::json& special_tokens_map);

// added_tokens_decoder by id, then the named special tokens, then extra_special_tokens (once called
// additional_special_tokens). INVALID_ARGUMENT where one of these is malformed or they are too
// many.
absl::StatusOr<std::vector<DeclaredToken>> DeclaredTokens(
    const nlohmann::json& tokenizer_config,
    const std::vector<std::pair<std::string, std::string>>& named);

}  // namespace valuescope::text

#endif  // VALUESCOPE_TEXT_DECLARED_TOKENS_H_
