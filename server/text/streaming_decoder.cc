#include "text/streaming_decoder.h"

#include "base/check.h"
#include "base/status_macros.h"
#include "text/library_failure.h"
#include "text/rust_interface.h"
#include "text/tokenizer.h"

namespace valuescope::text {

namespace {

void AddStretches(const VsIds& numbers, std::vector<Stretch>* stretches) {
  for (size_t i = 0; stretches != nullptr && i + 2 < numbers.size; i += 3) {
    stretches->push_back({.size = numbers.data[i],
                          .first_token = numbers.data[i + 1],
                          .last_token = numbers.data[i + 2]});
  }
  vs_ids_free(numbers);
}

}  // namespace

StreamingDecoder::StreamingDecoder(const Tokenizer& tokenizer, bool skip_special_tokens) {
  OwnedString error;
  VS_CHECK(vs_streaming_decoder_new(tokenizer.handle_, skip_special_tokens,
                                    /*for_stop_strings=*/false, &handle_, error.out()) == VS_OK);
}

StreamingDecoder::StreamingDecoder(const Tokenizer& tokenizer, ForStopStrings) {
  OwnedString error;
  VS_CHECK(vs_streaming_decoder_new(tokenizer.handle_, /*skip_special_tokens=*/false,
                                    /*for_stop_strings=*/true, &handle_, error.out()) == VS_OK);
}

StreamingDecoder::~StreamingDecoder() { vs_streaming_decoder_free(handle_); }

absl::StatusOr<std::string> StreamingDecoder::Push(int32_t id, std::vector<Stretch>* stretches) {
  OwnedString text, error;
  VsIds numbers = {};
  const VsFailure failure = vs_streaming_decoder_push(handle_, static_cast<uint32_t>(id),
                                                      text.out(), &numbers, error.out());
  VS_RETURN_IF_ERROR(StatusOf(failure, error, "token_ids"));
  AddStretches(numbers, stretches);
  return std::string(View(text));
}

absl::StatusOr<std::string> StreamingDecoder::Flush(std::vector<Stretch>* stretches) {
  OwnedString text, error;
  VsIds numbers = {};
  const VsFailure failure = vs_streaming_decoder_flush(handle_, text.out(), &numbers, error.out());
  VS_RETURN_IF_ERROR(StatusOf(failure, error, "token_ids"));
  AddStretches(numbers, stretches);
  return std::string(View(text));
}

}  // namespace valuescope::text
