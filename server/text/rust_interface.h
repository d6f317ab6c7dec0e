// The C interface of the Rust library in rust/ (the crate tokenizers, Jinja2, Unicode's words, and
// Arrow's files). Private to this room: the classes of tokenizer.h, streaming_decoder.h,
// chat_template.h, word_list.h and arrow_table.h own its objects; text_counts.h has what needs
// none.
//
// Functions that can fail return a VsFailure and, when that is not VS_OK, leave its text in `error`
// and nothing in their result. No panic crosses.
#ifndef VALUESCOPE_TEXT_RUST_INTERFACE_H_
#define VALUESCOPE_TEXT_RUST_INTERFACE_H_

#include <cstddef>
#include <cstdint>

extern "C" {

enum VsFailure : int32_t {
  VS_OK = 0,
  VS_REFUSED = 1,      // the file or the text is not acceptable
  VS_RAISED = 2,       // the template's raise_exception; the text is its message
  VS_OVER_BUDGET = 3,  // the template ran or wrote too long for this input
  VS_DISABLED = 4,     // the template could not be stopped, or was often slow, and is not run again
  VS_BAD_ARGUMENTS = 5,
  VS_INTERNAL = 6,  // a panic; the text says where in its crate
};

struct VsBytes {  // the caller's, valid during the call
  const char* data;
  size_t size;
};

struct VsString {  // text or bytes, the library's, until vs_string_free
  char* data;
  size_t size;
  size_t capacity;
};

struct VsIds {  // the library's, until vs_ids_free
  uint32_t* data;
  size_t size;
  size_t capacity;
};

struct VsPair {
  VsBytes first;
  VsBytes second;
};

struct VsDeclaredToken {
  VsBytes text;
  int64_t id;        // below 0: none
  uint8_t existing;  // 0 kept, 1 replaced, 2 made special
  bool single_word;
  bool lstrip;
  bool rstrip;
  bool normalized;
  bool special;
};

struct VsMember {
  VsBytes name;
  VsBytes value;
  bool is_json;  // else the value is the text itself
};

struct VsMessage {
  const VsMember* members;  // in the template's order
  size_t num_members;
};

struct VsRendering {
  const VsMessage* messages;
  size_t num_messages;
  const VsPair* special_tokens;  // variable, text
  size_t num_special_tokens;
  VsBytes arguments;  // a JSON object, or empty
  bool add_generation_prompt;
  int64_t now_seconds;  // since 1970, UTC
};

struct VsTokenizer;
struct VsStreamingDecoder;
struct VsTemplate;
struct VsWordList;

void vs_string_free(VsString text);
void vs_ids_free(VsIds ids);

// `declared` are tokens that other files name.
VsFailure vs_tokenizer_load(VsBytes file, const VsDeclaredToken* declared, size_t num_declared,
                            bool split_special_tokens, VsTokenizer** result, VsString* error);
bool vs_tokenizer_is_bpe(const VsTokenizer* tokenizer);
// Before the tokenizer decodes anything.
void vs_tokenizer_clean_up(VsTokenizer* tokenizer);
void vs_tokenizer_free(VsTokenizer* tokenizer);
uint32_t vs_tokenizer_id_limit(const VsTokenizer* tokenizer);
size_t vs_tokenizer_fewest_tokens(const VsTokenizer* tokenizer, VsBytes text);
size_t vs_tokenizer_num_added(const VsTokenizer* tokenizer);
VsFailure vs_tokenizer_added(const VsTokenizer* tokenizer, size_t index, uint32_t* id,
                             bool* special, VsString* text, VsString* error);
VsFailure vs_tokenizer_encode(const VsTokenizer* tokenizer, VsBytes text, bool add_special_tokens,
                              VsIds* ids, VsString* error);
VsFailure vs_tokenizer_decode(const VsTokenizer* tokenizer, const uint32_t* ids, size_t num_ids,
                              bool skip_special_tokens, VsString* text, VsString* error);
VsFailure vs_tokenizer_piece(const VsTokenizer* tokenizer, uint32_t id, VsString* piece,
                             VsString* error);

// Keeps the tokenizer alive by itself. A decoder for stop strings skips no special tokens.
VsFailure vs_streaming_decoder_new(const VsTokenizer* tokenizer, bool skip_special_tokens,
                                   bool for_stop_strings, VsStreamingDecoder** result,
                                   VsString* error);
void vs_streaming_decoder_free(VsStreamingDecoder* decoder);
// `stretches`: three numbers for each stretch of the text: its bytes, and the first and last of the
// ids pushed that it comes from, counted from 0.
VsFailure vs_streaming_decoder_push(VsStreamingDecoder* decoder, uint32_t id, VsString* text,
                                    VsIds* stretches, VsString* error);
VsFailure vs_streaming_decoder_flush(VsStreamingDecoder* decoder, VsString* text, VsIds* stretches,
                                     VsString* error);

VsFailure vs_template_compile(VsBytes source, size_t max_output_bytes, VsTemplate** result,
                              VsString* error);
void vs_template_free(VsTemplate* chat_template);
VsFailure vs_template_render(const VsTemplate* chat_template, const VsRendering* rendering,
                             VsString* text, VsString* error);

// `bad_entry` is written where the text of an entry is refused for what it lacks.
VsFailure vs_word_list_new(const VsBytes* entries, size_t num_entries, VsWordList** result,
                           size_t* bad_entry, VsString* error);
void vs_word_list_free(VsWordList* list);
VsFailure vs_word_list_occurs_in(const VsWordList* list, VsBytes text, bool* occurs,
                                 VsString* error);

struct VsTextCounts {
  size_t words;
  size_t sentences;
  bool has_capital;
  bool has_small;
};

VsFailure vs_text_counts(VsBytes text, VsTextCounts* counts, VsString* error);
VsFailure vs_is_script(VsBytes name, bool* is, VsString* error);
// Of a `script` that is one.
VsFailure vs_letters_of_script(VsBytes text, VsBytes script, size_t* of_script, size_t* of_any,
                               VsString* error);

enum VsColumnType : int32_t {
  VS_BOOLEAN = 0,
  VS_INT32 = 1,
  VS_INT64 = 2,
  VS_UINT32 = 3,
  VS_UINT64 = 4,
  VS_FLOAT32 = 5,
  VS_FLOAT64 = 6,
  VS_UTF8 = 7,
  VS_LIST = 8,
  VS_STRUCT = 9,
};

struct VsColumn {
  VsBytes name;
  VsColumnType type;
  bool nullable;
  size_t length;
  VsBytes valid;             // a byte a value, 0 where it is null; empty where none is
  VsBytes offsets;           // of texts and lists: int32 [length + 1]
  VsBytes values;            // [length], a byte a boolean; all texts one after another
  const VsColumn* children;  // of a list its items, of a struct its members
  size_t num_children;
};

struct VsArrowTable;

// A table of these columns, whose rows are not looked at.
VsFailure vs_arrow_table_new(const VsColumn* columns, size_t num_columns, bool is_file,
                             VsArrowTable** result, VsString* error);
void vs_arrow_table_free(VsArrowTable* table);
// Adds rows. `bytes` is what the table has become since it was asked last.
VsFailure vs_arrow_table_write(VsArrowTable* table, const VsColumn* columns, size_t num_columns,
                               size_t num_rows, VsString* bytes, VsString* error);
VsFailure vs_arrow_table_finish(VsArrowTable* table, VsString* bytes, VsString* error);

}  // extern "C"

namespace valuescope::text {

// Frees on every way out.
class OwnedString {
 public:
  OwnedString() = default;
  ~OwnedString() { vs_string_free(string_); }
  OwnedString(const OwnedString&) = delete;
  OwnedString& operator=(const OwnedString&) = delete;

  VsString* out() { return &string_; }
  const char* data() const { return string_.data; }
  size_t size() const { return string_.size; }

 private:
  VsString string_ = {};
};

}  // namespace valuescope::text

#endif  // VALUESCOPE_TEXT_RUST_INTERFACE_H_
