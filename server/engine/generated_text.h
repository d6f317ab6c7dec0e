// The text of a generation as its tokens come, and where a stop string ends it.
//
// There are two texts. The shown one leaves special tokens out and equals the tokenizer's decoding.
// Stop strings are looked for in the other, which has special tokens written out and the characters
// of byte tokens as soon as they are complete: there "<|im_end|>" can be found, and a newline that
// may turn out to be part of broken bytes. The cut is carried over by way of the tokens.
#ifndef VALUESCOPE_ENGINE_GENERATED_TEXT_H_
#define VALUESCOPE_ENGINE_GENERATED_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "text/streaming_decoder.h"
#include "text/tokenizer.h"

namespace valuescope::engine {

class GeneratedText {
 public:
  // `stops`, none empty, outlive it.
  GeneratedText(const text::Tokenizer& tokenizer, std::span<const std::string> stops);

  // Takes the next token. True where it completes a stop string: text and tokens are then cut
  // before the one that begins first, and no token may follow.
  bool Push(int32_t id);
  // No token follows, which gives the sign for half a character at the end. True as above.
  bool Finish();

  // Valid UTF-8, never half a character.
  const std::string& text() const { return shown_.text; }

  // What no later token can trim: bytes of the text, and tokens of those pushed. After the end, all
  // that is left; a token belongs to it that a stop string does not trim wholly.
  size_t settled_text() const { return settled_text_; }
  size_t settled_tokens() const { return settled_tokens_; }

 private:
  // A text and the tokens that its stretches come from.
  struct Track {
    std::string text;
    std::vector<size_t> begins;  // of the stretches, in the text
    std::vector<text::Stretch> stretches;

    void Append(const std::string& more, const std::vector<text::Stretch>& added);
    // The first stretch that begins at or behind `place`.
    size_t StretchFrom(size_t place) const;
    // Where the first text begins that token number `token` or a later one has a part in; the end
    // where there is none.
    size_t BeginOfToken(size_t token) const;
  };

  bool FindStop();
  void Settle(size_t place);
  size_t TokensBefore(size_t place) const;
  size_t ShownBefore(size_t place, size_t tokens) const;
  size_t PlaceThatMayStop() const;
  void Flush(text::StreamingDecoder& decoder, Track& track);

  const std::span<const std::string> stops_;
  text::StreamingDecoder decoder_;
  std::optional<text::StreamingDecoder> searched_decoder_;  // where there are stops
  Track shown_;
  Track searched_;
  size_t searched_to_ = 0;  // no stop string begins before this place of searched_
  size_t pushed_ = 0;
  size_t settled_text_ = 0;
  size_t settled_tokens_ = 0;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_GENERATED_TEXT_H_
