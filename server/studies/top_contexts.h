// Texts in which neurons are most active. One forward pass a text reads the neurons at each of its
// tokens; of each neuron the texts of the largest a_i = act(gate_i) up_i are kept, each once, at
// the token where it is largest, with the tokens around. What is kept does not grow with the texts.
//
// A window is a number of tokens, and tokens may be parts of a character. Its text is that of every
// character that a token of the window has a part in, so that it never shows half of one.
#ifndef VALUESCOPE_STUDIES_TOP_CONTEXTS_H_
#define VALUESCOPE_STUDIES_TOP_CONTEXTS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/cancellation.h"
#include "engine/engine.h"
#include "engine/request.h"
#include "engine/token_scope.h"
#include "studies/labelled_responses.h"
#include "text/tokenizer.h"

namespace valuescope::studies {

struct NeuronPlace {
  int layer = 0;
  int64_t index = 0;
};

struct ContextsPlan {
  std::string tenant;
  std::vector<NeuronPlace> neurons;  // of the model, distinct, at least one
  engine::TokenSelection tokens;     // that are searched
  int top_k = 10;                    // texts a neuron, at least one
  int window = 10;                   // tokens before and after
};

// A text of the data set, prompt and response of which are tokens of the model.
struct NumberedText {
  int64_t number = 0;
  LabelledResponse tokens;
};

// A place in a text.
struct NeuronContext {
  int64_t text = 0;                // its number
  int64_t position = 0;            // of the token in prompt and response, 0-based
  float activation = 0;            // there
  int64_t center = 0;              // of the token in the window
  std::vector<int32_t> token_ids;  // [window]
  std::vector<float> activations;  // [window]
  std::string shown;               // text of the window, special tokens written out
};

// For one thread.
class ContextSearch {
 public:
  // Both outlive the search.
  ContextSearch(engine::Engine* engine, const text::Tokenizer* tokenizer, ContextsPlan plan);

  // Bytes that the activations of a text take while it is looked at.
  int64_t CaptureBytes(const NumberedText& text) const;

  // Looks at the texts, few enough for their activations to be in memory together, in ascending
  // order of their numbers over all calls. One of which no token is selected, such as an empty
  // response, is passed over. INVALID_ARGUMENT naming "tokens.positions[i]" where a text lacks a
  // position; errors of engine::RunAll; CANCELLED.
  absl::Status Add(std::span<const NumberedText> texts, const Cancellation& cancellation);

  // Of each neuron of the plan, largest activation first, ties by number of the text.
  const std::vector<std::vector<NeuronContext>>& contexts() const { return contexts_; }
  // Of the texts that ran.
  int64_t prompt_tokens() const { return prompt_tokens_; }
  int64_t cached_prompt_tokens() const { return cached_prompt_tokens_; }

 private:
  // Where a neuron stands in the captures of a text, one a layer.
  struct Column {
    size_t capture = 0;
    size_t column = 0;
  };

  // The tokens to search, or none.
  absl::StatusOr<std::optional<engine::TokenScope>> ScopeOf(const NumberedText& text) const;
  engine::Request RequestOf(const NumberedText& text) const;
  absl::Status CheckShape(const NumberedText& text, const engine::Completion& completion) const;
  absl::Status Search(const NumberedText& text, const engine::TokenScope& scope,
                      const engine::Completion& completion);
  NeuronContext ContextAt(const NumberedText& text, int64_t position,
                          std::span<const float> activations) const;

  engine::Engine* const engine_;
  const text::Tokenizer* const tokenizer_;
  const ContextsPlan plan_;
  engine::Tap tap_;              // of all neurons at every token
  std::vector<Column> columns_;  // of each neuron
  std::vector<std::vector<NeuronContext>> contexts_;
  int64_t prompt_tokens_ = 0;
  int64_t cached_prompt_tokens_ = 0;
};

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_TOP_CONTEXTS_H_
