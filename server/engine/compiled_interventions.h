// A request's interventions once they are known to be good: each lowered to stages, one a layer
// (lowering.h), scopes resolved to positions, and each set of them that may act on a token known as
// single edits of wires. What does not depend on the request's tokens is made once for all requests
// of a call.
#ifndef VALUESCOPE_ENGINE_COMPILED_INTERVENTIONS_H_
#define VALUESCOPE_ENGINE_COMPILED_INTERVENTIONS_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "base/memory_ledger.h"
#include "engine/request.h"
#include "engine/token_scope.h"
#include "model/architecture.h"
#include "model/step.h"

namespace valuescope::engine {

inline constexpr int64_t kMostSetsPerRequest = 256;
// Sets x interventions in them x their layers: each is an edit that is written into a table.
inline constexpr int64_t kMostEditsPerRequest = 1 << 14;

// What one intervention does at one wire: row `row` of the stage's tables on the host, or their
// only one where they have one.
struct WireEdit {
  int wire = 0;  // WireIndex
  int64_t row = 0;
  const model::Stage* stage = nullptr;  // not null; as long as the PreparedInterventions live
};

class CompiledInterventions;

// The interventions of a call as far as they do not depend on its tokens: checked, lowered, digests
// taken. Built by Prepare; then only read, by any thread.
class PreparedInterventions : public std::enable_shared_from_this<PreparedInterventions> {
 public:
  // INVALID_ARGUMENT with the field relative to the request ("interventions[1].layers[0]"): layers
  // out of range or not ascending, numbers that are not finite or not [layers, ..., width], zero
  // directions, neurons out of range. RESOURCE_EXHAUSTED where memory ends. Keeps `memory`, which
  // may be null, as long as it lives, and gives back of it what is beyond bytes().
  static absl::StatusOr<std::shared_ptr<const PreparedInterventions>> Prepare(
      std::vector<Intervention> interventions, const model::Architecture& architecture,
      std::shared_ptr<MemoryLedger::Lease> memory = nullptr);

  // For requests of this extent: the same object as long as one of them lives. INVALID_ARGUMENT as
  // CompiledInterventions::Compile.
  absl::StatusOr<std::shared_ptr<const CompiledInterventions>> For(
      const SequenceExtent& extent) const;

  // Neuron operations have lost the layers that own no chosen neuron, and all of them their
  // numbers, which stand in stages().
  const std::vector<Intervention>& interventions() const { return interventions_; }
  // By intervention: what it does at each of its layers, on the host.
  const std::vector<std::vector<model::Stage>>& stages() const { return stages_; }
  // By intervention: SHA-256 over everything but its tokens.
  const std::vector<std::string>& digests() const { return digests_; }
  const model::Architecture& architecture() const { return architecture_; }
  // Of all that is held.
  int64_t bytes() const;

 private:
  using Extent = std::tuple<int64_t, int64_t, bool>;

  model::Architecture architecture_;
  std::vector<Intervention> interventions_;
  std::vector<std::vector<model::Stage>> stages_;
  std::vector<std::string> digests_;
  std::shared_ptr<MemoryLedger::Lease> memory_;
  mutable absl::Mutex mutex_;
  mutable std::map<Extent, std::weak_ptr<const CompiledInterventions>> compiled_
      ABSL_GUARDED_BY(mutex_);
};

// A request's interventions with their scopes resolved. Built by Compile; then only read.
class CompiledInterventions {
 public:
  // INVALID_ARGUMENT with the field relative to the request: scopes (token_scope.h), interventions
  // that touch nothing (reason INTERVENTION_TOUCHES_NOTHING), more than kMostSetsPerRequest
  // different sets of active interventions in one request or more than kMostEditsPerRequest edits
  // of all of them.
  static absl::StatusOr<CompiledInterventions> Compile(
      std::shared_ptr<const PreparedInterventions> prepared, const SequenceExtent& extent);
  // Prepares them first.
  static absl::StatusOr<CompiledInterventions> Compile(std::vector<Intervention> interventions,
                                                       const SequenceExtent& extent,
                                                       const model::Architecture& architecture);

  // How many sets there are; they are numbered from 1.
  uint64_t num_sets() const { return variants_.size() - 1; }

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

  // Layers that the set touches with each kind of operation, by Operation::index(), of the edits
  // that really run.
  std::array<int64_t, kNumOperations> LayersTouched(uint64_t active) const;

  // What the edits belong to; null where nothing was prepared.
  const std::shared_ptr<const PreparedInterventions>& prepared() const { return prepared_; }
  // As prepared; none where nothing was.
  const std::vector<Intervention>& interventions() const;
  bool empty() const { return interventions().empty(); }

 private:
  static constexpr int kAbsent = -1;

  absl::Status EnumerateSets(const SequenceExtent& extent);
  absl::Status CheckEdits() const;
  // Whether intervention `index` belongs to the set `active` and changes a bit.
  bool Changes(uint64_t active, size_t index) const;
  void MakeDigests();

  std::shared_ptr<const PreparedInterventions> prepared_;
  std::vector<TokenScope> scopes_;
  // By set, by intervention: kAbsent, or which of its rows a replacement of single positions takes
  // (0 for all others). Set 0 is "nothing".
  std::vector<std::vector<int>> variants_{{}};
  std::vector<uint16_t> set_of_position_;
  std::vector<std::string> digests_{""};
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_COMPILED_INTERVENTIONS_H_
