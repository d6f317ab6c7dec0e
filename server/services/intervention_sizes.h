// What interventions take before anything is made of them: sums over the shapes that a request
// declares and the metadata of what it names.
#ifndef VALUESCOPE_SERVICES_INTERVENTION_SIZES_H_
#define VALUESCOPE_SERVICES_INTERVENTION_SIZES_H_

#include <algorithm>
#include <cstdint>

#include "absl/status/status.h"
#include "services/intervention_context.h"
#include "services/named_resources.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::services {

// In bytes. Sums that are too large for an integer
// stay at the largest.
struct DeclaredSize {
  int64_t rows = 0;        // of the tables, each once
  int64_t host = 0;        // for as long as a request of the call lives, without what is named
  int64_t converting = 0;  // for the one that is converted now, at most

  void AddRows(int64_t bytes) { Add(rows, bytes); }
  void AddHost(int64_t bytes) { Add(host, bytes); }
  void Converts(int64_t bytes) { converting = std::max(converting, bytes); }
  int64_t OnHost(const NamedResources& names) const {
    int64_t total = names.bytes();
    Add(total, host);
    Add(total, converting);
    return total;
  }

 private:
  static void Add(int64_t& sum, int64_t bytes) {
    if (__builtin_add_overflow(sum, bytes, &sum)) sum = INT64_MAX;
  }
};

// Adds what the operation of an intervention declares, and tells the context's names what it needs
// of them. The errors of NamedResources::NeedNeurons.
absl::Status AddDeclared(const InterventionContext& context, const v1::Intervention& proto,
                         DeclaredSize& size);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_INTERVENTION_SIZES_H_
