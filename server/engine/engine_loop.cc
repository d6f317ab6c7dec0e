#include "engine/engine_loop.h"

#include <ATen/Parallel.h>
#include <ATen/ops/where.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <deque>
#include <map>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/memory_ledger.h"
#include "base/status_macros.h"
#include "engine/courier.h"
#include "engine/device_queue.h"
#include "engine/intervention_table.h"
#include "engine/queue_shares.h"
#include "engine/recorded_steps.h"
#include "engine/sampler.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"
#include "engine/served_model.h"
#include "engine/step_buffers.h"
#include "engine/taps.h"
#include "model/site.h"

namespace valuescope::engine {
namespace {

constexpr int kMaxTopLogprobs = 20;
// Of a step that is recorded, so that short sequences share recordings.
constexpr int64_t kLeastRecordedBlocks = 4;
constexpr absl::Duration kQueueRetry = absl::Seconds(1);
// Of intervention tables, between two steps: a few milliseconds, of which a step takes tens.
constexpr int64_t kBytesWrittenAStep = int64_t{8} << 20;

// What a failed device ends everything with. It fails every call that follows, so only another
// process can go on.
absl::Status DeviceFailed() {
  return ErrorWithReason(absl::StatusCode::kUnavailable, "DEVICE_FAILED",
                         "the model's device failed; the server has to start again");
}

class RunningHandle : public Running {
 public:
  explicit RunningHandle(Cancellation cancellation) : cancellation_(std::move(cancellation)) {}
  void Cancel() override { cancellation_.Cancel(); }

 private:
  Cancellation cancellation_;
};

// Gives a request's place back before its end is told: who hears of it may send the next one.
class PlacedObserver : public Observer {
 public:
  PlacedObserver(std::shared_ptr<Observer> observer,
                 std::shared_ptr<const QueueShares::Place> place)
      : observer_(std::move(observer)), place_(std::move(place)) {}
  void OnDelta(const Delta& delta) override { observer_->OnDelta(delta); }
  void OnFinish(absl::StatusOr<Completion> completion) override {
    place_.reset();
    observer_->OnFinish(std::move(completion));
  }

 private:
  const std::shared_ptr<Observer> observer_;
  std::shared_ptr<const QueueShares::Place> place_;
};

class EngineLoop : public Engine {
 public:
  EngineLoop(std::unique_ptr<model::Transformer> transformer,
             std::shared_ptr<const text::TextModel> text, const EngineOptions& options,
             model::KvCache cache, int64_t num_blocks)
      : transformer_(std::move(transformer)),
        text_(std::move(text)),
        options_(options),
        cache_(std::move(cache)),
        scheduler_options_{.num_blocks = num_blocks,
                           .max_batch_rows = options.max_batch_rows,
                           .max_step_tokens = options.max_step_tokens},
        scheduler_(scheduler_options_),
        queue_(transformer_->device()),
        steps_(*transformer_, options.make_recorder ? options.make_recorder() : nullptr),
        tables_(transformer_->device(), options.intervention_memory_bytes,
                /*keeps_addresses=*/steps_.records()),
        most_{.sequences = std::min(options.max_batch_rows, options.max_step_tokens),
              .blocks = std::min(num_blocks,
                                 (architecture().max_positions + kBlockSize - 1) / kBlockSize)},
        buffers_(options.max_step_tokens, most_.sequences, most_.blocks, transformer_->device()),
        cache_bytes_(num_blocks *
                     model::KvCache::BytesPerBlock(architecture(), kBlockSize, options.dtype)),
        capture_memory_(options.capture_memory_bytes),
        kept_captures_(options.capture_memory_bytes / 2),
        request_memory_(options.request_memory_bytes),
        shares_(options.max_batch_rows, options.max_waiting) {
    program_.resize(static_cast<size_t>(model::NumWires(transformer_->architecture())));
    thread_ = std::thread([this] { Loop(); });
  }

  ~EngineLoop() override {
    Engine::Drain(absl::InfinitePast());
    thread_.join();
  }

  const model::Architecture& architecture() const override { return transformer_->architecture(); }

  absl::StatusOr<std::unique_ptr<Running>> Submit(Request request,
                                                  std::shared_ptr<Observer> observer) override {
    VS_ASSIGN_OR_RETURN(const SequenceExtent extent, CheckedExtent(request));
    // Before anything that takes long: being turned away is cheap.
    VS_RETURN_IF_ERROR(CheckAccepts());
    auto place = shares_.Take(request.tenant, request.client);
    if (place == nullptr) {
      return RetryLater("QUEUE_FULL",
                        "others' requests may have what is left of the queue; it is shared",
                        kQueueRetry);
    }
    observer = std::make_shared<PlacedObserver>(std::move(observer), std::move(place));
    VS_ASSIGN_OR_RETURN(auto interventions, InterventionsFor(extent, request));
    VS_ASSIGN_OR_RETURN(auto taps, CompiledFor(extent, request.taps));
    VS_ASSIGN_OR_RETURN(auto request_memory, TakeRequestMemory(Sequence::HostBytes(request)));
    auto capture_memory = capture_memory_.Take(taps.bytes());
    if (capture_memory == nullptr) return CaptureMemoryFull();
    request.interventions.clear();  // compiled
    auto sequence = std::make_shared<Sequence>(
        next_id_.fetch_add(1), std::move(request), std::move(interventions), std::move(taps),
        std::move(observer), *text_,
        Sequence::Leases{.request = std::move(request_memory),
                         .captures = std::move(capture_memory)},
        news_);
    auto handle = std::make_unique<RunningHandle>(sequence->cancellation());
    absl::MutexLock lock(&mutex_);
    VS_RETURN_IF_ERROR(CheckAcceptsLocked());
    inbox_.push_back(std::move(sequence));
    return handle;
  }

  absl::Status Check(const Request& request) const override {
    VS_ASSIGN_OR_RETURN(const SequenceExtent extent, CheckedExtent(request));
    VS_RETURN_IF_ERROR(InterventionsFor(extent, request).status());
    return CompiledFor(extent, request.taps).status();
  }

  absl::Status CheckAccepts() const override {
    absl::MutexLock lock(&mutex_);
    return CheckAcceptsLocked();
  }

  absl::StatusOr<std::shared_ptr<MemoryLedger::Lease>> TakeRequestMemory(int64_t bytes) override {
    if (bytes > request_memory_.capacity()) {
      return NeverFits("REQUEST_TOO_LARGE",
                       absl::StrCat("the request takes ", bytes, " bytes of memory, which has ",
                                    request_memory_.capacity(), " for all of this model"));
    }
    std::shared_ptr<MemoryLedger::Lease> lease = request_memory_.Take(bytes);
    if (lease != nullptr) return lease;
    return RetryLater("REQUEST_MEMORY_FULL",
                      absl::StrCat("the requests that run or wait hold ", request_memory_.used(),
                                   " of this model's ", request_memory_.capacity(),
                                   " bytes, and this one needs ", bytes),
                      kQueueRetry);
  }

  absl::Status CheckInterventionBytes(int64_t bytes) const override {
    constexpr int64_t kRows = InterventionTables::kLeastCapacity;
    if (bytes <= options_.intervention_memory_bytes / kRows) return absl::OkStatus();
    return TooLargeForTables(bytes > INT64_MAX / kRows ? INT64_MAX : bytes * kRows);
  }

  absl::StatusOr<KeptCaptures> KeepCaptures(int64_t bytes) override {
    if (bytes > kept_captures_.capacity()) {
      return NeverFits("CAPTURES_TOO_LARGE",
                       absl::StrCat("captures that are kept together take ", bytes,
                                    " bytes, allowed are ", kept_captures_.capacity(),
                                    "; give fewer responses or fewer layers at once"));
    }
    using Leases = std::array<std::shared_ptr<const MemoryLedger::Lease>, 2>;
    auto leases =
        std::make_shared<Leases>(Leases{kept_captures_.Take(bytes), capture_memory_.Take(bytes)});
    if ((*leases)[0] != nullptr && (*leases)[1] != nullptr) return leases;
    return CaptureMemoryFull();
  }

  absl::StatusOr<HostTensor> WriteDirections(int layer) const override {
    VS_ASSIGN_OR_RETURN(const at::Tensor directions, transformer_->WriteDirections(layer));
    HostTensor tensor{.dtype = DType::kFloat32, .shape = directions.sizes().vec(), .bytes = {}};
    tensor.bytes.assign(static_cast<const char*>(directions.const_data_ptr()), directions.nbytes());
    return tensor;
  }

  EngineStatistics statistics() const override {
    absl::MutexLock lock(&mutex_);
    EngineStatistics statistics = statistics_;
    statistics.waiting += static_cast<int64_t>(inbox_.size());
    statistics.cache_bytes = cache_bytes_;
    statistics.capture_memory_bytes = capture_memory_.used();
    statistics.request_memory_bytes = request_memory_.used();
    return statistics;
  }

  void Drain(absl::Time deadline, const absl::Status& why) override {
    absl::MutexLock lock(&mutex_);
    if (!abort_) refusal_ = why;
    const auto idle = [this]()
                          ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return idle_ && inbox_.empty(); };
    mutex_.AwaitWithDeadline(absl::Condition(&idle), deadline);
    abort_ = true;
    mutex_.Await(absl::Condition(&stopped_));
  }

 private:
  absl::Status CaptureMemoryFull() const {
    return RetryLater("CAPTURE_MEMORY_FULL",
                      absl::StrCat("the captures of other requests hold ", capture_memory_.used(),
                                   " of this model's ", capture_memory_.capacity(), " bytes"),
                      kQueueRetry);
  }

  absl::Status CheckAcceptsLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (statistics_.device_failed) return DeviceFailed();
    VS_RETURN_IF_ERROR(refusal_);
    if (static_cast<int64_t>(inbox_.size()) + statistics_.waiting < options_.max_waiting)
      return absl::OkStatus();
    return RetryLater("QUEUE_FULL",
                      absl::StrCat("the queue of ", options_.max_waiting, " requests is full"),
                      kQueueRetry);
  }

  // --- Validation
  // ----------------------------------------------------------------------------------------------------

  absl::Status CheckIds(absl::string_view field, const std::vector<int32_t>& ids) const {
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] < 0 || ids[i] >= architecture().vocabulary) {
        return OutOfRange(absl::StrCat(std::string(field), "[", i, "]"), ids[i], 0,
                          static_cast<double>(architecture().vocabulary - 1));
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<SequenceExtent> CheckedExtent(const Request& request) const {
    VS_RETURN_IF_ERROR(CheckTokens(request));
    const SequenceExtent extent{.prompt = static_cast<int64_t>(request.prompt.size()),
                                .most = Sequence::MostFed(request),
                                .generates = request.sampling.has_value()};
    if (scheduler_.CanEverFit(extent.most)) return extent;
    return NeverFits("KV_CACHE_TOO_SMALL",
                     absl::StrCat("a request of ", extent.most,
                                  " tokens does not fit this server's key/value cache of ",
                                  scheduler_options_.num_blocks * kBlockSize, " tokens"));
  }

  absl::Status TooLargeForTables(int64_t bytes) const {
    return NeverFits("INTERVENTIONS_TOO_LARGE",
                     absl::StrCat("`interventions`: take ", bytes, " bytes of tables, allowed are ",
                                  options_.intervention_memory_bytes,
                                  "; use fewer positions, directions or layers"));
  }

  // Whether the tables could hold them if nobody else were there.
  absl::StatusOr<std::shared_ptr<const CompiledInterventions>> InterventionsFor(
      const SequenceExtent& extent, const Request& request) const {
    std::shared_ptr<const PreparedInterventions> prepared = request.prepared;
    if (prepared == nullptr) {
      VS_ASSIGN_OR_RETURN(prepared, Prepare(request.interventions));
    }
    VS_ASSIGN_OR_RETURN(auto compiled, prepared->For(extent));
    const int64_t bytes = InterventionTables(c10::kCPU).BytesWith(*compiled);
    if (bytes <= options_.intervention_memory_bytes) return compiled;
    return TooLargeForTables(bytes);
  }

  // Tokens trimmed or not fed never reach a tap, so taps may hope for every token that is fed.
  absl::StatusOr<SequenceTaps> CompiledFor(const SequenceExtent& extent,
                                           const std::vector<Tap>& taps) const {
    return SequenceTaps::Compile(taps, extent, architecture(), options_.capture_memory_bytes);
  }

  absl::Status CheckTokens(const Request& request) const {
    const int64_t context = architecture().max_positions;
    const int64_t prompt = static_cast<int64_t>(request.prompt.size());
    const int64_t response = static_cast<int64_t>(request.given_response.size());
    if (prompt == 0) return InvalidField("prompt", "has no tokens; it needs at least one");
    // At least one token must fit behind a prompt that is continued.
    const int64_t most_prompt = context - (request.sampling ? 1 : 0);
    if (prompt > most_prompt) {
      return InvalidField("prompt",
                          absl::StrCat("has ", prompt, " tokens, allowed are 1 to ", most_prompt,
                                       " with this model's context of ", context, " tokens"),
                          "PROMPT_TOO_LONG");
    }
    if (response > context - prompt) {
      return InvalidField("given_response",
                          absl::StrCat("has ", response, " tokens, allowed are at most ",
                                       context - prompt, " behind a prompt of ", prompt,
                                       " with this model's context of ", context, " tokens"),
                          "RESPONSE_TOO_LONG");
    }
    VS_RETURN_IF_ERROR(CheckIds("prompt", request.prompt));
    VS_RETURN_IF_ERROR(CheckIds("given_response", request.given_response));
    if (request.top_logprobs < 0 || request.top_logprobs > kMaxTopLogprobs) {
      return OutOfRange("top_logprobs", request.top_logprobs, 0, kMaxTopLogprobs);
    }
    if (!request.sampling) return absl::OkStatus();
    const Sampling& sampling = *request.sampling;
    if (sampling.max_tokens < 1 || sampling.max_tokens > context - prompt) {
      return OutOfRange("sampling.max_tokens", sampling.max_tokens, 1,
                        static_cast<double>(context - prompt));
    }
    if (sampling.top_logprobs > kMaxTopLogprobs) {
      return OutOfRange("sampling.top_logprobs", sampling.top_logprobs, 0, kMaxTopLogprobs);
    }
    return InField("sampling", CheckSampling(sampling, architecture().vocabulary));
  }

  // --- The loop
  // ------------------------------------------------------------------------------------------------------

  void Loop() {
    at::set_num_threads(options_.threads > 0
                            ? options_.threads
                            : static_cast<int>(std::thread::hardware_concurrency()));
    bool device_failed = false;
    try {
      queue_.TakeThread();
      while (TakeInbox()) RunOnce();
    } catch (const c10::AcceleratorError&) {
      device_failed = true;
    }
    const absl::Status end = device_failed ? DeviceFailed() : WhyItDrains();
    // Nothing of what the requests hold is given back one by one: a failed device cannot do it.
    for (auto& [id, sequence] : active_) sequence->Tell(end);
    active_.clear();
    {
      absl::MutexLock lock(&mutex_);
      statistics_.device_failed = device_failed;
      statistics_.step_began = absl::InfiniteFuture();
      statistics_.running = statistics_.waiting = 0;
      statistics_.cache_used_ratio = statistics_.cache_promised_ratio = 0;
      refusal_ = end;  // nobody comes after those that are told here
      for (const auto& sequence : inbox_) sequence->Tell(end);
      inbox_.clear();
    }
    SendNews();
    courier_.Stop();
    absl::MutexLock lock(&mutex_);
    idle_ = stopped_ = true;
  }

  absl::Status WhyItDrains() const {
    absl::MutexLock lock(&mutex_);
    return refusal_;
  }

  void RunOnce() {
    EndCancelledAndExpired();
    Rows rows(*this);
    const std::vector<StepItem> step = Prepared(scheduler_.Plan(rows));
    Publish();
    SendNews();  // who ended before the step does not wait for it
    if (step.empty()) return;
    RunStepSafely(step);
    Publish();
    SendNews();
  }

  void SendNews() { courier_.Deliver(std::exchange(news_, {})); }

  // Takes new requests, waiting for one where there is nothing else to do; false when told to stop.
  bool TakeInbox() {
    std::deque<std::shared_ptr<Sequence>> arrived;
    {
      absl::MutexLock lock(&mutex_);
      idle_ = active_.empty();
      if (idle_) {
        statistics_.step_began = absl::InfiniteFuture();
        const auto wake = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
          return abort_ || !inbox_.empty();
        };
        mutex_.Await(absl::Condition(&wake));
      }
      if (abort_) return false;
      arrived.swap(inbox_);
      idle_ = active_.empty() && arrived.empty();
      statistics_.waiting += static_cast<int64_t>(arrived.size());  // until Publish counts them
      statistics_.step_began = absl::Now();
    }
    for (std::shared_ptr<Sequence>& sequence : arrived) {
      scheduler_.Add(sequence->TakeArrival());
      active_.emplace(sequence->id(), std::move(sequence));
    }
    return true;
  }

  void EndCancelledAndExpired() {
    const absl::Time now = absl::Now();
    std::vector<std::pair<SequenceId, absl::Status>> ended;
    for (const auto& [id, sequence] : active_) {
      if (sequence->cancelled()) {
        ended.emplace_back(id, ErrorWithReason(absl::StatusCode::kCancelled, "CANCELLED",
                                               "the request was cancelled"));
      } else if (now > sequence->request().deadline) {
        ended.emplace_back(id,
                           ErrorWithReason(absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED",
                                           "the deadline passed before the request was done"));
      }
    }
    for (const auto& [id, status] : ended) Remove(id)->Tell(status);
  }

  std::shared_ptr<Sequence> Remove(SequenceId id) {
    scheduler_.Remove(id);
    std::shared_ptr<Sequence> sequence = std::move(active_.at(id));
    active_.erase(id);
    sequence->ReleaseRows(tables_);
    return sequence;
  }

  // Rows of tables for those who steer. Who finds no memory for them is ended by Prepared.
  class Rows : public Scheduler::Reservations {
   public:
    explicit Rows(EngineLoop& loop) : loop_(loop) {}
    bool Reserve(SequenceId id) override {
      try {
        return loop_.active_.at(id)->AcquireRows(loop_.tables_);
      } catch (const c10::AcceleratorError&) {
        throw;
      } catch (const std::exception&) {
        loop_.without_memory_.push_back(id);
        return false;
      }
    }
    bool Ready(SequenceId id) override {
      if (!std::exchange(has_written_, true)) loop_.WriteRows();
      return loop_.active_.at(id)->HasRows(loop_.tables_);
    }

   private:
    EngineLoop& loop_;
    bool has_written_ = false;  // in this plan
  };

  // Goes on with the rows that were acquired, as far as the others' next step may wait for it.
  void WriteRows() {
    try {
      tables_.WriteRows(kBytesWrittenAStep);
    } catch (const c10::AcceleratorError&) {
      throw;
    } catch (const std::exception&) {
      for (const auto& [id, sequence] : active_) {
        if (sequence->AwaitsNextWrite(tables_)) without_memory_.push_back(id);
      }
    }
  }

  static absl::Status OutOfMemory() {
    return NeverFits("OUT_OF_MEMORY",
                     "there was no memory for the request's interventions or captures");
  }

  // Follows what the scheduler decided. A request that finds no memory for what running it takes
  // ends alone, and the others of the step go on.
  std::vector<StepItem> Prepared(std::vector<StepItem> step) {
    for (const SequenceId id : scheduler_.preempted()) active_.at(id)->SendBack(tables_);
    for (const SequenceId id : without_memory_) Remove(id)->Tell(OutOfMemory());
    without_memory_.clear();
    std::erase_if(step, [this](const StepItem& item) {
      try {
        active_.at(item.id)->Prepare(item.first, transformer_->device());
        return false;
      } catch (const c10::AcceleratorError&) {
        throw;
      } catch (const std::exception&) {
        Remove(item.id)->Tell(OutOfMemory());
        return true;
      }
    });
    return step;
  }

  // An operator that throws ends the requests of its step and nobody else, unless it was the device
  // that failed.
  void RunStepSafely(const std::vector<StepItem>& step) {
    absl::Status failure;
    try {
      RunStep(step);
      return;
    } catch (const c10::OutOfMemoryError&) {
      failure = NeverFits("DEVICE_OUT_OF_MEMORY", "the device ran out of memory in this step");
    } catch (const c10::AcceleratorError&) {
      throw;
    } catch (const std::exception&) {
      failure =
          ErrorWithReason(absl::StatusCode::kInternal, "STEP_FAILED", "a step of the model failed");
    }
    queue_.Wait();  // the next step writes what this one's launches read
    for (const StepItem& item : step) {
      if (active_.contains(item.id)) Remove(item.id)->Tell(failure);
    }
  }

  void RunStep(const std::vector<StepItem>& step) {
    FillBuffers(step);
    const at::Tensor logits =
        steps_.Run(Batch(step), cache_, program_, shape_.repeatable).narrow(0, 0, num_logits_);
    CountStep(step);
    const std::vector<absl::Status> read =
        OnlyLargestWanted(step) ? ReadLargest(step, logits) : ReadLogits(step, logits);
    int64_t generated = 0;
    for (size_t i = 0; i < step.size(); ++i) {
      if (!read[i].ok()) {
        Remove(step[i].id)->Tell(read[i]);
        continue;
      }
      Sequence& sequence = *active_.at(step[i].id);
      generated -= sequence.generated_tokens();
      sequence.Ran(step[i].first, step[i].count);
      generated += sequence.generated_tokens();
      Settle(sequence, step[i].first + step[i].count);
    }
    absl::MutexLock lock(&mutex_);
    statistics_.generated_tokens += generated;
  }

  // Whether a GPU can spare the host from reading whole rows of logits.
  bool OnlyLargestWanted(const std::vector<StepItem>& step) const {
    return !transformer_->device().is_cpu() && num_logits_ > 0 &&
           std::all_of(step.begin(), step.end(), [this](const StepItem& item) {
             return active_.at(item.id)->TakesLargest();
           });
  }

  // The device finds each row's largest logit, and the host reads one number a row.
  std::vector<absl::Status> ReadLargest(const std::vector<StepItem>& step,
                                        const at::Tensor& logits) {
    const at::Tensor largest =
        queue_.ToHost(at::where(logits.isfinite().all(-1), logits.argmax(-1), -1));
    const int64_t* next = largest.const_data_ptr<int64_t>();
    std::vector<absl::Status> read;
    for (const StepItem& item : step) {
      Sequence& sequence = *active_.at(item.id);
      const bool wants = sequence.WantsLogits(item.first + item.count - 1);
      read.push_back(wants ? sequence.ReadLargest(*next++) : absl::OkStatus());
    }
    return read;
  }

  // Every sequence of the step reads its rows of `logits` [num_logits, vocabulary], on all threads.
  std::vector<absl::Status> ReadLogits(const std::vector<StepItem>& step,
                                       const at::Tensor& on_device) {
    const at::Tensor logits = queue_.ToHost(on_device);
    const auto vocabulary = static_cast<size_t>(architecture().vocabulary);
    const float* next_row = logits.const_data_ptr<float>();
    std::vector<std::vector<std::span<const float>>> rows(step.size());
    for (size_t i = 0; i < step.size(); ++i) {
      const StepItem& item = step[i];
      for (int64_t position = item.first; position < item.first + item.count; ++position) {
        if (!active_.at(item.id)->WantsLogits(position)) continue;
        rows[i].emplace_back(next_row, vocabulary);
        next_row += vocabulary;
      }
    }
    std::vector<absl::Status> read(step.size());
    at::parallel_for(0, static_cast<int64_t>(step.size()), /*grain_size=*/1,
                     [&](int64_t begin, int64_t end) {
                       for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
                         read[i] = active_.at(step[i].id)->ReadLogits(rows[i]);
                     });
    return read;
  }

  // How many sequences and blocks of each a step has.
  struct StepShape {
    int64_t sequences = 0;
    int64_t blocks = 0;
    bool repeatable = false;  // padded, so that a recording may serve
  };

  // A decode step is as large as a recording of it, if anything is recorded.
  StepShape ShapeOf(const std::vector<StepItem>& step) const {
    StepShape shape{.sequences = static_cast<int64_t>(step.size()),
                    .blocks = 1,
                    .repeatable = steps_.records()};
    for (const StepItem& item : step) {
      const Sequence& sequence = *active_.at(item.id);
      shape.blocks =
          std::max(shape.blocks, static_cast<int64_t>(scheduler_.Blocks(item.id).size()));
      shape.repeatable &=
          item.count == 1 && sequence.WantsLogits(item.first) && !sequence.has_taps();
    }
    if (!shape.repeatable) return shape;
    shape.sequences = RecordedExtent(shape.sequences, most_.sequences);
    shape.blocks = RecordedExtent(
        std::max(shape.blocks, std::min(kLeastRecordedBlocks, most_.blocks)), most_.blocks);
    return shape;
  }

  void FillBuffers(const std::vector<StepItem>& step) {
    buffers_.Clear();
    shape_ = ShapeOf(step);
    for (model::WireProgram& wire : program_) {
      wire.stages.clear();
      wire.taps.clear();
    }
    const auto max_blocks = static_cast<size_t>(shape_.blocks);
    buffers_.block_tables.FillZeros(shape_.sequences * shape_.blocks);
    std::vector<int64_t> rows_seen;
    for (size_t s = 0; s < step.size(); ++s) {
      Sequence& sequence = *active_.at(step[s].id);
      const std::vector<int64_t>& blocks = scheduler_.Blocks(step[s].id);
      std::copy(blocks.begin(), blocks.end(),
                buffers_.block_tables.values().subspan(s * max_blocks).begin());
      const int64_t offset = buffers_.token_ids.size();
      for (int64_t position = step[s].first; position < step[s].first + step[s].count; ++position) {
        if (sequence.WantsLogits(position)) {
          buffers_.logit_tokens.Push(buffers_.token_ids.size());
        }
        buffers_.token_ids.Push(sequence.ids()[static_cast<size_t>(position)]);
        buffers_.positions.Push(position);
        buffers_.sequences.Push(static_cast<int64_t>(s));
        buffers_.cache_slots.Push(blocks[static_cast<size_t>(position / kBlockSize)] * kBlockSize +
                                  position % kBlockSize);
        const int64_t row = sequence.RowAt(position);
        buffers_.table_rows.Push(row);
        if (row != 0) rows_seen.push_back(row);
      }
      if (!sequence.taps().empty()) {
        sequence.taps().AddTo(program_, step[s].first, step[s].count, offset, sequence.TapEnd());
      }
    }
    num_tokens_ = buffers_.token_ids.size();
    num_logits_ = buffers_.logit_tokens.size();
    PadBuffers(static_cast<int64_t>(step.size()));
    tables_.AddTo(program_);
    applied_.fill(0);
    tables_.CountApplied(buffers_.table_rows.values(), applied_);
    std::sort(rows_seen.begin(), rows_seen.end());
    distinct_rows_ = std::unique(rows_seen.begin(), rows_seen.end()) - rows_seen.begin();
  }

  // Sequences `first` .. of the step's shape: one token each, whose key and value go to a block
  // that no sequence has.
  void PadBuffers(int64_t first) {
    for (int64_t s = first; s < shape_.sequences; ++s) {
      buffers_.logit_tokens.Push(buffers_.token_ids.size());
      buffers_.token_ids.Push(0);
      buffers_.positions.Push(0);
      buffers_.sequences.Push(s);
      buffers_.cache_slots.Push(scheduler_options_.num_blocks * kBlockSize);
      buffers_.table_rows.Push(0);
    }
  }

  model::StepBatch Batch(const std::vector<StepItem>& step) const {
    int64_t most_tokens = 0;
    for (const StepItem& item : step) most_tokens = std::max(most_tokens, item.count);
    return {
        .token_ids = buffers_.token_ids.OnDevice(),
        .positions = buffers_.positions.OnDevice(),
        .sequences = buffers_.sequences.OnDevice(),
        .cache_slots = buffers_.cache_slots.OnDevice(),
        .block_tables = buffers_.block_tables.OnDevice().view({shape_.sequences, shape_.blocks}),
        .table_rows = buffers_.table_rows.OnDevice(),
        .logit_tokens = buffers_.logit_tokens.OnDevice(),
        .most_tokens = most_tokens};
  }

  // The first `fed` tokens of the sequence are in the cache now.
  void Settle(Sequence& sequence, int64_t fed) {
    const SequenceId id = sequence.id();
    scheduler_.Advance(id, fed, std::max(fed, sequence.known()), sequence.TakeNewKeys());
    if (sequence.starts_over()) sequence.taps().Reset(transformer_->device());
    if (sequence.done()) {
      FinishSafely(*Remove(id));
    } else if (sequence.starts_over()) {
      sequence.StartOver(scheduler_.StartOver(id, sequence.known()));
    }
  }

  // Reading captures takes memory that may not be there; the observer hears of the end in any case.
  static void FinishSafely(Sequence& sequence) {
    absl::StatusOr<Completion> completion = absl::InternalError("");
    try {
      completion = sequence.TakeCompletion();
    } catch (const c10::AcceleratorError&) {
      sequence.Tell(DeviceFailed());
      throw;
    } catch (const std::exception&) {
      completion = NeverFits("HOST_OUT_OF_MEMORY", "there was no memory for the result");
    }
    sequence.Tell(std::move(completion));
  }

  // Where requests and blocks are, for who asks and for the bound of the queue.
  void Publish() {
    absl::MutexLock lock(&mutex_);
    statistics_.running = scheduler_.num_running();
    statistics_.waiting = scheduler_.num_waiting();
    statistics_.cache_used_ratio = scheduler_.used_ratio();
    statistics_.intervention_bytes = tables_.bytes();
    statistics_.cache_promised_ratio = scheduler_.promised_ratio();
    statistics_.cache_cached_ratio = scheduler_.cached_ratio();
    statistics_.prefix_hit_tokens = scheduler_.prefix_hit_tokens();
    statistics_.preemptions = scheduler_.preemptions();
  }

  // Of the tokens of a step, those of prompts and given responses; the others were generated.
  int64_t PromptTokens(const std::vector<StepItem>& step) const {
    int64_t tokens = 0;
    for (const StepItem& item : step) {
      const Request& request = active_.at(item.id)->request();
      const auto given =
          static_cast<int64_t>(request.prompt.size() + request.given_response.size());
      tokens += std::clamp<int64_t>(given - item.first, 0, item.count);
    }
    return tokens;
  }

  // Before the requests of the step hear of it, so that whoever has an answer finds it counted.
  void CountStep(const std::vector<StepItem>& step) {
    absl::MutexLock lock(&mutex_);
    ++statistics_.steps;
    statistics_.prompt_tokens += PromptTokens(step);
    statistics_.repeated_steps = steps_.num_repeated();
    statistics_.batch_rows = num_tokens_;
    statistics_.distinct_rows_last_step = distinct_rows_;
    statistics_.distinct_rows_max = std::max(statistics_.distinct_rows_max, distinct_rows_);
    for (size_t i = 0; i < applied_.size(); ++i)
      statistics_.interventions_applied[i] += applied_[i];
    for (const model::WireProgram& wire : program_) {
      for (const model::TapStage& tap : wire.taps) {
        statistics_.captured_bytes += tap.tokens.size(0) * tap.destination.size(1) * 4;
      }
    }
  }

  const std::unique_ptr<model::Transformer> transformer_;
  const std::shared_ptr<const text::TextModel> text_;
  const EngineOptions options_;

  // The engine's thread alone.
  model::KvCache cache_;
  const SchedulerOptions scheduler_options_;
  Scheduler scheduler_;
  DeviceQueue queue_;
  RecordedSteps steps_;
  InterventionTables tables_;
  model::StepProgram program_;
  const StepShape most_;  // of any step
  StepBuffers buffers_;
  StepShape shape_;         // of this step, padding included
  int64_t num_tokens_ = 0;  // of this step, without padding
  int64_t num_logits_ = 0;
  std::map<SequenceId, std::shared_ptr<Sequence>> active_;
  std::vector<SequenceId> without_memory_;  // for the rows that they asked for
  std::vector<News> news_;                  // of this step
  Courier courier_;
  int64_t distinct_rows_ = 0;
  std::array<int64_t, kNumOperations> applied_{};  // by the last step

  const int64_t cache_bytes_;
  // Host memory that captures may hold, over all requests. A request takes what its taps may need
  // before it is admitted and gives it back when the last copy of its result is gone, so a client
  // that does not read its results cannot make the server run out of memory: it makes others wait.
  MemoryLedger capture_memory_;
  MemoryLedger kept_captures_;  // the part of it that is kept together; counted in both
  MemoryLedger request_memory_;
  QueueShares shares_;

  mutable absl::Mutex mutex_;
  std::deque<std::shared_ptr<Sequence>> inbox_ ABSL_GUARDED_BY(mutex_);
  EngineStatistics statistics_ ABSL_GUARDED_BY(mutex_);
  absl::Status refusal_ ABSL_GUARDED_BY(mutex_);  // what new requests hear; OK while they are taken
  bool abort_ ABSL_GUARDED_BY(mutex_) = false;
  bool idle_ ABSL_GUARDED_BY(mutex_) = true;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<SequenceId> next_id_{1};

  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<MemoryLedger::Lease>> Engine::TakeRequestMemory(int64_t bytes) {
  return MemoryLedger(bytes).Take(bytes);
}

void Engine::Drain(absl::Time deadline) {
  Drain(deadline,
        ErrorWithReason(absl::StatusCode::kUnavailable, "DRAINING", "the server is shutting down"));
}

absl::StatusOr<std::unique_ptr<Engine>> StartEngine(std::unique_ptr<model::Transformer> transformer,
                                                    std::shared_ptr<const text::TextModel> text,
                                                    const EngineOptions& options) {
  const model::Architecture& architecture = transformer->architecture();
  const int64_t block_bytes =
      model::KvCache::BytesPerBlock(architecture, kBlockSize, transformer->dtype());
  const int64_t num_blocks = options.kv_cache_bytes / block_bytes;
  if (num_blocks < 1) {
    return NeverFits("KV_CACHE_TOO_SMALL",
                     absl::StrCat("kv_cache_bytes is ", options.kv_cache_bytes,
                                  ", this model needs at least ", block_bytes));
  }
  const int64_t for_padding = options.make_recorder ? 1 : 0;
  VS_ASSIGN_OR_RETURN(model::KvCache cache,
                      model::KvCache::Allocate(architecture, num_blocks + for_padding, kBlockSize,
                                               transformer->dtype(), transformer->device()));
  try {
    return std::make_unique<EngineLoop>(std::move(transformer), std::move(text), options,
                                        std::move(cache), num_blocks);
  } catch (const c10::Error&) {
    return NeverFits(
        "OUT_OF_MEMORY",
        absl::StrCat("there was no memory for the index tensors of steps of ",
                     options.max_batch_rows, " requests and ", options.max_step_tokens, " tokens"));
  }
}

}  // namespace valuescope::engine
