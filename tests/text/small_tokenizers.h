// Small tokenizer files: of the kinds that models use GPT-2's byte-level BPE and the SentencePiece
// kind with byte fallback, which put a BOS before plain text, and one of whole words.
#ifndef VALUESCOPE_TESTS_TEXT_SMALL_TOKENIZERS_H_
#define VALUESCOPE_TESTS_TEXT_SMALL_TOKENIZERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"

namespace valuescope::text {

inline std::string Utf8(uint32_t code_point) {  // below U+0800
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xc0 | (code_point >> 6)),
          static_cast<char>(0x80 | (code_point & 0x3f))};
}

inline nlohmann::json Added(int id, const std::string& content, bool special) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

// The parts that do not differ; the BOS is "<s>".
inline nlohmann::json TokenizerFile(int bos_id) {
  const nlohmann::json bos = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  const nlohmann::json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const nlohmann::json second = {{"Sequence", {{"id", "B"}, {"type_id", 0}}}};
  return {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"normalizer", nullptr},
      {"pre_tokenizer", nullptr},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single", {bos, text}},
        {"pair", {bos, text, second}},
        {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {bos_id}}, {"tokens", {"<s>"}}}}}}}}};
}

// Ids 0..255 are the bytes in GPT-2's order of code points, 256.. merges, then the added tokens.
inline std::string ByteLevelTokenizer() {
  nlohmann::json vocabulary;
  int next_id = 0, next_stand_in = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad);
    vocabulary[Utf8(printable ? byte : next_stand_in++)] = next_id++;
  }
  nlohmann::json merges = nlohmann::json::array();
  for (const auto& [left, right] :
       {std::pair<std::string, std::string>{"h", "e"},
        {"l", "l"},
        {"he", "ll"},
        {"hell", "o"},
        {"\u0120", "hello"},
        {"\u00f0", "\u0141"}}) {  // the last: the first half of an emoji
    merges.push_back(left + " " + right);
    vocabulary[left + right] = next_id++;
  }
  nlohmann::json file = TokenizerFile(/*bos_id=*/next_id);
  file["added_tokens"] = {Added(next_id, "<s>", true), Added(next_id + 1, "<|im_start|>", true),
                          Added(next_id + 2, "<|im_end|>", true),
                          Added(next_id + 3, "<tool>", false),
                          Added(next_id + 4, "<\u4f60>", false)};
  file["pre_tokenizer"] = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", true}};
  file["decoder"] = file["pre_tokenizer"];
  file["model"] = {{"type", "BPE"},        {"dropout", nullptr},
                   {"unk_token", nullptr}, {"continuing_subword_prefix", nullptr},
                   {"fuse_unk", false},    {"end_of_word_suffix", nullptr},
                   {"vocab", vocabulary},  {"merges", merges}};
  return file.dump();
}

inline std::string ByteFallbackTokenizer() {
  nlohmann::json vocabulary = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  int next_id = 3;
  for (int byte = 0; byte < 256; ++byte) vocabulary[absl::StrFormat("<0x%02X>", byte)] = next_id++;
  for (const char* piece : {"\u2581", "a", "b", "c", "\u00e9", "\ufffd", "\u2581a", "bc"}) {
    vocabulary[piece] = next_id++;
  }
  nlohmann::json file = TokenizerFile(/*bos_id=*/1);
  file["added_tokens"] = {Added(0, "<unk>", true), Added(1, "<s>", true), Added(2, "</s>", true)};
  file["normalizer"] = {
      {"type", "Sequence"},
      {"normalizers",
       {{{"type", "Prepend"}, {"prepend", "\u2581"}},
        {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}}}}};
  file["decoder"] = {{"type", "Sequence"},
                     {"decoders",
                      {{{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", " "}},
                       {{"type", "ByteFallback"}},
                       {{"type", "Fuse"}},
                       {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}};
  file["model"] = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", "<unk>"},
                   {"continuing_subword_prefix", nullptr},
                   {"end_of_word_suffix", nullptr},
                   {"fuse_unk", true},
                   {"byte_fallback", true},
                   {"vocab", vocabulary},
                   {"merges", {"\u2581 a", "b c"}}};
  return file.dump();
}

// Id 0 is "<unk>", which every word that is not in `words` becomes; white space is between words.
inline std::string WordTokenizer(const std::vector<std::string>& words) {
  nlohmann::json file = nlohmann::json::parse(ByteFallbackTokenizer());
  for (const char* part : {"normalizer", "decoder", "post_processor"}) file[part] = nullptr;
  file["added_tokens"] = nlohmann::json::array();
  file["pre_tokenizer"] = {{"type", "WhitespaceSplit"}};
  nlohmann::json vocabulary = {{"<unk>", 0}};
  for (const std::string& word : words) vocabulary[word] = vocabulary.size();
  file["model"] = {{"type", "WordLevel"}, {"unk_token", "<unk>"}, {"vocab", vocabulary}};
  return file.dump();
}

}  // namespace valuescope::text

#endif  // VALUESCOPE_TESTS_TEXT_SMALL_TOKENIZERS_H_
