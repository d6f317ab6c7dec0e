// What a study is done with: the kinds that its parts are of, and the calls that are cheap enough
// to be made in between.
#ifndef VALUESCOPE_KINDS_STUDY_TOOLS_H_
#define VALUESCOPE_KINDS_STUDY_TOOLS_H_

#include "base/memory_ledger.h"
#include "kinds/sources.h"
#include "services/kind.h"
#include "services/neuron_service.h"
#include "services/vector_service.h"

namespace valuescope::kinds {

// All outlive the kind.
struct StudyTools {
  Sources sources;
  const services::KindRegistry* kinds;
  services::VectorService* vectors;
  services::NeuronService* neurons;
  MemoryLedger* memory;  // that requests take; null: nothing bounds it
};

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_STUDY_TOOLS_H_
