#include "engine/waiting_line.h"

#include <algorithm>

#include "base/check.h"

namespace valuescope::engine {

std::deque<WaitingLine::Turn>::iterator WaitingLine::OfTenant::Find(ClientId client) {
  return std::find_if(clients.begin(), clients.end(),
                      [&](const Turn& each) { return each.first == client; });
}

Waiting WaitingLine::OfTenant::TakeTurn() {
  Turn turn = std::move(clients.front());
  clients.pop_front();
  Waiting front = std::move(turn.second.front());
  turn.second.pop_front();
  if (!turn.second.empty()) clients.push_back(std::move(turn));
  return front;
}

void WaitingLine::Add(Arrival arrival) {
  OfTenant& line = lines_[arrival.tenant];
  line.account = shares_.Come(arrival.tenant);
  const ClientId client = arrival.client;
  auto turn = line.Find(client);
  if (turn == line.clients.end()) turn = line.clients.insert(line.clients.end(), {client, {}});
  turn->second.push_back({.arrival = std::move(arrival), .tenant = line.account});
  ++size_;
}

void WaitingLine::PutBack(Waiting waiting) {
  OfTenant& line = lines_[waiting.arrival.tenant];
  line.account = waiting.tenant;
  Turn turn{waiting.arrival.client, {}};
  if (const auto found = line.Find(turn.first); found != line.clients.end()) {
    turn.second = std::move(found->second);
    line.clients.erase(found);
  }
  turn.second.push_front(std::move(waiting));
  line.clients.push_front(std::move(turn));
  ++size_;
}

WaitingLine::OfTenant& WaitingLine::Next() {
  OfTenant* next = nullptr;
  for (auto& [tenant, line] : lines_) {
    if (!HasFront(line)) continue;
    if (next == nullptr || shares_.IsBefore(*line.account, *next->account)) next = &line;
  }
  VS_CHECK(next != nullptr);
  return *next;
}

const Waiting& WaitingLine::front() { return FrontOf(Next()); }

Waiting WaitingLine::TakeFront() {
  OfTenant& line = Next();
  --size_;
  Waiting front;
  if (TriesAside(line)) {
    front = std::move(line.aside.front());
    line.aside.pop_front();
  } else {
    front = line.TakeTurn();
  }
  ForgetIfEmpty(front.arrival.tenant);
  return front;
}

void WaitingLine::SetAside() {
  OfTenant& line = Next();
  if (!TriesAside(line)) line.aside.push_back(line.TakeTurn());
  aside_waits_ = true;
}

void WaitingLine::ForgetIfEmpty(const std::string& tenant) {
  const auto line = lines_.find(tenant);
  if (line->second.clients.empty() && line->second.aside.empty()) lines_.erase(line);
}

void WaitingLine::Remove(SequenceId id) {
  for (auto& [tenant, line] : lines_) {
    const auto remove = [this, id, account = line.account](std::deque<Waiting>& waiting) {
      const size_t removed =
          std::erase_if(waiting, [id](const Waiting& each) { return each.arrival.id == id; });
      size_ -= static_cast<int64_t>(removed);
      if (removed > 0) shares_.Leave(account);
    };
    remove(line.aside);
    for (auto& [client, waiting] : line.clients) remove(waiting);
    std::erase_if(line.clients, [](const Turn& each) { return each.second.empty(); });
  }
  std::erase_if(lines_, [](const auto& each) {
    return each.second.clients.empty() && each.second.aside.empty();
  });
}

bool WaitingLine::empty() const {
  return std::none_of(lines_.begin(), lines_.end(),
                      [this](const auto& each) { return HasFront(each.second); });
}

}  // namespace valuescope::engine
