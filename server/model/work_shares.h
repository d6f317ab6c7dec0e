// Work on a CPU that threads divide as they get on. A core of a shared machine may be half as fast
// as another for a while, and with shares that are fixed all others would wait for it. Each thread
// begins with a share of its own, whose items it takes in order (what follows often reads the
// same), a part of what is left at a time; when there is nothing left, it takes from the end of
// another's. What is computed for an item must not depend on who does it.
#ifndef VALUESCOPE_MODEL_WORK_SHARES_H_
#define VALUESCOPE_MODEL_WORK_SHARES_H_

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "base/check.h"

namespace valuescope::model {

struct Range {
  int64_t first = 0, end = 0;

  int64_t size() const { return end - first; }
};

// What a thread took.
struct Taken {
  Range items;
  // Most likely the same thread takes what follows them next.
  bool goes_on = false;
};

// Thread-safe.
class WorkShares {
 public:
  // `count` items, below 2^31, in `num_shares` shares of about the same size. `fewest` are worth
  // being taken at once.
  WorkShares(int64_t count, int64_t num_shares, int64_t fewest)
      : fewest_(fewest), shares_(static_cast<size_t>(num_shares)) {
    VS_CHECK(count < int64_t{1} << 31);
    for (int64_t i = 0; i < num_shares; ++i) {
      shares_[static_cast<size_t>(i)].left =
          Packed({count * i / num_shares, count * (i + 1) / num_shares});
    }
  }

  // No items only when all were taken.
  Taken Take(size_t own) {
    for (size_t i = 0; i < shares_.size(); ++i) {
      const Taken taken = TakeFrom(shares_[(own + i) % shares_.size()], /*from_end=*/i > 0);
      if (taken.items.size() > 0) return taken;
    }
    return {};
  }

 private:
  // A line of the cache each.
  struct alignas(64) Share {
    std::atomic<uint64_t> left;
  };

  static uint64_t Packed(const Range& range) {
    return static_cast<uint64_t>(range.first) << 32 | static_cast<uint64_t>(range.end);
  }

  // The owner takes a quarter, so that some is left for whoever is faster; others take half. What
  // nobody else can take is one piece.
  Taken TakeFrom(Share& share, bool from_end) const {
    uint64_t seen = share.left.load(std::memory_order_relaxed);
    while (true) {
      const Range left{static_cast<int64_t>(seen >> 32), static_cast<int64_t>(seen & 0xffffffff)};
      if (left.size() == 0) return {};
      const int64_t pieces = from_end ? 2 : shares_.size() == 1 ? 1 : 4;
      const int64_t part = at::divup(left.size(), pieces);
      const int64_t taken = std::min(left.size(), std::max(fewest_, part));
      const int64_t border = from_end ? left.end - taken : left.first + taken;
      const Range first{left.first, border}, last{border, left.end};
      if (share.left.compare_exchange_weak(seen, Packed(from_end ? first : last),
                                           std::memory_order_relaxed)) {
        if (from_end) return {.items = last};
        return {.items = first, .goes_on = last.size() > 0};
      }
    }
  }

  const int64_t fewest_;
  std::vector<Share> shares_;
};

// Calls body(take) once in each thread that takes part; take() gives the next items, none when all
// are taken. `fewest` items, at least 1, are worth a thread.
template <typename Body>
void ShareWork(int64_t count, int64_t fewest, const Body& body) {
  if (count == 0) return;
  const int64_t most = at::in_parallel_region() ? 1 : at::get_num_threads();
  const int64_t threads = std::min(at::divup(count, fewest), most);
  WorkShares shares(count, threads, fewest);
  at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    // One thread may have to run them all.
    for (int64_t own = begin; own < end; ++own) {
      body([&shares, own] { return shares.Take(static_cast<size_t>(own)); });
    }
  });
}

// Calls body(first, end) for ranges that make up 0 .. count - 1.
template <typename Body>
void ForRanges(int64_t count, int64_t fewest, const Body& body) {
  ShareWork(count, fewest, [&](const auto& take) {
    for (Range items = take().items; items.size() > 0; items = take().items) {
      body(items.first, items.end);
    }
  });
}

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_WORK_SHARES_H_
