// Long because it is where admission, scheduling, tables, steps and news meet: what one thread does
// between two steps, in the order in which it does it.
#include "engine/engine_loop.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <map>
#include <thread>

#include "absl/cleanup/cleanup.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "engine/admission.h"
#include "engine/courier.h"
#include "engine/device_queue.h"
#include "engine/engine_memory.h"
#include "engine/failure_policy.h"
#include "engine/intervention_table.h"
#include "engine/neuron_run.h"
#include "engine/recorded_steps.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"
#include "engine/step_assembly.h"
#include "engine/step_logits.h"

namespace valuescope::engine {
namespace {

// Of intervention tables, between two steps: a few milliseconds, of which a step takes tens.
constexpr int64_t kBytesWrittenAStep = int64_t{8} << 20;

// What prompts may add to a step of people's answers, and the background's to any step of people:
// less than a reader notices, and yet enough tokens that they cost little more than in a step of
// their own.
constexpr absl::Duration kBesidePeople = absl::Milliseconds(100);
// A step of answers that a guest's prompt does not share: he notices how long he waits for its end.
constexpr absl::Duration kLongStep = absl::Milliseconds(100);

// `tensor` is float32, contiguous and on the CPU.
HostTensor ToHost(const at::Tensor& tensor) {
  HostTensor host{.dtype = DType::kFloat32, .shape = tensor.sizes().vec(), .bytes = {}};
  host.bytes.assign(static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes());
  return host;
}

class RunningHandle : public Running {
 public:
  explicit RunningHandle(Cancellation cancellation) : cancellation_(std::move(cancellation)) {}
  void Cancel() override { cancellation_.Cancel(); }

 private:
  Cancellation cancellation_;
};

class EngineLoop : public Engine {
 public:
  EngineLoop(std::unique_ptr<model::Transformer> transformer,
             std::shared_ptr<const text::TextModel> text, const EngineOptions& options,
             model::KvCache cache, int64_t num_blocks)
      : transformer_(std::move(transformer)),
        text_(std::move(text)),
        options_(options),
        scheduling_{.num_blocks = num_blocks,
                    .max_batch_rows = options.max_batch_rows,
                    .max_step_tokens = options.max_step_tokens},
        cache_bytes_(num_blocks *
                     model::KvCache::BytesPerBlock(architecture(), kBlockSize, options.dtype)),
        memory_(options),
        admission_(architecture(), options, scheduling_, memory_),
        cache_(std::move(cache)),
        scheduler_(scheduling_, options.weight_of, options.cache_share_of),
        queue_(transformer_->device()),
        steps_(*transformer_, options.make_recorder ? options.make_recorder() : nullptr),
        tables_(transformer_->device(), &memory_.tables,
                /*keeps_addresses=*/steps_.records()),
        assembly_(architecture(), scheduling_, steps_.records(), transformer_->device()),
        kept_weights_(memory_.neuron_runs) {
    thread_ = std::thread([this] { Loop(); });
  }

  ~EngineLoop() override {
    Engine::Drain(absl::InfinitePast());
    thread_.join();
  }

  const model::Architecture& architecture() const override { return transformer_->architecture(); }

  absl::StatusOr<std::unique_ptr<Running>> Submit(Request request,
                                                  std::shared_ptr<Observer> observer) override {
    VS_ASSIGN_OR_RETURN(const SequenceExtent extent, admission_.CheckedExtent(request));
    // Before anything that takes long: being turned away is cheap.
    VS_RETURN_IF_ERROR(CheckAccepts());
    VS_ASSIGN_OR_RETURN(Admission::Admitted admitted,
                        admission_.Admit(request, extent, std::move(observer)));
    request.interventions.clear();  // compiled
    auto sequence = std::make_shared<Sequence>(
        next_id_.fetch_add(1), std::move(request), std::move(admitted.interventions),
        std::move(admitted.taps), std::move(admitted.observer), *text_, std::move(admitted.leases),
        news_, options_.usage);
    auto handle = std::make_unique<RunningHandle>(sequence->cancellation());
    absl::MutexLock lock(&mutex_);
    VS_RETURN_IF_ERROR(CheckAcceptsLocked());
    inbox_.push_back(std::move(sequence));
    return handle;
  }

  absl::Status Check(const Request& request) const override { return admission_.Check(request); }

  absl::Status CheckAccepts() const override {
    absl::MutexLock lock(&mutex_);
    return CheckAcceptsLocked();
  }

  absl::StatusOr<std::shared_ptr<MemoryLedger::Lease>> TakeRequestMemory(int64_t bytes) override {
    return memory_.requests.Take(bytes);
  }

  absl::Status CheckInterventionBytes(int64_t bytes) const override {
    return memory_.CheckInterventionRows(bytes);
  }

  absl::StatusOr<KeptCaptures> KeepCaptures(int64_t bytes) override {
    return memory_.kept_captures.Take(bytes);
  }

  absl::Status CheckNeurons(const NeuronRequest& request) const override {
    return CheckNeuronRequest(request, architecture());
  }

  absl::StatusOr<std::vector<NeuronScores>> NeuronScoresOf(
      std::span<const NeuronRequest> requests, const Cancellation& cancellation) override {
    std::vector<NeuronScores> results;
    if (requests.empty()) return results;
    for (size_t i = 0; i < requests.size(); ++i) {
      if (absl::Status status = CheckNeurons(requests[i]); !status.ok()) {
        return InField(absl::StrCat("[", i, "]"), status);
      }
    }
    VS_ASSIGN_OR_RETURN(const NeuronWeights weights, WeightsOf(requests[0], cancellation));
    while (results.size() < requests.size()) {
      VS_ASSIGN_OR_RETURN(const auto run,
                          StartNeuronRun(*transformer_, requests.subspan(results.size()), weights,
                                         memory_.neuron_runs));
      while (!run->done()) {
        VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
        VS_RETURN_IF_ERROR(RunBetweenSteps([&run] { run->Advance(); }));
      }
      for (NeuronScores& own : run->Take()) {
        CountUsage(requests[results.size()]);
        results.push_back(std::move(own));
      }
    }
    return results;
  }

  absl::StatusOr<std::shared_ptr<const void>> KeepNeuronWeights(
      const NeuronRequest& request, const Cancellation& cancellation) override {
    VS_RETURN_IF_ERROR(CheckNeurons(request));
    return WeightsOf(request, cancellation);
  }

  absl::StatusOr<HostTensor> WriteDirections(int layer) const override {
    VS_ASSIGN_OR_RETURN(const at::Tensor directions, transformer_->WriteDirections(layer));
    return ToHost(directions);
  }

  absl::StatusOr<HostTensor> UnembeddingRows(int64_t first_token, int64_t count) const override {
    VS_ASSIGN_OR_RETURN(const at::Tensor rows, transformer_->UnembeddingRows(first_token, count));
    return ToHost(rows);
  }

  EngineStatistics statistics() const override {
    absl::MutexLock lock(&mutex_);
    EngineStatistics statistics = statistics_;
    statistics.waiting += static_cast<int64_t>(inbox_.size());
    statistics.cache_bytes = cache_bytes_;
    memory_.Report(statistics);
    return statistics;
  }

  void Drain(absl::Time deadline, const absl::Status& why) override {
    absl::MutexLock lock(&mutex_);
    // Of drains that meet, the one that ends requests first says why.
    if (!abort_ && deadline <= drained_by_) {
      refusal_ = why;
      drained_by_ = deadline;
    }
    const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return idle_ && inbox_.empty() && errands_.empty();
    };
    mutex_.AwaitWithDeadline(absl::Condition(&idle), deadline);
    abort_ = true;
    mutex_.Await(absl::Condition(&stopped_));
  }

 private:
  absl::Status CheckAcceptsLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (statistics_.device_failed) return DeviceFailed();
    VS_RETURN_IF_ERROR(refusal_);
    if (static_cast<int64_t>(inbox_.size()) + statistics_.waiting < options_.max_waiting)
      return absl::OkStatus();
    return admission_.QueueFull(
        absl::StrCat("the queue of ", options_.max_waiting, " requests is full"));
  }

  using NeuronWeights = std::shared_ptr<const model::GradientWeights>;

  // Those that somebody has now, where they will do; null where the request needs none.
  absl::StatusOr<NeuronWeights> WeightsOf(const NeuronRequest& request,
                                          const Cancellation& cancellation) {
    const auto path = GradientPathOf(request);
    if (!path) return nullptr;
    NeuronWeights weights;
    {
      absl::MutexLock lock(&mutex_);
      weights = neuron_weights_.lock();
    }
    if (weights == nullptr || !Covers(weights->path, *path, architecture())) {
      VS_ASSIGN_OR_RETURN(weights, transformer_->MakeGradientWeights(*path, cancellation));
    }
    kept_weights_.Keep(weights);
    absl::MutexLock lock(&mutex_);
    neuron_weights_ = weights;
    weights_kept_until_ = absl::Now() + options_.neuron_weights_kept;
    return weights;
  }

  void GiveUpIdleWeights() {
    {
      absl::MutexLock lock(&mutex_);
      if (absl::Now() < weights_kept_until_) return;
      weights_kept_until_ = absl::InfiniteFuture();
    }
    kept_weights_.GiveUp();
  }

  // Something else that the engine's thread does, for a thread that waits for it.
  struct Errand {
    absl::FunctionRef<void()> work;
    absl::Status status;
    bool done = false;
  };

  absl::Status RunBetweenSteps(absl::FunctionRef<void()> work) {
    Errand errand{.work = work};
    absl::MutexLock lock(&mutex_);
    if (statistics_.device_failed) return DeviceFailed();
    VS_RETURN_IF_ERROR(refusal_);
    errands_.push_back(&errand);
    mutex_.Await(absl::Condition(&errand.done));
    return errand.status;
  }

  // One of those that wait.
  void RunErrand() {
    Errand* errand = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      if (errands_.empty()) return;
      errand = errands_.front();
    }
    const absl::Status status = FailureOf(Doing::kRunningStep, errand->work);
    if (!status.ok()) queue_.Wait();
    absl::MutexLock lock(&mutex_);
    errands_.pop_front();
    errand->status = status;
    errand->done = true;
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
      while (TakeInbox()) {
        GiveUpIdleWeights();
        RunErrand();
        RunOnce();
      }
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
      for (Errand* errand : errands_) {
        errand->status = end;
        errand->done = true;
      }
      errands_.clear();
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
    const std::vector<StepPart> step = Prepared(scheduler_.Plan(rows));
    UpdateStatistics();
    SendNews();  // who ended before the step does not wait for it
    if (step.empty()) return;
    RunStepSafely(step);
    UpdateStatistics();
    SendNews();
  }

  void SendNews() { courier_.Deliver(std::exchange(news_, {})); }

  // Takes new requests, waiting for one where there is nothing else to do, or until something is
  // due; false when told to stop.
  bool TakeInbox() {
    std::deque<std::shared_ptr<Sequence>> arrived;
    {
      absl::MutexLock lock(&mutex_);
      idle_ = active_.empty();
      if (idle_) {
        statistics_.step_began = absl::InfiniteFuture();
        const absl::Time until = weights_kept_until_;
        const auto wake = [this, until]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
          return abort_ || !inbox_.empty() || !errands_.empty() || weights_kept_until_ != until;
        };
        mutex_.AwaitWithDeadline(absl::Condition(&wake), until);
      }
      if (abort_) return false;
      arrived.swap(inbox_);
      idle_ = active_.empty() && arrived.empty() && errands_.empty();
      statistics_.waiting +=
          static_cast<int64_t>(arrived.size());  // until UpdateStatistics counts them
      statistics_.step_began = Clock::Steady().Now();
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
    bool Reserve(SequenceId id) override { return loop_.AcquireRows(id); }
    bool Ready(SequenceId id) override {
      if (!std::exchange(has_written_, true)) loop_.WriteRows();
      return loop_.active_.at(id)->HasRows(loop_.tables_);
    }

   private:
    EngineLoop& loop_;
    bool has_written_ = false;  // in this plan
  };

  bool AcquireRows(SequenceId id) {
    absl::StatusOr<bool> acquired = false;
    const absl::Status failure =
        FailureOf(Doing::kMakingRoom, [&] { acquired = active_.at(id)->AcquireRows(tables_); });
    if (!failure.ok()) acquired = failure;
    if (!acquired.ok()) ending_.emplace_back(id, acquired.status());
    return acquired.ok() && *acquired;
  }

  // Goes on with the rows that were acquired, as far as the others' next step may wait for it.
  void WriteRows() {
    const absl::Status failure =
        FailureOf(Doing::kMakingRoom, [this] { tables_.WriteRows(kBytesWrittenAStep); });
    if (failure.ok()) return;
    for (const auto& [id, sequence] : active_) {
      if (sequence->AwaitsNextWrite(tables_)) ending_.emplace_back(id, failure);
    }
  }

  // Follows what the scheduler decided. A request that finds no memory for what running it takes
  // ends alone, and the others of the step go on.
  std::vector<StepPart> Prepared(const std::vector<StepItem>& step) {
    for (const SequenceId id : scheduler_.preempted()) active_.at(id)->SendBack(tables_);
    for (const auto& [id, failure] : std::exchange(ending_, {})) Remove(id)->Tell(failure);
    std::vector<StepPart> parts;
    for (const StepItem& item : step) {
      Sequence& sequence = *active_.at(item.id);
      const absl::Status failure = FailureOf(
          Doing::kMakingRoom, [&] { sequence.Prepare(item.first, transformer_->device()); });
      if (!failure.ok()) {
        Remove(item.id)->Tell(failure);
        continue;
      }
      parts.push_back({.sequence = &sequence,
                       .first = item.first,
                       .count = item.count,
                       .blocks = &scheduler_.Blocks(item.id)});
    }
    return parts;
  }

  // Ends the requests of a step that fails and nobody else.
  void RunStepSafely(const std::vector<StepPart>& parts) {
    std::vector<SequenceId> ids;
    for (const StepPart& part : parts) ids.push_back(part.sequence->id());
    const absl::Status failure = FailureOf(Doing::kRunningStep, [&] { RunStep(parts); });
    if (failure.ok()) return;
    queue_.Wait();  // the next step writes what this one's launches read
    for (const SequenceId id : ids) {
      if (active_.contains(id)) Remove(id)->Tell(failure);
    }
  }

  void RunStep(const std::vector<StepPart>& parts) {
    const auto began = std::chrono::steady_clock::now();
    assembly_.Fill(parts, tables_);
    const at::Tensor logits =
        steps_.Run(assembly_.Batch(), cache_, assembly_.program(), assembly_.repeatable())
            .narrow(0, 0, assembly_.num_logits());
    CountStep();
    const std::vector<absl::Status> read = ReadStepLogits(parts, logits, queue_);
    int64_t generated = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      Sequence& sequence = *parts[i].sequence;
      if (!read[i].ok()) {
        Remove(sequence.id())->Tell(read[i]);
        continue;
      }
      generated -= sequence.generated_tokens();
      sequence.Ran(parts[i].first, parts[i].count);
      generated += sequence.generated_tokens();
      Settle(sequence, parts[i].first + parts[i].count);
    }
    const absl::Duration took = absl::FromChrono(std::chrono::steady_clock::now() - began);
    absl::MutexLock lock(&mutex_);
    statistics_.generated_tokens += generated;
    if (!assembly_.only_prompts()) return scheduler_.LetGuestsGoFirst(took > kLongStep);
    statistics_.prompt_step_tokens += assembly_.num_tokens();
    statistics_.prompt_step_time += took;
    const absl::Duration token =
        statistics_.prompt_step_time / static_cast<double>(statistics_.prompt_step_tokens);
    scheduler_.BoundPrompts(kBesidePeople / token);
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

  void CountUsage(const NeuronRequest& request) {
    const auto tokens = static_cast<int64_t>(request.prompt.size() + request.response.size());
    if (options_.token_quotas != nullptr && !request.background) {
      if (const auto charge = options_.token_quotas->Take(request.tenant, tokens)) charge->Begin();
    }
    if (options_.usage == nullptr) return;
    options_.usage->CountTokens(request.tenant, tokens, /*generated=*/0);
  }

  // Reading captures takes memory that may not be there; the observer hears of the end in any case.
  static void FinishSafely(Sequence& sequence) {
    absl::StatusOr<Completion> completion = DeviceFailed();
    const auto tell = absl::MakeCleanup([&] { sequence.Tell(std::move(completion)); });
    const absl::Status failure =
        FailureOf(Doing::kTakingResult, [&] { completion = sequence.TakeCompletion(); });
    if (!failure.ok()) completion = failure;
  }

  // Where requests and blocks are, for who asks and for the bound of the queue.
  void UpdateStatistics() {
    absl::MutexLock lock(&mutex_);
    statistics_.running = scheduler_.num_running();
    statistics_.waiting = scheduler_.num_waiting();
    statistics_.cache_used_ratio = scheduler_.used_ratio();
    statistics_.intervention_bytes = tables_.bytes();
    statistics_.cache_promised_ratio = scheduler_.promised_ratio();
    statistics_.cache_cached_ratio = scheduler_.cached_ratio();
    statistics_.prefix_hit_tokens = scheduler_.prefix_hit_tokens();
    statistics_.steered_prefix_hit_tokens = scheduler_.steered_prefix_hit_tokens();
    statistics_.preemptions = scheduler_.preemptions();
    statistics_.admissions = scheduler_.admissions();
  }

  // Before the requests of the step hear of it, so that whoever has an answer finds it counted.
  void CountStep() {
    absl::MutexLock lock(&mutex_);
    assembly_.CountInto(statistics_);
    statistics_.repeated_steps = steps_.num_repeated();
  }

  const std::unique_ptr<model::Transformer> transformer_;
  const std::shared_ptr<const text::TextModel> text_;
  const EngineOptions options_;
  const SchedulerOptions scheduling_;
  const int64_t cache_bytes_;
  EngineMemory memory_;
  Admission admission_;

  // The engine's thread alone.
  model::KvCache cache_;
  Scheduler scheduler_;
  DeviceQueue queue_;
  RecordedSteps steps_;
  InterventionTables tables_;
  StepAssembly assembly_;
  std::map<SequenceId, std::shared_ptr<Sequence>> active_;
  std::vector<std::pair<SequenceId, absl::Status>> ending_;  // before the step that is planned
  std::vector<News> news_;                                   // of this step
  Courier courier_;

  mutable absl::Mutex mutex_;
  std::deque<std::shared_ptr<Sequence>> inbox_ ABSL_GUARDED_BY(mutex_);
  std::deque<Errand*> errands_ ABSL_GUARDED_BY(mutex_);  // each of a thread that waits
  EngineStatistics statistics_ ABSL_GUARDED_BY(mutex_);
  std::weak_ptr<const model::GradientWeights> neuron_weights_ ABSL_GUARDED_BY(mutex_);
  MemoryLedger::Spare kept_weights_;  // those
  absl::Time weights_kept_until_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  absl::Status refusal_ ABSL_GUARDED_BY(mutex_);  // what new requests hear; OK while they are taken
  absl::Time drained_by_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  bool abort_ ABSL_GUARDED_BY(mutex_) = false;
  bool idle_ ABSL_GUARDED_BY(mutex_) = true;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<SequenceId> next_id_{1};

  std::thread thread_;
};

}  // namespace

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
