// Interventions as rows of tables. All requests of a step share one table a wire; each token
// carries one row index, and row 0 is "nothing". A row belongs to one request and one set of its
// interventions (those whose scope holds the token), and holds the sum of what they add at each
// wire. So any number of different steerings costs one gathered addition a wire in use.
#ifndef VALUESCOPE_ENGINE_INTERVENTION_TABLE_H_
#define VALUESCOPE_ENGINE_INTERVENTION_TABLE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/request.h"
#include "engine/token_scope.h"
#include "model/architecture.h"
#include "model/step.h"

namespace valuescope::engine {

// A request's interventions with their scopes resolved. Built by Compile; then only read.
class CompiledInterventions {
 public:
  // INVALID_ARGUMENT with the field relative to the request ("interventions[1].layers[0]"): layers
  // out of range or not ascending, rows that are not [layers, width], numbers that are not finite,
  // scopes (token_scope.h), more than 16 different sets of active interventions in one request.
  static absl::StatusOr<CompiledInterventions> Compile(std::vector<Intervention> interventions,
                                                       const SequenceExtent& extent,
                                                       const model::Architecture& architecture);

  // Bit i: intervention i acts on the token at `position`.
  uint64_t ActiveAt(int64_t position) const;

  const std::vector<Intervention>& interventions() const { return interventions_; }
  bool empty() const { return interventions_.empty(); }

 private:
  std::vector<Intervention> interventions_;
  std::vector<TokenScope> scopes_;
};

inline constexpr int64_t kMostSetsPerRequest = 16;

// The tables of one engine, on its device. Addresses never change once a wire has a table.
class InterventionTables {
 public:
  InterventionTables(const model::Architecture& architecture, int64_t capacity, c10::Device device);

  // The row for the set `active` of a request's interventions; 0 where they add nothing (no bits,
  // or coefficients of zero).
  int64_t AcquireRow(const CompiledInterventions& compiled, uint64_t active);

  // Gives a row back; row 0 is ignored.
  void ReleaseRow(int64_t row);

  // Puts an addition into the program of every wire that some live row touches.
  void AddTo(model::StepProgram& program) const;

  int64_t live_rows() const { return static_cast<int64_t>(wires_of_row_.size()); }

 private:
  struct WireTable {
    at::Tensor rows;  // [capacity, width] float32, zero wherever no live row adds something
    int live_rows = 0;
  };

  at::Tensor& TableOf(int wire, int64_t width);

  const model::Architecture& architecture_;
  int64_t capacity_;
  c10::Device device_;
  std::vector<int64_t> free_rows_;
  std::map<int, WireTable> tables_;                   // by wire index
  std::map<int64_t, std::vector<int>> wires_of_row_;  // live rows
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_INTERVENTION_TABLE_H_
