#include "text/streaming_decoder.h"

#include "base/check.h"
#include "base/status_macros.h"
#include "text/library_failure.h"
#include "text/rust_interface.h"
#include "text/tokenizer.h"

namespace valuescope::text {

StreamingDecoder::StreamingDecoder(const Tokenizer& tokenizer, bool skip_special_tokens) {
  OwnedString error;
  VS_CHECK(vs_streaming_decoder_new(tokenizer.handle_, skip_special_tokens, &handle_,
                                    error.out()) == VS_OK);
}

StreamingDecoder::~StreamingDecoder() { vs_streaming_decoder_free(handle_); }

absl::StatusOr<std::string> StreamingDecoder::Push(int32_t id) {
  OwnedString text, error;
  const VsFailure failure =
      vs_streaming_decoder_push(handle_, static_cast<uint32_t>(id), text.out(), error.out());
  VS_RETURN_IF_ERROR(StatusOf(failure, error, "token_ids"));
  return std::string(View(text));
}

absl::StatusOr<std::string> StreamingDecoder::Flush() {
  OwnedString text, error;
  const VsFailure failure = vs_streaming_decoder_flush(handle_, text.out(), error.out());
  VS_RETURN_IF_ERROR(StatusOf(failure, error, "token_ids"));
  return std::string(View(text));
}

}  // namespace valuescope::text
