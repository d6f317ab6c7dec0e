// Every decoder that Hugging Face transformers' tokenizers have, over one vocabulary of awkward
// pieces (tests/golden/make_decoders.py).
#ifndef VALUESCOPE_TESTS_TEXT_EVERY_DECODER_H_
#define VALUESCOPE_TESTS_TEXT_EVERY_DECODER_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/text/small_tokenizers.h"
#include "text/tokenizer.h"

namespace valuescope::text {

class EveryDecoder : public ::testing::Test {
 protected:
  EveryDecoder() {
    std::ifstream(VALUESCOPE_SOURCE_DIR "/tests/golden/text/decoders.json") >> golden_;
    pieces_ = golden_["vocabulary"].get<std::vector<std::string>>();
    words_ = IdOf("<0x00>");
  }

  const nlohmann::json& decoders() const { return golden_["decoders"]; }

  std::unique_ptr<Tokenizer> TokenizerNamed(const std::string& name) const {
    for (const nlohmann::json& entry : decoders()) {
      if (entry["name"] == name) return TokenizerOf(entry);
    }
    ADD_FAILURE() << "no decoder " << name;
    return nullptr;
  }

  std::unique_ptr<Tokenizer> TokenizerOf(const nlohmann::json& entry) const {
    nlohmann::json vocabulary;
    for (size_t i = 0; i < pieces_.size(); ++i) vocabulary[pieces_[i]] = i;
    nlohmann::json file = TokenizerFile(/*bos_id=*/0);
    file["added_tokens"] = nlohmann::json::array();
    for (const bool special : {true, false}) {
      for (const std::string text : golden_[special ? "special" : "added"]) {
        file["added_tokens"].push_back(Added(IdOf(text), text, special));
      }
    }
    file["decoder"] = entry["decoder"];
    file["model"] = {{"type", "WordLevel"}, {"vocab", vocabulary}, {"unk_token", "b"}};
    auto tokenizer = Tokenizer::Load(file.dump());
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    if (entry["clean_up"].get<bool>()) (*tokenizer)->CleanUpSpaces();
    return *std::move(tokenizer);
  }

  int32_t IdOf(const std::string& piece) const {
    const auto found = std::find(pieces_.begin(), pieces_.end(), piece);
    EXPECT_NE(found, pieces_.end()) << piece;
    return static_cast<int32_t>(found - pieces_.begin());
  }

  std::vector<int32_t> IdsOf(const std::vector<std::string>& pieces) const {
    std::vector<int32_t> ids;
    for (const std::string& piece : pieces) ids.push_back(IdOf(piece));
    return ids;
  }

  // Words mostly, some without a token; single bytes; the bytes of a character as tokens.
  std::vector<int32_t> Draw(std::mt19937& random, size_t count) const {
    std::vector<int32_t> ids;
    while (ids.size() < count) {
      const uint32_t kind = random() % 8;
      if (kind < 5) {
        ids.push_back(static_cast<int32_t>(random() % words_));
      } else if (kind == 5) {
        ids.push_back(static_cast<int32_t>(random() % (pieces_.size() + 4)));
      } else if (kind == 6) {
        for (const char* byte : {"<0xE2>", "<0x82>", "<0xAC>", "<0x0A>"}) {
          if (random() % 8 > 0) ids.push_back(IdOf(byte));
        }
      } else {
        for (const char* byte : {"\u00e2", "\u0124", "\u00ac"}) {
          if (random() % 8 > 0) ids.push_back(IdOf(byte));
        }
      }
    }
    return ids;
  }

  nlohmann::json golden_;
  std::vector<std::string> pieces_;
  int32_t words_ = 0;  // single bytes come behind them
};

}  // namespace valuescope::text

#endif  // VALUESCOPE_TESTS_TEXT_EVERY_DECODER_H_
