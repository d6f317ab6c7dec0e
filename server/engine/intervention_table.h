// Interventions as rows of tables. All requests of a step share a few tables a wire; each token
// carries one row index, and row 0 is "nothing". A row is one content: whoever steers a token in
// the same way shares it, as the completions of a call do. A request holds a row for each set of
// its interventions (those whose scope holds a token) from before it runs until it ends, so nobody
// who runs can find the tables full. The k-th thing that a row does at a wire is in the wire's k-th
// stage, so any number of different steerings costs one gathered edit a stage in use, and
// everybody's own order holds.
//
// Rows are given out at once and written little by little, table by table, between the steps of
// those who run: a request may have thousands of edits, and its neighbours are not to wait for them
// all at a time.
#ifndef VALUESCOPE_ENGINE_INTERVENTION_TABLE_H_
#define VALUESCOPE_ENGINE_INTERVENTION_TABLE_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/memory_ledger.h"
#include "engine/compiled_interventions.h"
#include "engine/request.h"
#include "model/step.h"

namespace valuescope::engine {

// The tables of one engine, on its device. A new row is the lowest free one, and a table has room
// for a power of two that holds its highest row and, last, one that nobody gets: its address
// changes only when it grows, and it is given back when its last row is, unless addresses are to be
// kept.
class InterventionTables {
 public:
  // Rows that a table has room for at least. Few: a row of 64 directions on all layers of a large
  // model is hundreds of megabytes.
  static constexpr int64_t kLeastCapacity = 4;

  // What all tables have together, and while one is copied into a larger one both of them, is taken
  // of `memory`, of which nobody else takes and which outlives them; null: nothing bounds them.
  // What a row takes depends on who else is there, because the rows of a table are as wide as its
  // widest and as many as its highest number asks for. With `keeps_addresses`, a table that its
  // last row left is kept for the next that comes to its place, as long as nobody needs the memory:
  // what was recorded with its address then serves again.
  explicit InterventionTables(c10::Device device, MemoryLedger* memory = nullptr,
                              bool keeps_addresses = false);

  // The rows of all sets of a request's interventions, by set; 0 for those that change no bit, such
  // as set 0. nullopt, and nothing is held, where the tables would be larger than they may become:
  // there is room once others have left. No token may have one before it is written. Errors, those
  // of MemoryLedger::Take, where the place has no memory for larger tables; throws where memory
  // ends; and then nothing is held either.
  absl::StatusOr<std::optional<std::vector<int64_t>>> AcquireRows(
      const CompiledInterventions& compiled);

  // Writes rows that were acquired, the longest waiting table first, until about `bytes` were
  // allocated or copied, at least one table's; false where none is left to write. Throws where
  // memory ends, and goes on with the same table the next time.
  bool WriteRows(int64_t bytes);
  bool AllWritten() const { return to_write_.empty(); }
  // Whether all of these rows are written.
  bool Written(std::span<const int64_t> rows) const;
  // Whether one of these rows is among those that the next WriteRows begins with.
  bool AwaitsNextWrite(std::span<const int64_t> rows) const;

  // What all tables have once these rows are acquired and written.
  int64_t BytesWith(const CompiledInterventions& compiled) const;

  // Gives rows back, written or not; row 0 is ignored.
  void ReleaseRows(std::span<const int64_t> rows);
  // How many rows were given up by their last holder and tables by a larger one so far: what found
  // no room finds none before this has changed.
  int64_t given_up() const { return given_up_; }

  // Puts the stages of every wire that some live row touches into the program.
  void AddTo(model::StepProgram& program) const;

  // Adds what the tokens of a step, given by their rows, are touched with: positions x layers by
  // Operation::index().
  void CountApplied(std::span<const int64_t> rows,
                    std::array<int64_t, kNumOperations>& applied) const;

  int64_t live_rows() const { return static_cast<int64_t>(rows_.size()); }
  // Of all tables, once all rows are written.
  int64_t bytes() const;
  // Of tables that are kept for their addresses.
  int64_t kept_bytes() const;

 private:
  // Place in the order of execution: wire, ordinal of the operation on it, kind of stage.
  using StageKey = std::tuple<int, int, size_t>;

  // Of a table.
  struct Extent {
    int64_t capacity = 0;  // rows
    int64_t width = 0;
    int64_t rank = 0;  // of projections

    static Extent Of(const model::Stage& stage);
    bool operator==(const Extent&) const = default;
    // Grows it so that it has room for row `row` of the rows of `edit`.
    void Include(const model::Stage& edit, int64_t row);
    int64_t bytes(size_t kind) const;
    // Of the tables of a stage, as TablesOf has them.
    std::vector<std::vector<int64_t>> shapes(size_t kind) const;
  };

  struct Table {
    model::Stage stage;                     // as far as it is written
    Extent extent;                          // once all rows are written
    std::set<int64_t> rows;                 // live
    std::set<int64_t> preserving;           // of them, those that preserve norms
    std::map<int64_t, WireEdit> unwritten;  // by row
  };

  struct Row {
    std::string digest;
    int64_t holders = 1;
    std::vector<StageKey> tables;
    int64_t unwritten = 0;  // of its tables, those that do not hold it yet
    std::shared_ptr<const PreparedInterventions> source;  // of what is unwritten
    std::array<int64_t, kNumOperations> touched{};
  };

  // The live rows that have what all sets do; nullopt where one is missing.
  std::optional<std::vector<int64_t>> FindRows(const CompiledInterventions& compiled) const;
  int64_t LowestFreeRow(int64_t from = 1) const;
  // Whether there is room for a request's rows, made by letting go of what is kept for its
  // addresses where need be. Errors of AcquireRows.
  absl::StatusOr<bool> MakeRoom(const CompiledInterventions& compiled);
  // Of the tables that a request's rows would be in, once they are.
  std::map<StageKey, Extent> ExtentsWith(const CompiledInterventions& compiled) const;
  int64_t BytesWith(const std::map<StageKey, Extent>& grown) const;
  // Of the largest table that a larger one is to replace: tables are written one after the other,
  // so it is the most that is there beside them.
  int64_t OutgrownBytes() const;
  int64_t OutgrownBytesWith(const std::map<StageKey, Extent>& grown) const;
  // The table at its place, in use or kept; null where there is none.
  const Table* TableAt(const StageKey& key) const;
  // Of a table that is to have the extent `larger`, what it has before; 0 where it has that.
  static int64_t OutgrownBytes(const StageKey& key, const Table& table, const Extent& larger);
  // Takes what is missing to `bytes`.
  absl::Status Pay(int64_t bytes);
  // Gives back what the tables do not have any more.
  void GiveChange();
  // There is room for it.
  int64_t TakeRow(const CompiledInterventions& compiled, uint64_t active);
  void Register(int64_t row, const std::vector<WireEdit>& edits);
  // Brings the tables of a stage to their extent and copies what is unwritten; the bytes of both.
  int64_t Write(const StageKey& key, Table& table);
  int64_t Grow(const StageKey& key, Table& table);
  void Leave(const StageKey& key, std::span<const int64_t> rows);
  static void SetOnlyAdds(Table& table);
  static int64_t BytesOf(const std::map<StageKey, Table>& tables);

  c10::Device device_;
  MemoryLedger* memory_;
  std::shared_ptr<MemoryLedger::Lease> lease_;  // of it
  bool keeps_addresses_;
  std::map<StageKey, Table> tables_;
  std::map<StageKey, Table> kept_;  // without rows
  std::deque<StageKey> to_write_;   // tables with unwritten rows, in the order of their waiting
  std::map<int64_t, Row> rows_;     // live
  std::map<std::string, int64_t> rows_by_digest_;
  int64_t given_up_ = 0;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_INTERVENTION_TABLE_H_
