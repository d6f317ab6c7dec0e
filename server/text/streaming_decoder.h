// Text of a growing list of token ids, given out piece by piece. A character may need several
// tokens, so a piece holds only whole characters; bytes that can no longer become one are U+FFFD.
// The pieces and the flush joined equal Tokenizer::Decode of all ids. What a decoder can know only
// at the end (a regular expression that replaces in the whole text) comes with the flush.
#ifndef VALUESCOPE_TEXT_STREAMING_DECODER_H_
#define VALUESCOPE_TEXT_STREAMING_DECODER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

struct VsStreamingDecoder;

namespace valuescope::text {

class Tokenizer;

// A piece of text and the tokens that it comes from, counted from 0: a character of several tokens
// comes from all of them. Stretches follow each other, and so do their tokens.
struct Stretch {
  size_t size = 0;  // bytes, whole characters
  size_t first_token = 0;
  size_t last_token = 0;
};

// Tells a decoder that its text is for finding stop strings: special tokens are written out, and
// byte tokens become a character as soon as they complete one, where Decode looks at all of a run.
struct ForStopStrings {};

// For one sequence, from one thread at a time. Independent of the Tokenizer's life once made.
class StreamingDecoder {
 public:
  StreamingDecoder(const Tokenizer& tokenizer, bool skip_special_tokens);
  StreamingDecoder(const Tokenizer& tokenizer, ForStopStrings);
  ~StreamingDecoder();
  StreamingDecoder(const StreamingDecoder&) = delete;
  StreamingDecoder& operator=(const StreamingDecoder&) = delete;

  // The text that `id` completes; often empty within a character of several tokens. Its stretches
  // are added to `stretches`, where there is one.
  absl::StatusOr<std::string> Push(int32_t id, std::vector<Stretch>* stretches = nullptr);

  // What is left at the end of the sequence: U+FFFD for an incomplete character. The decoder is
  // then as new.
  absl::StatusOr<std::string> Flush(std::vector<Stretch>* stretches = nullptr);

 private:
  VsStreamingDecoder* handle_ = nullptr;
};

}  // namespace valuescope::text

#endif  // VALUESCOPE_TEXT_STREAMING_DECODER_H_
