#include "kinds/capture_work.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "kinds/capture_inputs.h"
#include "rpc/call_context.h"
#include "services/captures.h"
#include "services/idempotency.h"
#include "services/intervention_context.h"
#include "studies/contract_enums.h"
#include "studies/json_fields.h"
#include "studies/named_content.h"
#include "studies/tensor_file.h"

namespace valuescope::kinds {
namespace {

using nlohmann::ordered_json;

constexpr char kFormat[] = "valuescope.capture";
// Of a chunk, that run together and are committed together: so many, or fewer that leave as much.
constexpr int64_t kInputsPerChunk = 16;
constexpr int64_t kBytesPerChunk = int64_t{64} << 20;

std::vector<services::CapturedSequence> SequencesOf(const SavedTexts& texts,
                                                    const jobs::UnitRange& units) {
  std::vector<services::CapturedSequence> sequences;
  for (int64_t input = units.first; input < units.end; ++input) {
    const SavedText& text = texts.texts(static_cast<int>(input));
    sequences.push_back({.prompt = {text.prompt().begin(), text.prompt().end()},
                         .response = {text.ids().begin(), text.ids().end()}});
  }
  return sequences;
}

// The file of `ends`, those of a shard, that has the input.
jobs::UnitRange FileOf(int64_t input, const std::vector<int64_t>& ends, int64_t first) {
  const auto end = std::upper_bound(ends.begin(), ends.end(), input);
  return {end == ends.begin() ? first : *(end - 1), *end};
}

void AddReceipts(const std::vector<engine::Receipt>& receipts, SavedCaptures& saved) {
  const bool first = saved.interventions().empty();
  for (const engine::Receipt& receipt : receipts) {
    saved.add_touched(receipt.positions);
    if (!first) continue;
    v1::InterventionReceipt& intervention = *saved.add_interventions();
    intervention.set_intervention_index(receipt.intervention_index);
    intervention.mutable_layers()->Assign(receipt.layers.begin(), receipt.layers.end());
  }
}

}  // namespace

// --- The outcome ---------------------------------------------------------------------------------

CaptureOutcome::CaptureOutcome(std::vector<CaptureFile> files, store::StoredBlob index,
                               nlohmann::json summary, v1::Provenance provenance)
    : files_(std::move(files)),
      index_(std::move(index)),
      summary_(std::move(summary)),
      provenance_(std::move(provenance)) {}

absl::StatusOr<std::vector<store::Resource>> CaptureOutcome::Resources(store::BlobStore&) const {
  return std::vector<store::Resource>();
}

absl::StatusOr<std::vector<jobs::ArtifactDraft>> CaptureOutcome::Artifacts(
    store::BlobStore&) const {
  std::vector<jobs::ArtifactDraft> artifacts = {
      ArtifactOf(index_, "index", kCaptureIndexName, "application/json", provenance_)};
  for (size_t i = 0; i < files_.size(); ++i) {
    const SavedBlob& blob = files_[i].blob;
    artifacts.push_back(ArtifactOf({.digest = blob.digest(), .size = blob.size()}, "capture",
                                   files_[i].name, studies::kSafetensorsMediaType, provenance_));
    artifacts.back().part = absl::StrFormat("%05d", i + 1);
  }
  return artifacts;
}

std::string CaptureOutcome::Summary(const std::vector<store::Resource>&) const {
  return studies::DumpJson(summary_);
}

// --- The work ------------------------------------------------------------------------------------

std::string CapturedInputs::Serialize() const { return services::DeterministicBytes(saved); }

std::vector<std::string> CapturedInputs::Blobs() const {
  std::vector<std::string> digests;
  for (const SavedBlob& file : saved.files()) digests.push_back(file.digest());
  for (const SavedCapturePart& part : saved.parts()) digests.push_back(part.blob().digest());
  return digests;
}

CapturingWork::CapturingWork(ResponseInputs inputs, engine::Request capture, CapturePlan plan,
                             store::BlobStore& blobs)
    : ResponseWork(std::move(inputs)),
      capture_(std::move(capture)),
      plan_(std::move(plan)),
      blobs_(blobs),
      bytes_(BytesOfAll()) {}

int64_t CapturingWork::num_tensors() const {
  return inputs_.record.num_responses() * plan_.TensorsPerInput();
}

int64_t CapturingWork::num_files() const {
  int64_t count = 0;
  for (int64_t shard = 0; shard < extent().num_shards(); ++shard) {
    count += static_cast<int64_t>(FileEnds(extent().UnitsOf(shard)).size());
  }
  return count;
}

int64_t CapturingWork::MemoryOf(int64_t inputs) const {
  constexpr int64_t kDigest = 128;  // of a part or a file, at most one an input
  return inputs * (of().interventions_size() * static_cast<int64_t>(sizeof(int64_t)) + kDigest);
}

jobs::Extent CapturingWork::extent() const {
  jobs::Extent extent = ResponseWork::extent();
  const int64_t mean = std::max<int64_t>(1, bytes_ / extent.units);
  extent.units_per_chunk = std::min(std::clamp<int64_t>(kBytesPerChunk / mean, 1, kInputsPerChunk),
                                    extent.units_per_shard);
  return extent;
}

absl::StatusOr<CapturedInputs> CapturingWork::BeginSums(int64_t units) {
  CapturedInputs sums;
  VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
  VS_ASSIGN_OR_RETURN(sums.memory, model->engine->KeepCaptures(MemoryOf(units)));
  return sums;
}

absl::StatusOr<CapturedInputs> CapturingWork::ParseSums(absl::string_view bytes, int64_t done,
                                                        int64_t units) {
  VS_ASSIGN_OR_RETURN(CapturedInputs sums, BeginSums(units));
  if (!sums.saved.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) ||
      sums.saved.touched_size() != done * of().interventions_size()) {
    return jobs::PartialDamaged();
  }
  return sums;
}

absl::Status CapturingWork::AddUnits(const jobs::UnitRange& units, const Cancellation& cancellation,
                                     CapturedInputs& sums) {
  VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
  const jobs::UnitRange shard =
      extent().UnitsOf(units.first / inputs_.record.responses_per_shard());
  const std::vector<int64_t> ends = FileEnds(shard);
  CapturePartWriter parts(&blobs_);
  const auto keep = [&](int64_t input, const engine::Completion& completion) -> absl::Status {
    VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
    VS_RETURN_IF_ERROR(parts.Add(plan_.TensorsOf(input, ExtentOf(input)), completion.captures));
    AddReceipts(completion.receipts, sums.saved);
    const jobs::UnitRange file = FileOf(input, ends, shard.first);
    if (input + 1 < file.end) return absl::OkStatus();
    VS_RETURN_IF_ERROR(parts.Close(*sums.saved.mutable_parts()));
    return PutTogether(file, cancellation, sums.saved);
  };
  rpc::CallContext context;  // of a call that nobody waits for
  context.tenant = inputs_.tenant;
  context.cancellation = cancellation;
  VS_RETURN_IF_ERROR(services::RunCaptures(context, *model->engine, capture_,
                                           SequencesOf(*inputs_.texts, units),
                                           static_cast<int>(units.first), keep));
  return parts.Close(*sums.saved.mutable_parts());
}

absl::Status CapturingWork::AddShard(const CapturedInputs& shard, CapturedInputs& whole) {
  if (shard.saved.parts_size() > 0) return jobs::PartialDamaged();
  for (const SavedBlob& file : shard.saved.files()) {
    VS_RETURN_IF_ERROR(CheckCaptureFile(file, blobs_));
  }
  SavedCaptures more = shard.saved;
  if (!whole.saved.interventions().empty()) more.clear_interventions();
  whole.saved.MergeFrom(more);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<jobs::Outcome>> CapturingWork::FinishSums(
    const CapturedInputs& whole, const Cancellation&) {
  VS_ASSIGN_OR_RETURN(std::vector<CaptureFile> files, FilesOf(whole.saved));
  VS_ASSIGN_OR_RETURN(ordered_json metadata, IndexMetadata(whole.saved));
  VS_ASSIGN_OR_RETURN(store::StoredBlob index,
                      WriteCaptureIndex(
                          {plan_, files, std::move(metadata), whole.saved.touched()},
                          [this](int64_t input) { return ExtentOf(input); }, blobs_));
  nlohmann::json summary = {{"format_version", kSummaryVersion},
                            {"num_inputs", inputs_.record.num_responses()},
                            {"num_tensors", num_tensors()},
                            {"num_files", files.size()},
                            {"total_size", bytes_}};
  return std::make_unique<CaptureOutcome>(std::move(files), std::move(index), std::move(summary),
                                          inputs_.record.provenance());
}

engine::SequenceExtent CapturingWork::ExtentOf(int64_t input) const {
  return kinds::ExtentOf(inputs_.texts->texts(static_cast<int>(input)));
}

int64_t CapturingWork::BytesOfAll() const {
  int64_t bytes = 0;
  for (int64_t input = 0; input < inputs_.record.num_responses(); ++input) {
    bytes += plan_.BytesOf(ExtentOf(input));
  }
  return bytes;
}

std::vector<int64_t> CapturingWork::FileEnds(const jobs::UnitRange& shard) const {
  return plan_.FileEnds(shard, [this](int64_t input) { return ExtentOf(input); });
}

// The file of those inputs, whose parts are all there.
absl::Status CapturingWork::PutTogether(const jobs::UnitRange& file,
                                        const Cancellation& cancellation,
                                        SavedCaptures& saved) const {
  std::vector<studies::DeclaredTensor> tensors;
  for (int64_t input = file.first; input < file.end; ++input) {
    std::vector<studies::DeclaredTensor> more = plan_.TensorsOf(input, ExtentOf(input));
    std::move(more.begin(), more.end(), std::back_inserter(tensors));
  }
  VS_ASSIGN_OR_RETURN(*saved.add_files(), JoinCaptureParts(saved.parts(), std::move(tensors),
                                                           HeadMetadata(), blobs_, cancellation));
  saved.clear_parts();
  return absl::OkStatus();
}

absl::StatusOr<std::vector<CaptureFile>> CapturingWork::FilesOf(const SavedCaptures& saved) const {
  std::vector<CaptureFile> files;
  int64_t first = 0;
  for (int64_t shard = 0; shard < extent().num_shards(); ++shard) {
    for (const int64_t end : FileEnds(extent().UnitsOf(shard))) {
      const auto index = static_cast<int>(files.size());
      if (index == saved.files_size()) return jobs::PartialDamaged();
      files.push_back({.name = NameOfCaptureFile(index, saved.files_size()),
                       .inputs = {first, end},
                       .blob = saved.files(index)});
      first = end;
    }
  }
  if (static_cast<int>(files.size()) != saved.files_size()) return jobs::PartialDamaged();
  return files;
}

// Of every file, for a reader that has no index.
std::string CapturingWork::HeadMetadata() const {
  const ordered_json metadata = {{"format", kFormat},
                                 {"format_version", absl::StrCat(kSummaryVersion)},
                                 {"model", absl::StrCat("models/", inputs_.record.model())},
                                 {"model_digest", inputs_.record.model_digest()},
                                 {"taps", DescribeTaps(of().taps()).dump()}};
  return metadata.dump();
}

absl::StatusOr<ordered_json> CapturingWork::IndexMetadata(const SavedCaptures& saved) const {
  VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
  ordered_json taps = DescribeTaps(of().taps());
  for (size_t t = 0; t < capture_.taps.size(); ++t) {
    if (capture_.taps[t].columns.empty()) continue;
    ordered_json& neurons = taps[t]["neurons"] = ordered_json::array();  // of each layer
    for (const engine::NeuronIndices& of_layer : capture_.taps[t].columns) {
      neurons.push_back(of_layer.values());
    }
  }
  ordered_json interventions = ordered_json::array();
  if (saved.interventions_size() != of().interventions_size()) return jobs::PartialDamaged();
  for (int i = 0; i < of().interventions_size(); ++i) {
    VS_ASSIGN_OR_RETURN(
        const services::Outline outline,
        services::OutlineFromProto("interventions", of().interventions(i), model->architecture));
    const auto& layers = saved.interventions(i).layers();
    interventions.push_back(
        {{"site", v1::Site_Name(studies::SiteToProto(outline.intervention.site))},
         {"layers", std::vector<int32_t>(layers.begin(), layers.end())}});
  }
  return ordered_json{
      {"format", kFormat},
      {"format_version", kSummaryVersion},
      {"num_inputs", inputs_.record.num_responses()},
      {"taps", std::move(taps)},
      {"interventions", std::move(interventions)},
      {"provenance", ordered_json::parse(studies::NamedContent(inputs_.record.provenance()))}};
}

}  // namespace valuescope::kinds
