#include "base/memory_ledger.h"

#include <atomic>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/error.h"

namespace valuescope {
namespace {

constexpr absl::Duration kRetry = absl::Seconds(1);

}  // namespace

struct MemoryLedger::Spare::Place {
  std::shared_ptr<const void> Exchange(std::shared_ptr<const void> other) {
    const std::lock_guard lock(mutex);
    return std::exchange(thing, std::move(other));
  }

  std::mutex mutex;
  std::shared_ptr<const void> thing;
};

struct MemoryLedger::State {
  State(MemoryAccount terms, std::shared_ptr<State> part_of)
      : account(std::move(terms)), whole(std::move(part_of)) {}

  // Of this account and of all that it is part of, or of none.
  bool Take(int64_t bytes) {
    State* full = TakeIfFree(bytes);
    while (full != nullptr && full->GiveUpSpares()) full = TakeIfFree(bytes);
    return full == nullptr;
  }

  // The account that has no room for it; null where it was taken.
  State* TakeIfFree(int64_t bytes) {
    int64_t before = used.load(std::memory_order_relaxed);
    do {
      if (bytes > account.capacity - before && bytes > 0) return this;
    } while (!used.compare_exchange_weak(before, before + bytes, std::memory_order_relaxed));
    State* const full = whole == nullptr ? nullptr : whole->TakeIfFree(bytes);
    if (full != nullptr) used.fetch_sub(bytes, std::memory_order_relaxed);
    return full;
  }

  // Whether anything was kept.
  bool GiveUpSpares() {
    std::vector<std::shared_ptr<const void>> kept;  // goes when nothing is locked
    {
      const std::lock_guard lock(spares_mutex);
      for (Spare::Place* const place : spares) {
        if (auto thing = place->Exchange(nullptr)) kept.push_back(std::move(thing));
      }
    }
    return !kept.empty();
  }

  void GiveBack(int64_t bytes) {
    for (State* each = this; each != nullptr; each = each->whole.get()) {
      each->used.fetch_sub(bytes, std::memory_order_relaxed);
    }
  }

  // For who holds `held` already and asks for `bytes` more.
  absl::Status CheckEverFits(int64_t bytes, int64_t held) const {
    for (const State* each = this; each != nullptr; each = each->whole.get()) {
      const int64_t capacity = each->account.capacity;
      if (bytes <= capacity - held) continue;
      const std::string beside = held > 0 ? absl::StrCat(" beside ", held) : "";
      return NeverFits(account.too_large,
                       absl::StrCat(each->account.name, ": ", bytes, " bytes are needed", beside,
                                    ", and it has ", capacity, " for all; ", account.advice));
    }
    return absl::OkStatus();
  }

  // Why `bytes` more were refused. Who held them may have given them back meanwhile.
  absl::Status Refusal(int64_t bytes, int64_t held) const {
    if (absl::Status never = CheckEverFits(bytes, held); !never.ok()) return never;
    const State* full = this;
    while (full->Free() >= bytes && full->whole != nullptr) full = full->whole.get();
    return RetryLater(
        account.full,
        absl::StrCat(full->account.name, " is full: ", full->account.capacity - full->Free(),
                     " of its ", full->account.capacity, " bytes are held, and ", bytes,
                     " more are needed"),
        kRetry);
  }

  int64_t Free() const { return account.capacity - used.load(std::memory_order_relaxed); }

  const MemoryAccount account;
  const std::shared_ptr<State> whole;
  std::atomic<int64_t> used{0};
  std::mutex waiting;  // of the one who waits for more
  std::mutex spares_mutex;
  std::set<Spare::Place*> spares;  // also those of its parts
};

MemoryLedger::MemoryLedger(MemoryAccount account, const MemoryLedger* whole)
    : state_(std::make_shared<State>(std::move(account),
                                     whole == nullptr ? nullptr : whole->state_)) {}

absl::StatusOr<std::shared_ptr<MemoryLedger::Lease>> MemoryLedger::Take(int64_t bytes) {
  if (!state_->Take(bytes)) return state_->Refusal(bytes, /*held=*/0);
  return std::make_shared<Lease>(state_, bytes);
}

absl::Status MemoryLedger::CheckEverFits(int64_t bytes) const {
  return state_->CheckEverFits(bytes, /*held=*/0);
}

int64_t MemoryLedger::capacity() const { return state_->account.capacity; }
int64_t MemoryLedger::used() const { return state_->used.load(std::memory_order_relaxed); }

MemoryLedger::Lease::Lease(std::shared_ptr<State> state, int64_t bytes)
    : state_(std::move(state)), bytes_(bytes) {}

MemoryLedger::Lease::~Lease() { state_->GiveBack(bytes_); }

bool MemoryLedger::Lease::TryGrow(int64_t bytes) {
  if (!state_->Take(bytes)) return false;
  bytes_ += bytes;
  return true;
}

absl::Status MemoryLedger::Lease::Grow(int64_t bytes) {
  return TryGrow(bytes) ? absl::OkStatus() : state_->Refusal(bytes, bytes_);
}

absl::Status MemoryLedger::Lease::GrowInTurn(int64_t bytes, absl::Time until,
                                             const std::function<bool()>& stopped) {
  if (TryGrow(bytes)) return absl::OkStatus();
  const absl::Status refusal = state_->Refusal(bytes, bytes_);
  if (!DetailsOf(refusal).retry_after) return refusal;
  const std::unique_lock<std::mutex> turn(state_->waiting, std::try_to_lock);
  if (!turn.owns_lock()) return refusal;
  // Others may take meanwhile what fits, and nothing is kept free for this one: it waits until
  // `until` at most, and to refuse them for it keeps out those of them who ask for much, who get
  // nothing as long as somebody with less to ask for waits.
  // One thread looks at one number; to be told, everybody who gives back would have to tell.
  while (!TryGrow(bytes)) {
    if (stopped() || absl::Now() >= until) return refusal;
    absl::SleepFor(absl::Milliseconds(1));
  }
  return absl::OkStatus();
}

void MemoryLedger::Lease::ShrinkTo(int64_t bytes) {
  if (bytes < bytes_) state_->GiveBack(std::exchange(bytes_, bytes) - bytes);
}

MemoryLedger::Spare::Spare(const MemoryLedger& ledger)
    : state_(ledger.state_), place_(std::make_unique<Place>()) {
  for (State* each = state_.get(); each != nullptr; each = each->whole.get()) {
    const std::lock_guard lock(each->spares_mutex);
    each->spares.insert(place_.get());
  }
}

MemoryLedger::Spare::~Spare() {
  for (State* each = state_.get(); each != nullptr; each = each->whole.get()) {
    const std::lock_guard lock(each->spares_mutex);
    each->spares.erase(place_.get());
  }
}

void MemoryLedger::Spare::Keep(std::shared_ptr<const void> thing) {
  thing = place_->Exchange(std::move(thing));  // what was there goes when nothing is locked
}

}  // namespace valuescope
