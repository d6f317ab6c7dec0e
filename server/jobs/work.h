// Work that consists of units which are alike, such as responses. It is cut into shards, and those
// into chunks, in the same places whoever does it, so a call that answers at once and a job that
// was killed twice give the same bits: what is made of the units of a shard is summed up in order,
// and so are the shards.
//
// The work itself is the kind's. Going through it, committing and going on after a crash is the
// same for all kinds and stands here.
#ifndef VALUESCOPE_JOBS_WORK_H_
#define VALUESCOPE_JOBS_WORK_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/cancellation.h"
#include "jobs/job_kind.h"
#include "store/blob_store.h"
#include "store/store.h"

namespace valuescope::jobs {

struct UnitRange {
  int64_t first = 0, end = 0;

  int64_t size() const { return end - first; }
};

// All numbers at least 1, but those of `preparing` where there are none such.
struct Extent {
  int64_t units = 1;
  int64_t units_per_shard = 1;
  int64_t units_per_chunk = 1;  // that run together, between two checkpoints; at most a shard's
  // The first units are shards of their own, on which all others build: they are finished before
  // those begin.
  struct Preparing {
    int64_t units = 0;
    int64_t units_per_shard = 0;
    int64_t units_per_chunk = 0;

    int64_t num_shards() const;
  } preparing = {};

  int64_t num_shards() const;
  UnitRange UnitsOf(int64_t shard) const;
  int64_t UnitsPerChunkOf(int64_t shard) const;
};

// What was made of some units, in a form that can be stored.
class Partial {
 public:
  virtual ~Partial() = default;
  // The same for the same units, wherever they ran.
  virtual std::string Serialize() const = 0;
  // Digests of the blobs that those bytes name.
  virtual std::vector<std::string> Blobs() const { return {}; }
};

// What work comes to.
class Outcome {
 public:
  virtual ~Outcome() = default;

  // Vectors and neuron sets, named by their content; their bytes are written to `blobs`.
  virtual absl::StatusOr<std::vector<store::Resource>> Resources(store::BlobStore& blobs) const = 0;

  // What a call leaves: these first, and what else it made that people want to read, which a job
  // leaves as an artifact.
  virtual absl::StatusOr<std::vector<store::Resource>> CallResources(
      store::BlobStore& blobs) const {
    return Resources(blobs);
  }

  // What a job leaves beside them, and a call does not.
  virtual absl::StatusOr<std::vector<ArtifactDraft>> Artifacts(store::BlobStore& blobs) const = 0;

  // The head of it, a small JSON object; `resources` are those above. Of what is longer than
  // kMostSummaryBytes a job keeps the length alone, as "left_out_bytes".
  virtual std::string Summary(const std::vector<store::Resource>& resources) const = 0;
};

// It is read with every look at a job.
inline constexpr size_t kMostSummaryBytes = 1 << 20;

// Work as it is stored with a job.
struct SavedWork {
  std::string spec;                // what WorkKind::Open reads
  std::vector<std::string> blobs;  // digests of those that it names
};

// Everything resolved and at hand. Used by one thread at a time.
class Work {
 public:
  virtual ~Work() = default;

  virtual Extent extent() const = 0;

  // Of none yet of `units` units, with what memory they will take.
  virtual absl::StatusOr<std::unique_ptr<Partial>> Begin(int64_t units) = 0;
  // As serialised when the first `done` of `units` units were in it. PartialDamaged for other
  // bytes.
  virtual absl::StatusOr<std::unique_ptr<Partial>> Parse(absl::string_view bytes, int64_t done,
                                                         int64_t units) = 0;

  // What the shards of Extent::preparing came to, folded, before any other unit is begun, parsed,
  // run or folded.
  virtual absl::Status Prepare(const Partial&) { return absl::OkStatus(); }

  // Adds the units of a chunk, which follow those that are in `partial`. CANCELLED soon after
  // `cancellation` is raised.
  virtual absl::Status RunChunk(const UnitRange& units, const Cancellation& cancellation,
                                Partial& partial) = 0;
  // What units that were run came to, for people to watch. Cheap; known of each unit alone.
  virtual std::vector<store::Observed> Observe(const UnitRange&) const { return {}; }

  // Adds a shard, the next one, to all before it.
  virtual absl::Status Fold(const Partial& shard, Partial& whole) = 0;

  virtual absl::StatusOr<std::unique_ptr<Outcome>> Finish(const Partial& whole,
                                                          const Cancellation& cancellation) = 0;

  // The same work opened elsewhere gives the same bits.
  virtual absl::StatusOr<SavedWork> Save(store::BlobStore& blobs) const = 0;
};

// Work whose partials are `Sums`, which has `std::string Serialize() const` and, where that names
// any, `std::vector<std::string> Blobs() const`.
template <typename Sums>
class WorkOn : public Work {
 public:
  absl::StatusOr<std::unique_ptr<Partial>> Begin(int64_t units) final {
    return Hold(BeginSums(units));
  }
  absl::StatusOr<std::unique_ptr<Partial>> Parse(absl::string_view bytes, int64_t done,
                                                 int64_t units) final {
    return Hold(ParseSums(bytes, done, units));
  }
  absl::Status Prepare(const Partial& prepared) final {
    return PrepareWith(static_cast<const Held&>(prepared).sums);
  }
  absl::Status RunChunk(const UnitRange& units, const Cancellation& cancellation,
                        Partial& partial) final {
    return AddUnits(units, cancellation, static_cast<Held&>(partial).sums);
  }
  absl::Status Fold(const Partial& shard, Partial& whole) final {
    return AddShard(static_cast<const Held&>(shard).sums, static_cast<Held&>(whole).sums);
  }
  absl::StatusOr<std::unique_ptr<Outcome>> Finish(const Partial& whole,
                                                  const Cancellation& cancellation) final {
    return FinishSums(static_cast<const Held&>(whole).sums, cancellation);
  }

 protected:
  virtual absl::StatusOr<Sums> BeginSums(int64_t units) = 0;
  virtual absl::StatusOr<Sums> ParseSums(absl::string_view bytes, int64_t done, int64_t units) = 0;
  virtual absl::Status PrepareWith(const Sums&) { return absl::OkStatus(); }
  virtual absl::Status AddUnits(const UnitRange& units, const Cancellation& cancellation,
                                Sums& sums) = 0;
  virtual absl::Status AddShard(const Sums& shard, Sums& whole) = 0;
  virtual absl::StatusOr<std::unique_ptr<Outcome>> FinishSums(const Sums& whole,
                                                              const Cancellation& cancellation) = 0;

 private:
  struct Held : Partial {
    explicit Held(Sums of) : sums(std::move(of)) {}
    std::string Serialize() const override { return sums.Serialize(); }
    std::vector<std::string> Blobs() const override {
      if constexpr (requires { sums.Blobs(); }) {
        return sums.Blobs();
      } else {
        return {};
      }
    }

    Sums sums;
  };

  static absl::StatusOr<std::unique_ptr<Partial>> Hold(absl::StatusOr<Sums> sums) {
    if (!sums.ok()) return std::move(sums).status();
    return std::make_unique<Held>(*std::move(sums));
  }
};

// All of it, by this thread, as a job would: the same shards, chunks and order.
absl::StatusOr<std::unique_ptr<Outcome>> RunAtOnce(Work& work, const Cancellation& cancellation);

// A kind of such work, to the queue. A shard's cursor is how many of its units are done.
class WorkKind : public JobKind {
 public:
  // DATA_LOSS for another format; NotReady.
  virtual absl::StatusOr<std::unique_ptr<Work>> Open(absl::string_view tenant,
                                                     absl::string_view spec) = 0;

  absl::StatusOr<ShardResult> RunShard(ShardContext& context) override;
  absl::StatusOr<JobResult> Merge(const MergeContext& context) override;
};

}  // namespace valuescope::jobs

#endif  // VALUESCOPE_JOBS_WORK_H_
