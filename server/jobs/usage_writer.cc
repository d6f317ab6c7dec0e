#include "jobs/usage_writer.h"

#include <utility>

#include "base/id.h"
#include "base/status_macros.h"

namespace valuescope::jobs {

UsageWriter::UsageWriter(std::function<absl::Status(const store::UsageBatch&)> add,
                         UsageTally* tally, UsageWriterOptions options)
    : add_(std::move(add)), tally_(tally), options_(std::move(options)), writing_([this] {
        const absl::Status written = Write();
        if (!written.ok() && options_.on_store_error) options_.on_store_error(written);
        return options_.pause;
      }) {
  absl::MutexLock lock(&mutex_);
  batch_.writer = NewUuid();
}

void UsageWriter::Stop() {
  writing_.Stop();
  const absl::Status written = Write();
  if (!written.ok() && options_.on_store_error) options_.on_store_error(written);
}

absl::Status UsageWriter::Write() {
  absl::MutexLock lock(&mutex_);
  VS_RETURN_IF_ERROR(Send());
  batch_.usage = tally_->Take();
  ++batch_.number;
  return Send();
}

absl::Status UsageWriter::Send() {
  if (batch_.usage.empty()) return absl::OkStatus();
  VS_RETURN_IF_ERROR(add_(batch_));
  batch_.usage.clear();
  return absl::OkStatus();
}

}  // namespace valuescope::jobs
