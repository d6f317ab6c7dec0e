#include "services/member_cache.h"

namespace valuescope::services {

bool MemberCache::Contains(const Key& key) const {
  absl::MutexLock lock(&mutex_);
  return places_.contains(key);
}

bool MemberCache::Find(const Key& key, Members& members) {
  absl::MutexLock lock(&mutex_);
  const auto found = places_.find(key);
  if (found == places_.end()) return false;
  entries_.splice(entries_.begin(), entries_, found->second);
  members = found->second->members;
  return true;
}

void MemberCache::Keep(const Key& key, const Members& members) {
  int64_t bytes = 0;
  for (const auto& [layer, indices] : members) {
    bytes += static_cast<int64_t>(indices.size() * sizeof(int64_t));
  }
  absl::MutexLock lock(&mutex_);
  if (bytes > max_bytes_ || places_.contains(key)) return;
  while (bytes_ + bytes > max_bytes_) {
    bytes_ -= entries_.back().bytes;
    places_.erase(entries_.back().key);
    entries_.pop_back();
  }
  entries_.push_front({.key = key, .members = members, .bytes = bytes});
  places_.emplace(key, entries_.begin());
  bytes_ += bytes;
}

}  // namespace valuescope::services
