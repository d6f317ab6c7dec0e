// Which positions of a sequence a TokenSelection names, once prompt and response lengths are known.
#ifndef VALUESCOPE_ENGINE_TOKEN_SCOPE_H_
#define VALUESCOPE_ENGINE_TOKEN_SCOPE_H_

#include <cstdint>
#include <set>

#include "absl/status/statusor.h"
#include "engine/request.h"

namespace valuescope::engine {

// How long a sequence is and may become.
struct SequenceExtent {
  int64_t prompt = 0;  // tokens
  int64_t most = 0;    // tokens that may be fed: an intervention can act on positions 0 .. most - 1
  bool generates =
      false;  // negative positions then count from the end of the prompt, else from the end of all
};

// The 0-based position that `given` names: negative ones count from the end of the prompt in
// generation, else of all.
int64_t AbsolutePosition(int64_t given, const SequenceExtent& extent);

// Whether a selection may hold tokens that are generated behind `prompt` tokens. The one generated
// last is fed only where such a selection reads it.
bool MayHoldGenerated(const TokenSelection& selection, int64_t prompt);

class TokenScope {
 public:
  // INVALID_ARGUMENT, field "positions[i]" or "kind": positions out of range or given twice, LAST
  // in an intervention on a generation (which token will be the last is not known), a scope that
  // can meet no token (reason INTERVENTION_TOUCHES_NOTHING or TAP_READS_NOTHING).
  static absl::StatusOr<TokenScope> Resolve(const TokenSelection& selection,
                                            const SequenceExtent& extent, bool for_tap);

  bool Contains(int64_t position) const;

  // The first position that can be selected.
  int64_t First() const { return explicit_ ? *positions_.begin() : first_; }

  // Tokens that can be selected at most.
  int64_t MostTokens() const;

 private:
  static constexpr int64_t kOpenEnd = INT64_MAX;

  int64_t first_ = 0;
  int64_t last_ = kOpenEnd;  // inclusive; kOpenEnd: whatever is fed
  int64_t most_ = 0;
  bool explicit_ = false;
  std::set<int64_t> positions_;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_TOKEN_SCOPE_H_
