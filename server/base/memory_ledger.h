// The memory of a place, the host's or a device's, as one ledger: a tree of accounts. The whole is
// the root; below it stand what one kind of use may have, and what one part of that may. Whoever
// wants some takes it first, of its account and of all that this is part of, and the lease travels
// with what it paid for and gives it back at its end. What does not fit is refused before it is
// allocated, so that many small wishes cannot add up to more than there is.
#ifndef VALUESCOPE_BASE_MEMORY_LEDGER_H_
#define VALUESCOPE_BASE_MEMORY_LEDGER_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace valuescope {

// What a ledger holds at most, and what those hear who find no room in it.
struct MemoryAccount {
  int64_t capacity = std::numeric_limits<int64_t>::max();  // bytes
  std::string name = "the memory";                         // "this model's capture memory"
  std::string too_large = "REQUEST_TOO_LARGE";  // reason where nobody could ever have so much
  std::string full = "REQUEST_MEMORY_FULL";     // reason where others hold too much now
  std::string advice = "ask for less at once";  // to who can never have it
};

// An account. Thread-safe.
class MemoryLedger {
 public:
  // Gives its bytes back when destroyed; may outlive the ledger.
  class Lease;
  // What is kept for later as long as nobody needs its room; may outlive the ledger.
  class Spare;

  // Part of `whole`, where there is one: what it holds, that holds too.
  explicit MemoryLedger(MemoryAccount account, const MemoryLedger* whole = nullptr);
  explicit MemoryLedger(int64_t capacity) : MemoryLedger(MemoryAccount{.capacity = capacity}) {}

  // Takes `bytes` >= 0; 0 bytes are always free. Where they are not, what Spares keep is given up
  // first. RESOURCE_EXHAUSTED with this account's reasons, and nothing is taken: without a retry
  // delay where it or what it is part of could never hold so much, else with one.
  absl::StatusOr<std::shared_ptr<Lease>> Take(int64_t bytes);
  // That it could be taken if nobody held anything.
  absl::Status CheckEverFits(int64_t bytes) const;

  int64_t capacity() const;
  int64_t used() const;

 private:
  struct State;

  std::shared_ptr<State> state_;
};

// One thread changes it at a time.
class MemoryLedger::Lease {
 public:
  Lease(std::shared_ptr<State> state, int64_t bytes);
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  // Takes `bytes` >= 0 more; errors of MemoryLedger::Take.
  absl::Status Grow(int64_t bytes);

  // The same, but waits for it until `stopped` or `until`, unless somebody else of the account does
  // so already: of many whose wishes are too much together, who each hold something of it, one gets
  // what it needs, and the others are refused and give back what they have.
  absl::Status GrowInTurn(int64_t bytes, absl::Time until, const std::function<bool()>& stopped);

  // Gives back what is beyond `bytes` >= 0.
  void ShrinkTo(int64_t bytes);

  int64_t bytes() const { return bytes_; }

 private:
  bool TryGrow(int64_t bytes);

  const std::shared_ptr<State> state_;
  int64_t bytes_;
};

// Of one thing at a time. Thread-safe.
class MemoryLedger::Spare {
 public:
  // Of what has its memory from `ledger`.
  explicit Spare(const MemoryLedger& ledger);
  ~Spare();
  Spare(const Spare&) = delete;
  Spare& operator=(const Spare&) = delete;

  // Instead of what was kept. It holds its lease; whoever shares it goes on to have it when it is
  // given up here.
  void Keep(std::shared_ptr<const void> thing);
  void GiveUp() { Keep(nullptr); }

 private:
  friend struct State;
  struct Place;

  const std::shared_ptr<State> state_;
  const std::unique_ptr<Place> place_;
};

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_MEMORY_LEDGER_H_
