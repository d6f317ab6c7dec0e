// The engine of one model: a thread that plans a step, runs it through the one forward pass,
// samples, and tells observers.
#ifndef VALUESCOPE_ENGINE_ENGINE_LOOP_H_
#define VALUESCOPE_ENGINE_ENGINE_LOOP_H_

#include <memory>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/engine_options.h"
#include "model/transformer.h"
#include "text/text_model.h"

namespace valuescope::engine {

// Takes the model; `text` outlives nothing that uses it (shared). RESOURCE_EXHAUSTED where the
// key/value cache does not fit.
absl::StatusOr<std::unique_ptr<Engine>> StartEngine(std::unique_ptr<model::Transformer> transformer,
                                                    std::shared_ptr<const text::TextModel> text,
                                                    const EngineOptions& options);

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_ENGINE_LOOP_H_
