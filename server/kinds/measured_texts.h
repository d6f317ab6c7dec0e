// Work that measures texts (measure_texts.cc), for kinds that have texts of their own, and what it
// comes to.
#ifndef VALUESCOPE_KINDS_MEASURED_TEXTS_H_
#define VALUESCOPE_KINDS_MEASURED_TEXTS_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/status_macros.h"
#include "engine/served_model.h"
#include "jobs/work.h"
#include "kinds/response_work.h"
#include "nlohmann/json.hpp"
#include "studies/json_fields.h"
#include "studies/message_json.h"
#include "valuescope/v1/evaluation.pb.h"

namespace valuescope::kinds {

class MeasuresOutcome : public jobs::Outcome {
 public:
  MeasuresOutcome(v1::MeasureTextsResponse found, v1::Provenance provenance)
      : result(std::move(found)), provenance_(std::move(provenance)) {}

  absl::StatusOr<std::vector<store::Resource>> Resources(store::BlobStore&) const override {
    return std::vector<store::Resource>();
  }
  absl::StatusOr<std::vector<jobs::ArtifactDraft>> Artifacts(
      store::BlobStore& blobs) const override {
    std::vector<jobs::ArtifactDraft> artifacts;
    VS_ASSIGN_OR_RETURN(artifacts.emplace_back(), MakeSummary(blobs, Described(), provenance_));
    return artifacts;
  }
  std::string Summary(const std::vector<store::Resource>&) const override {
    return studies::DumpJson(Described());
  }

  const v1::MeasureTextsResponse result;  // measures and warnings

 private:
  nlohmann::json Described() const {
    return {
        {"format_version", kSummaryVersion},
        {"measures", studies::ListToJson(result.measures())},
        {"warnings", std::vector<std::string>(result.warnings().begin(), result.warnings().end())}};
  }

  const v1::Provenance provenance_;
};

// Of inputs that have texts and the request in their record, defaults filled in; its outcome is a
// MeasuresOutcome.
absl::StatusOr<std::unique_ptr<jobs::Work>> MeasuringWorkOf(ResponseInputs inputs,
                                                            const engine::ServedModel& model,
                                                            bool can_wait);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_MEASURED_TEXTS_H_
