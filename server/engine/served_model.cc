#include "engine/served_model.h"

#include <new>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "engine/engine_loop.h"
#include "model/transformer.h"

namespace valuescope::engine {
namespace {

absl::StatusOr<std::shared_ptr<const ServedModel>> LoadModel(
    const std::string& id, const std::string& folder, const EngineOptions& options,
    std::shared_ptr<const MemoryLedger::Lease> memory, const std::function<void(double)>& progress,
    const Cancellation& cancellation) {
  auto served = std::make_shared<ServedModel>();
  served->memory = std::move(memory);
  served->id = id;
  served->dtype = options.dtype;
  served->device = options.device;
  served->device_name = options.device_name;
  served->batch_invariant = options.batch_invariant || (c10::Device(options.device).is_cpu() &&
                                                        options.dtype == DType::kFloat32);
  VS_ASSIGN_OR_RETURN(served->text, text::TextModel::Load(folder));
  VS_ASSIGN_OR_RETURN(auto transformer,
                      model::Transformer::Load(folder, {.device = c10::Device(options.device),
                                                        .dtype = options.dtype,
                                                        .threads = options.threads,
                                                        .batch_invariant = options.batch_invariant,
                                                        .progress = progress,
                                                        .cancellation = cancellation,
                                                        .memory = options.device_memory}));
  served->architecture = transformer->architecture();
  served->weights_digest = transformer->weights_digest();
  served->num_parameters = model::NumParameters(served->architecture);
  served->weight_bytes = served->num_parameters * SizeOf(options.dtype);
  VS_ASSIGN_OR_RETURN(served->engine, StartEngine(std::move(transformer), served->text, options));
  served->load_time = absl::Now();
  return std::shared_ptr<const ServedModel>(std::move(served));
}

}  // namespace

// A thread that the machine does not have, memory for a tokenizer or an engine: to throw these
// would end the process.
absl::StatusOr<std::shared_ptr<const ServedModel>> LoadServedModel(
    const std::string& id, const std::string& folder, const EngineOptions& options,
    std::shared_ptr<const MemoryLedger::Lease> memory, const std::function<void(double)>& progress,
    const Cancellation& cancellation) {
  try {
    return LoadModel(id, folder, options, std::move(memory), progress, cancellation);
  } catch (const std::bad_alloc&) {
    return NeverFits("MODEL_TOO_LARGE", "the model does not fit the memory");
  } catch (const std::system_error& error) {
    return ErrorWithReason(
        absl::StatusCode::kResourceExhausted, "MODEL_LOAD_FAILED",
        absl::StrCat("the machine refused what the model needs: ", error.code().message()));
  } catch (const std::exception&) {
    return ErrorWithReason(absl::StatusCode::kInternal, "MODEL_LOAD_FAILED",
                           "the model could not be loaded");
  }
}

}  // namespace valuescope::engine
