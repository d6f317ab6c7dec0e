// What an intervention does at each of its layers, made ready on the host: the stage that a step
// runs, with the rows that a table is to hold for it. Made once for a call, on its own thread, so
// that the engine's thread only copies.
#ifndef VALUESCOPE_ENGINE_LOWERING_H_
#define VALUESCOPE_ENGINE_LOWERING_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/request.h"
#include "model/architecture.h"
#include "model/step.h"

namespace valuescope::engine {

// How many layers it acts at; 1 at sites that have none.
int64_t NumLayers(const Intervention& intervention);

// Elements of the activation that one index of a neuron operation stands for.
int64_t ElementsPerNeuron(model::Site site, const model::Architecture& architecture);

// One stage for each of the layers of an intervention whose numbers were checked, in their order.
// Its tables have one row, or a row for each position of a replacement of single positions; those
// that are the same at every position have one then too. They share or own their numbers, so the
// intervention may lose its own. INVALID_ARGUMENT where a direction is zero. Throws where memory
// ends.
absl::StatusOr<std::vector<model::Stage>> Lower(const Intervention& intervention,
                                                const model::Architecture& architecture);

// The tables of a stage; the first axis of each is rows.
std::vector<at::Tensor*> TablesOf(model::Stage& stage);
std::vector<const at::Tensor*> TablesOf(const model::Stage& stage);

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_LOWERING_H_
