// Sequences that wait to be admitted: tenants come by their shares, clients of a tenant in turn,
// and the sequences of a client in order.
#ifndef VALUESCOPE_ENGINE_WAITING_LINE_H_
#define VALUESCOPE_ENGINE_WAITING_LINE_H_

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <utility>

#include "engine/arrival.h"
#include "engine/tenant_shares.h"

namespace valuescope::engine {

struct Waiting {
  Arrival arrival;
  int preemptions = 0;
  TenantShares::Tenant* tenant = nullptr;  // the line's account of arrival.tenant
};

class WaitingLine {
 public:
  explicit WaitingLine(WeightOf weight_of, CacheBounds cache = {})
      : shares_(std::move(weight_of), std::move(cache)) {}

  // Accounts of all who wait here or were admitted from here. Whoever takes the front tells them
  // what becomes of it.
  TenantShares& shares() { return shares_; }
  const TenantShares& shares() const { return shares_; }

  void Add(Arrival arrival);
  // One that was admitted waits again, before everybody of its tenant but those set aside.
  void PutBack(Waiting waiting);
  // Who is to be admitted next; the line is not empty.
  const Waiting& front();
  Waiting TakeFront();  // and the client goes to the end of its tenant's
  void Remove(SequenceId id);
  // Whether nobody is left to be tried.
  bool empty() const;
  int64_t size() const { return size_; }

  // Whether only guests (TenantShares::IsGuest) are looked at, as if nobody else were here.
  void LookAtGuests(bool only) { only_guests_ = only; }

  // The front finds nothing to reserve: until TryAside, those come before it who reserve nothing.
  void SetAside();
  void TryAside() { aside_waits_ = false; }
  // Whether somebody waits for a reservation, which nobody is to have before him.
  bool aside_waits() const { return aside_waits_; }

 private:
  using Turn = std::pair<ClientId, std::deque<Waiting>>;
  struct OfTenant {
    TenantShares::Tenant* account = nullptr;
    std::deque<Turn> clients;  // none is empty
    std::deque<Waiting> aside;

    std::deque<Turn>::iterator Find(ClientId client);
    Waiting TakeTurn();
  };

  bool TriesAside(const OfTenant& line) const { return !aside_waits_ && !line.aside.empty(); }
  const Waiting& FrontOf(const OfTenant& line) const {
    return TriesAside(line) ? line.aside.front() : line.clients.front().second.front();
  }
  // A tenant that has of the cache what it may is passed until something of it ends.
  bool HasFront(const OfTenant& line) const {
    return (TriesAside(line) || !line.clients.empty()) &&
           line.account->MayRun(FrontOf(line).arrival.max_fed) &&
           (!only_guests_ || shares_.IsGuest(*line.account));
  }
  OfTenant& Next();
  void ForgetIfEmpty(const std::string& tenant);

  TenantShares shares_;
  std::map<std::string, OfTenant> lines_;  // none is without anybody
  bool aside_waits_ = false;
  bool only_guests_ = false;
  int64_t size_ = 0;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_WAITING_LINE_H_
