// The tokens that the files beside tokenizer.json declare, as transformers 5.17 reads them.
//
// Where tokenizer_config.json has an added_tokens_decoder, it alone is read. Where it has none,
// special_tokens_map.json overrides its special tokens and added_tokens.json adds to them.
#ifndef VALUESCOPE_TEXT_DECLARED_TOKENS_H_
#define VALUESCOPE_TEXT_DECLARED_TOKENS_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "text/tokenizer.h"

namespace valuescope::text {

// A file that holds a JSON object; what is not there is an empty one.
struct JsonFile {
  nlohmann::json object = nlohmann::json::object();
  std::vector<std::string> keys;  // of valuescope::ParsePythonJson
};

struct TokenFiles {
  JsonFile tokenizer_config;
  JsonFile special_tokens_map;
  JsonFile added_tokens;
  // The class that transformers makes of the tokenizer ("LlamaTokenizer"), whose defaults are the
  // special tokens that no file names; empty where it has none.
  std::string tokenizer_class;
};

struct DeclaredTokens {
  // The special tokens by name ("bos_token", but also "image_token") that chat templates find as
  // variables.
  std::vector<std::pair<std::string, std::string>> named;
  // In the order in which they are added.
  std::vector<DeclaredToken> tokens;
};

// INVALID_ARGUMENT, naming file and key, where a declaration is malformed or they are too many.
absl::StatusOr<DeclaredTokens> ReadDeclaredTokens(const TokenFiles& files);

}  // namespace valuescope::text

#endif  // VALUESCOPE_TEXT_DECLARED_TOKENS_H_
