// Where a NeuronRequest looks, and the scalar L that it asks about.
#ifndef VALUESCOPE_ENGINE_NEURON_TARGET_H_
#define VALUESCOPE_ENGINE_NEURON_TARGET_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/neuron_request.h"

namespace valuescope::engine {

// Positions of a sequence, ascending.
struct NeuronPlaces {
  std::vector<int64_t> asked;  // where neurons are asked about, perhaps none
  std::vector<int64_t> read;   // what L is made of, at least one
};

// INVALID_ARGUMENT naming "tokens" or "target.tokens".
absl::StatusOr<NeuronPlaces> PlacesOf(const NeuronRequest& request);

int64_t LengthOf(const NeuronRequest& request);
// Prompt and response.
std::vector<int64_t> IdsOf(const NeuronRequest& request);
// Whether L is made of logits, else of the residual stream.
bool ReadsLogits(const NeuronRequest& request);

// What the last of the `num_read` positions that L reads, as many as `read` has, make of L of
// several sequences: [n] float32, from float32 `read` [n, k, width]: logits, or RESIDUAL_POST of
// the projection's layer. L itself where k is num_read.
at::Tensor TargetPart(const NeuronRequest& request, int64_t num_read, const at::Tensor& read);

// The same of L's change: [n] float64, from `clean` [k, width] and `read` [n, k, width], both as
// TargetPart reads them. What L reads before these is as it was.
at::Tensor TargetChanges(const NeuronRequest& request, int64_t num_read, const at::Tensor& clean,
                         const at::Tensor& read);

// What adding factors [n] times `changes` [n, vocabulary] to logits makes of the log-probability of
// `token`: [n] float64, from clean log-probabilities [vocabulary]. All are float32, and rows of
// `changes` without gaps. No digit of a small change is lost to the size of the logits.
at::Tensor LogprobChanges(const at::Tensor& clean, const at::Tensor& changes,
                          const at::Tensor& factors, int64_t token);

// int64 on the device.
at::Tensor OnDevice(std::span<const int64_t> numbers, c10::Device device);

// x as float32 on the host.
std::vector<float> Numbers(const at::Tensor& x);

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_NEURON_TARGET_H_
