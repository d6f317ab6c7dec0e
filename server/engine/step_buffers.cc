#include "engine/step_buffers.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "base/check.h"

namespace valuescope::engine {

IndexBuffer::IndexBuffer(int64_t capacity, c10::Device device)
    : host_(at::empty({capacity},
                      at::TensorOptions().dtype(at::kLong).pinned_memory(device.is_cuda()))),
      device_(device.is_cpu()
                  ? host_
                  : at::empty({capacity}, at::TensorOptions().dtype(at::kLong).device(device))),
      data_(host_.mutable_data_ptr<int64_t>()) {}

void IndexBuffer::Push(int64_t value) {
  VS_CHECK(size_ < host_.numel());
  data_[size_++] = value;
}

void IndexBuffer::FillZeros(int64_t count) {
  VS_CHECK(count <= host_.numel());
  size_ = count;
  std::fill_n(data_, count, 0);
}

at::Tensor IndexBuffer::OnDevice() const {
  at::Tensor view = device_.narrow(0, 0, size_);
  if (!device_.is_same(host_)) view.copy_(host_.narrow(0, 0, size_), /*non_blocking=*/true);
  return view;
}

StepBuffers::StepBuffers(int64_t max_tokens, int64_t max_sequences, int64_t max_blocks,
                         c10::Device device)
    : token_ids(max_tokens, device),
      positions(max_tokens, device),
      sequences(max_tokens, device),
      cache_slots(max_tokens, device),
      table_rows(max_tokens, device),
      logit_tokens(max_tokens, device),
      block_tables(max_sequences * max_blocks, device) {}

void StepBuffers::Clear() {
  for (IndexBuffer* each :
       {&token_ids, &positions, &sequences, &cache_slots, &table_rows, &logit_tokens}) {
    each->Clear();
  }
}

}  // namespace valuescope::engine
