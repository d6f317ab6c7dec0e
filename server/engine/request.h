// A request as the engine takes it: token ids and plain data, no torch, no protobuf. One shape
// serves generation (sampling set), capture and scoring (a given response, nothing sampled),
// because all three are the same run of the one forward pass.
#ifndef VALUESCOPE_ENGINE_REQUEST_H_
#define VALUESCOPE_ENGINE_REQUEST_H_

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/dtype.h"
#include "base/host_tensor.h"
#include "base/memory_ledger.h"
#include "model/site.h"

namespace valuescope::engine {

// Which tokens an intervention acts on or a tap reads. The prompt's P tokens are PROMPT; given or
// generated tokens after them are RESPONSE. The first generated token is predicted at the last
// prompt token, so RESPONSE does not act on it: FROM_LAST_PROMPT is the scope that steers a whole
// answer. The last generated token is never fed back unless a tap needs it.
enum class TokenKind : uint8_t {
  kAll,
  kAllButFirst,  // the sequence's first token carries the massive activation of many models
  kPrompt,
  kResponse,
  kLastPrompt,
  kLast,            // the last token of prompt + response (for taps)
  kFromLastPrompt,  // LAST_PROMPT and RESPONSE: the default of interventions
  kPositions,       // explicit 0-based positions; negative ones count from the end (prompt in
                    // generation, else prompt + response)
};

struct TokenSelection {
  TokenKind kind = TokenKind::kFromLastPrompt;
  std::vector<int64_t> positions;  // for kPositions
};

inline constexpr int kMostInterventions = 64;  // of a request
inline constexpr int kMostDirections = 64;     // of a ProjectOut, at each layer

// Numbers of an operation, row-major. Shared: sixteen requests with one vector hold it once.
// num_layers is the number of Intervention::layers, in whose order the rows come; 1 at sites that
// have none.
using SharedFloats = std::shared_ptr<const std::vector<float>>;

// x <- x + coefficient * row.
struct AddVector {
  SharedFloats rows;  // [num_layers, width]
  float coefficient = 1.0f;
};

// Keeps 1 - strength of the projection on the span of the directions. Their lengths do not matter;
// none may be zero.
struct ProjectOut {
  SharedFloats directions;     // [num_layers, num_directions, width]
  int64_t num_directions = 1;  // >= 1
  float strength = 1.0f;       // 0 .. 1
};

// Sets <x, v / |v|>; no v may be zero.
struct Clamp {
  SharedFloats rows;  // [num_layers, width]
  float value = 0.0f;
};

// Indices of neurons, ascending and distinct. Copies share them: a set of millions that 64
// interventions name is held once.
class NeuronIndices {
 public:
  using value_type = int64_t;
  using const_iterator = std::vector<int64_t>::const_iterator;

  NeuronIndices() = default;
  NeuronIndices(std::vector<int64_t> indices)
      : indices_(std::make_shared<const std::vector<int64_t>>(std::move(indices))) {}
  NeuronIndices(std::initializer_list<int64_t> indices)
      : NeuronIndices(std::vector<int64_t>(indices)) {}

  const std::vector<int64_t>& values() const {
    static const std::vector<int64_t> none;
    return indices_ == nullptr ? none : *indices_;
  }
  const_iterator begin() const { return values().begin(); }
  const_iterator end() const { return values().end(); }
  size_t size() const { return values().size(); }
  bool empty() const { return values().empty(); }
  int64_t operator[](size_t i) const { return values()[i]; }

 private:
  std::shared_ptr<const std::vector<int64_t>> indices_;
};

// Neurons of a layer (MLP_NEURONS) or its heads (ATTENTION_HEADS: all head_dim elements of one):
// for each of Intervention::layers. A layer that owns none is not touched.
using ChosenNeurons = std::vector<NeuronIndices>;

struct ScaleNeurons {
  ChosenNeurons neurons;
  float factor = 1.0f;
};

struct AblateNeurons {
  ChosenNeurons neurons;
  SharedFloats means;  // [num_layers, width]: what takes their place; null: 0
};

// x <- row.
struct Replace {
  SharedFloats rows;           // [num_layers, num_positions, width]
  bool each_position = false;  // a row for each of TokenSelection::positions in the order given;
                               // else num_positions is 1 and every token gets the layer's row
};

using Operation = std::variant<AddVector, ProjectOut, Clamp, ScaleNeurons, AblateNeurons, Replace>;
inline constexpr int kNumOperations = std::variant_size_v<Operation>;

// "add", "project_out", ... as the contract spells it; 0 <= index < kNumOperations.
absl::string_view NameOfOperation(size_t index);

// Changes the activations at one site of some layers, in float32.
struct Intervention {
  model::Site site = model::Site::kResidualPost;
  std::vector<int> layers;  // absolute 0-based blocks, ascending, no duplicates
  TokenSelection tokens;
  Operation operation;
  bool preserve_norm = false;  // the result y becomes y |x| / |y|
};

// kMeanNorm is the mean of |x| over the tokens: one number a layer, [layers, 1, 1], of all columns
// and not of the last token alone. kMeanPositive is the part of the tokens at which an element is
// above 0, kMeanMagnitude the mean of an element's absolute value. The contract has no name for the
// three.
enum class Reduction : uint8_t {
  kNone,
  kMean,
  kSum,
  kMax,
  kLast,
  kMeanNorm,
  kMeanPositive,
  kMeanMagnitude
};

// Reads activations of some layers at one site, reduced on the device over the selected tokens.
struct Tap {
  model::Site site = model::Site::kResidualPost;
  std::vector<int> layers;  // absolute, ascending
  TokenSelection tokens{.kind = TokenKind::kResponse, .positions = {}};
  Reduction reduction = Reduction::kNone;
  DType dtype = DType::kFloat32;  // of the result: float32, float16, bfloat16 or float64
  // Empty: whole activations. Else, for each of `layers` (once at sites without layers), the
  // columns that are wanted, ascending and distinct; the result then comes layer by layer.
  std::vector<NeuronIndices> columns;
};

struct Sampling {
  int max_tokens = 256;      // >= 1
  float temperature = 1.0f;  // 0 is greedy
  float top_p = 1.0f;        // (0, 1]
  int top_k = 0;             // 0: no limit
  float min_p = 0.0f;        // [0, 1]
  float repetition_penalty =
      1.0f;           // > 0; 1 is none (over prompt and generated tokens, as transformers)
  uint64_t seed = 0;  // the same seed gives the same tokens whatever else is in the batch
  std::vector<std::string> stop;        // strings that end the text and are not part of it
  std::vector<int32_t> stop_token_ids;  // tokens that end it, beside the model's own
  bool ignore_eos = false;              // goes on past the model's own
  int top_logprobs =
      -1;  // -1: no log-probabilities; k >= 0: of the chosen token and the k likeliest
};

class PreparedInterventions;  // compiled_interventions.h

struct Request {
  std::string tenant = "default";  // tenants share the engine by their weights
  // Requests of a tenant that share a number share a turn in the engine; see NewClient. 0: one for
  // all.
  uint64_t client = 0;
  std::vector<int32_t> prompt;          // >= 1 token
  std::vector<int32_t> given_response;  // teacher-forced tokens after the prompt; excludes sampling
  std::optional<Sampling> sampling;     // absent: nothing is sampled
  bool score_response = false;          // log-probability of every given_response token
  int top_logprobs = 0;  // with score_response: also the k likeliest tokens at each place
  std::vector<Intervention> interventions;
  // Those of a call, prepared once for all of its requests; excludes `interventions`.
  std::shared_ptr<const PreparedInterventions> prepared;
  std::vector<Tap> taps;
  absl::Time deadline = absl::InfiniteFuture();
  // Work of jobs gives way to people who wait.
  bool background = false;
};

struct TokenLogprob {
  int32_t id = 0;
  float logprob =
      0;  // natural logarithm, of the model's distribution before temperature and truncation
  std::vector<std::pair<int32_t, float>> top;
};

enum class FinishReason : uint8_t { kStop, kLength };

// How many token positions of which layers an intervention really touched, counted where the
// operator ran.
struct Receipt {
  int intervention_index = 0;
  std::vector<int> layers;
  int64_t positions = 0;  // per layer
};

// What one tap read: tensor [layers, tokens, width] in the tap's dtype, tokens = 1 when reduced.
struct Capture {
  int tap_index = 0;
  std::vector<int> layers;
  std::vector<int64_t> columns;    // of the only layer, where the tap chose some
  std::vector<int64_t> positions;  // 0-based, of the tokens read (all that entered a reduction)
  HostTensor tensor;
};

struct Completion {
  std::string text;  // of the generated tokens, special tokens left out
  std::vector<int32_t>
      token_ids;  // generated; without the stop token and what a stop string trimmed
  FinishReason finish_reason = FinishReason::kStop;
  std::vector<TokenLogprob>
      logprobs;  // one a generated token (if asked), or one a given_response token (if scored)
  std::vector<Receipt> receipts;  // one an intervention
  std::vector<Capture> captures;  // in tap order; one a tap, or one a layer where it has columns
  int64_t prompt_tokens = 0;
  int64_t cached_prompt_tokens = 0;  // of prompt_tokens, those that others had computed
  int64_t generated_tokens = 0;      // as counted for usage, the stop token included
  // Held as long as the captures are.
  std::shared_ptr<const MemoryLedger::Lease> memory;
};

// A piece of a running generation.
struct Delta {
  std::string text;                    // valid UTF-8, never half a character; may be empty
  std::vector<int32_t> token_ids;      // tokens since the last delta
  std::vector<TokenLogprob> logprobs;  // for them, if asked
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_REQUEST_H_
