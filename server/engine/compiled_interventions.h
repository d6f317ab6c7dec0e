// A request's interventions once they are known to be good: scopes resolved to positions,
// directions made orthonormal, and each set of them that may act on a token lowered to single edits
// of wires.
#ifndef VALUESCOPE_ENGINE_COMPILED_INTERVENTIONS_H_
#define VALUESCOPE_ENGINE_COMPILED_INTERVENTIONS_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/request.h"
#include "engine/token_scope.h"
#include "model/architecture.h"
#include "model/step.h"

namespace valuescope::engine {

inline constexpr int64_t kMostSetsPerRequest = 256;
// Sets x interventions in them x their layers: each is an edit that is written into a table, and
// everybody's next step waits for it.
inline constexpr int64_t kMostEditsPerRequest = 1 << 14;

// What one intervention does at one wire: a stage of one row, on the host.
struct WireEdit {
  int wire = 0;  // WireIndex
  model::Stage stage;
};

// A request's interventions with their scopes resolved. Built by Compile; then only read.
class CompiledInterventions {
 public:
  // INVALID_ARGUMENT with the field relative to the request ("interventions[1].layers[0]"): layers
  // out of range or not ascending, numbers that are not finite or not [layers, ..., width], zero
  // directions, neurons out of range, scopes (token_scope.h), interventions that touch nothing
  // (reason INTERVENTION_TOUCHES_NOTHING), more than kMostSetsPerRequest different sets of active
  // interventions in one request or more than kMostEditsPerRequest edits of all of them.
  static absl::StatusOr<CompiledInterventions> Compile(std::vector<Intervention> interventions,
                                                       const SequenceExtent& extent,
                                                       const model::Architecture& architecture);

  // The set of interventions that act on the token at `position`, as a number that only this object
  // understands. 0: none does.
  uint64_t ActiveAt(int64_t position) const;

  // Whether intervention `index` belongs to the set `active`.
  bool Acts(uint64_t active, size_t index) const { return variants_[active][index] != kAbsent; }

  // What the set `active` does, in order. Leaves out what changes no bit: a coefficient or strength
  // of 0, a factor of 1.
  std::vector<WireEdit> EditsOf(uint64_t active) const;

  // SHA-256 over everything that decides what the set `active` does to a token: site, layers,
  // operation, numbers and preserve_norm of its interventions in order. Equal digests mean equal
  // edits under one model. Empty where the set changes no bit.
  const std::string& ContentDigest(uint64_t active) const { return digests_[active]; }

  // What the edits of all sets hold, at most; tables add the room that they keep for other rows.
  int64_t TableBytes() const;

  // Layers that the set touches with each kind of operation, by Operation::index(), of the edits
  // that really run.
  std::array<int64_t, kNumOperations> LayersTouched(uint64_t active) const;

  // As compiled: neuron operations have lost the layers that own no chosen neuron.
  const std::vector<Intervention>& interventions() const { return interventions_; }
  bool empty() const { return interventions_.empty(); }

 private:
  static constexpr int kAbsent = -1;

  absl::Status EnumerateSets(const SequenceExtent& extent);
  absl::Status CheckEdits() const;
  // Whether intervention `index` belongs to the set `active` and changes a bit.
  bool Changes(uint64_t active, size_t index) const;
  void MakeDigests();

  model::Architecture architecture_;
  std::vector<Intervention> interventions_;
  std::vector<TokenScope> scopes_;
  // By intervention, for project_out and clamp: the orthonormal basis of each layer, [rank, width].
  std::vector<std::vector<std::vector<float>>> bases_;
  // By set, by intervention: kAbsent, or which of its rows a replacement of single positions takes
  // (0 for all others). Set 0 is "nothing".
  std::vector<std::vector<int>> variants_{{}};
  std::vector<uint16_t> set_of_position_;
  std::vector<std::string> digests_{""};
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_COMPILED_INTERVENTIONS_H_
