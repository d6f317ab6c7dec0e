// Text of a growing list of token ids, given out piece by piece. A character may need several
// tokens, so a piece holds only whole characters; bytes that can no longer become one are U+FFFD.
// The pieces and the flush joined equal Tokenizer::Decode of all ids.
#ifndef VALUESCOPE_TEXT_STREAMING_DECODER_H_
#define VALUESCOPE_TEXT_STREAMING_DECODER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

struct VsStreamingDecoder;

namespace valuescope::text {

class Tokenizer;

// For one sequence, from one thread at a time. Independent of the Tokenizer's life once made.
class StreamingDecoder {
 public:
  StreamingDecoder(const Tokenizer& tokenizer, bool skip_special_tokens);
  ~StreamingDecoder();
  StreamingDecoder(const StreamingDecoder&) = delete;
  StreamingDecoder& operator=(const StreamingDecoder&) = delete;

  // The text that `id` completes; often empty within a character of several tokens.
  absl::StatusOr<std::string> Push(int32_t id);

  // What is left at the end of the sequence: U+FFFD for an incomplete character. The decoder is
  // then as new.
  absl::StatusOr<std::string> Flush();

 private:
  VsStreamingDecoder* handle_ = nullptr;
};

}  // namespace valuescope::text

#endif  // VALUESCOPE_TEXT_STREAMING_DECODER_H_
