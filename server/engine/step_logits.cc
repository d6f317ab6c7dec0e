#include "engine/step_logits.h"

#include <ATen/Parallel.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <span>

namespace valuescope::engine {
namespace {

// Whether a GPU can spare the host from reading whole rows of logits.
bool OnlyLargestWanted(const std::vector<StepPart>& parts, const at::Tensor& logits) {
  return !logits.is_cpu() && logits.size(0) > 0 &&
         std::all_of(parts.begin(), parts.end(),
                     [](const StepPart& part) { return part.sequence->TakesLargest(); });
}

// The device finds each row's largest logit, and the host reads one number a row.
std::vector<absl::Status> ReadLargest(const std::vector<StepPart>& parts, const at::Tensor& logits,
                                      const DeviceQueue& queue) {
  const at::Tensor largest =
      queue.ToHost(at::where(logits.isfinite().all(-1), logits.argmax(-1), -1));
  const int64_t* next = largest.const_data_ptr<int64_t>();
  std::vector<absl::Status> read;
  for (const StepPart& part : parts) {
    const bool wants = part.sequence->WantsLogits(part.first + part.count - 1);
    read.push_back(wants ? part.sequence->ReadLargest(*next++) : absl::OkStatus());
  }
  return read;
}

// A row of logits, and whose it is.
struct PartRow {
  size_t part = 0, row = 0;
  std::span<const float> logits;
};

std::vector<PartRow> RowsOf(const std::vector<StepPart>& parts, const at::Tensor& logits) {
  const auto vocabulary = static_cast<size_t>(logits.size(1));
  const float* next = logits.const_data_ptr<float>();
  std::vector<PartRow> rows;
  rows.reserve(static_cast<size_t>(logits.size(0)));
  for (size_t i = 0; i < parts.size(); ++i) {
    const StepPart& part = parts[i];
    size_t wanted = 0;
    for (int64_t position = part.first; position < part.first + part.count; ++position) {
      if (!part.sequence->WantsLogits(position)) continue;
      rows.push_back({i, wanted++, {next, vocabulary}});
      next += vocabulary;
    }
    part.sequence->ExpectLogits(wanted);
  }
  return rows;
}

// Row by row on all threads: one sequence may have as many as a step has tokens.
std::vector<absl::Status> ReadRows(const std::vector<StepPart>& parts, const at::Tensor& on_device,
                                   const DeviceQueue& queue) {
  const at::Tensor logits = queue.ToHost(on_device);
  const std::vector<PartRow> rows = RowsOf(parts, logits);
  std::vector<absl::Status> of_rows(rows.size());
  at::parallel_for(0, static_cast<int64_t>(rows.size()), /*grain_size=*/1,
                   [&](int64_t begin, int64_t end) {
                     for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
                       const PartRow& row = rows[i];
                       of_rows[i] = parts[row.part].sequence->ReadLogits(row.row, row.logits);
                     }
                   });
  std::vector<absl::Status> read(parts.size());
  for (size_t i = 0; i < rows.size(); ++i) read[rows[i].part].Update(of_rows[i]);
  return read;
}

}  // namespace

std::vector<absl::Status> ReadStepLogits(const std::vector<StepPart>& parts,
                                         const at::Tensor& logits, const DeviceQueue& queue) {
  return OnlyLargestWanted(parts, logits) ? ReadLargest(parts, logits, queue)
                                          : ReadRows(parts, logits, queue);
}

}  // namespace valuescope::engine
