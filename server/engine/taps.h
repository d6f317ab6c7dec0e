// Taps of one request: which tokens of which wires are read in a step, and what they add up to.
// Reductions run on the device, so that what comes back is what was asked for and not every
// activation.
#ifndef VALUESCOPE_ENGINE_TAPS_H_
#define VALUESCOPE_ENGINE_TAPS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/request.h"
#include "engine/token_scope.h"
#include "model/architecture.h"
#include "model/step.h"

namespace valuescope::engine {

class SequenceTaps {
 public:
  // INVALID_ARGUMENT with the field relative to the request ("taps[0].layers[2]");
  // RESOURCE_EXHAUSTED, reason CAPTURE_TOO_LARGE, where the results would take more than
  // `max_bytes`, computed before anything is allocated.
  static absl::StatusOr<SequenceTaps> Compile(std::vector<Tap> taps, const SequenceExtent& extent,
                                              const model::Architecture& architecture,
                                              int64_t max_bytes);

  // Bytes of host memory that running and reading may take at once.
  int64_t bytes() const { return bytes_; }

  // Allocates destinations, or empties them to start over.
  void Reset(c10::Device device);
  // Frees destinations and forgets what was read, until the next Reset.
  void Release();
  bool allocated() const { return allocated_; }

  // Adds to the step's program the tokens that are read of positions first .. first + count - 1,
  // which are tokens step_offset .. of the step. Tokens at or behind `end` are not read.
  void AddTo(model::StepProgram& program, int64_t first, int64_t count, int64_t step_offset,
             int64_t end);

  // The first position that may be read, so must run; INT64_MAX where there are no taps.
  int64_t FirstRead() const;

  // Whether a generated token must be fed although no token follows it.
  bool WantsGenerated() const { return wants_generated_; }
  bool empty() const { return taps_.empty(); }

  // The results so far, on the host, in tap order. A tap that read no token gives an empty tensor
  // [layers, 0, width].
  std::vector<Capture> Read() const;

 private:
  struct CompiledTap {
    Tap tap;
    TokenScope scope;
    std::vector<int> wires;                // normalised, one a layer
    std::vector<int64_t> widths;           // one a wire
    std::vector<int64_t> positions;        // read so far
    std::vector<at::Tensor> columns;       // one a wire: [width]; undefined: all
    std::vector<at::Tensor> destinations;  // one a wire: [rows, width]

    int64_t rows() const;
    void Release();
  };

  // Layers first .. first + count - 1 of a tap.
  static HostTensor ReadLayers(const CompiledTap& one, size_t first, size_t count);

  const model::Architecture* architecture_ = nullptr;
  int64_t bytes_ = 0;
  bool allocated_ = false;
  bool wants_generated_ = false;
  c10::Device device_ = c10::kCPU;
  std::vector<CompiledTap> taps_;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_TAPS_H_
