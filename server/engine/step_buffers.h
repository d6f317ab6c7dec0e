// The index tensors of steps, made once for the largest step. A step writes its numbers and takes
// views, so the decode loop allocates nothing for them, and whatever holds on to their addresses,
// as a recorded graph of a GPU's work does, finds the next step's numbers there.
#ifndef VALUESCOPE_ENGINE_STEP_BUFFERS_H_
#define VALUESCOPE_ENGINE_STEP_BUFFERS_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <span>

namespace valuescope::engine {

// A list of indices that the host writes and the device reads. For a GPU it is in pinned memory and
// copied without waiting, which is safe because every step ends by waiting for what it launched.
class IndexBuffer {
 public:
  IndexBuffer(int64_t capacity, c10::Device device);

  void Clear() { size_ = 0; }
  // The capacity is the caller's promise.
  void Push(int64_t value);
  // `count` zeros in place of what was there.
  void FillZeros(int64_t count);

  int64_t size() const { return size_; }
  std::span<int64_t> values() { return {data_, static_cast<size_t>(size_)}; }

  // What was written, on the device: [size] int64.
  at::Tensor OnDevice() const;

 private:
  at::Tensor host_;    // [capacity] int64
  at::Tensor device_;  // [capacity] int64; host_ itself where the device is the CPU
  int64_t* data_;
  int64_t size_ = 0;
};

// As StepBatch names them.
struct StepBuffers {
  StepBuffers(int64_t max_tokens, int64_t max_sequences, int64_t max_blocks, c10::Device device);

  // Empties all but block_tables, which are written by FillZeros.
  void Clear();

  IndexBuffer token_ids, positions, sequences, cache_slots, table_rows, logit_tokens, block_tables;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_STEP_BUFFERS_H_
