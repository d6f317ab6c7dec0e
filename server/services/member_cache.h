// The members of neuron sets by the digest of their content, those that were used last.
#ifndef VALUESCOPE_SERVICES_MEMBER_CACHE_H_
#define VALUESCOPE_SERVICES_MEMBER_CACHE_H_

#include <cstdint>
#include <list>
#include <map>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/request.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::services {

// Thread-safe.
class MemberCache {
 public:
  // Of a set's digest and a class, or UNSPECIFIED for all.
  using Key = std::pair<std::string, v1::NeuronClass>;
  using Members = std::map<int, engine::NeuronIndices>;  // by layer

  // Keeps up to `max_bytes` of indices.
  explicit MemberCache(int64_t max_bytes) : max_bytes_(max_bytes) {}

  bool Contains(const Key& key) const;
  // Whether they are there; then `members` shares them.
  bool Find(const Key& key, Members& members);
  // Keeps them if they are small enough, and drops what was not used for longest.
  void Keep(const Key& key, const Members& members);

 private:
  struct Entry {
    Key key;
    Members members;
    int64_t bytes = 0;
  };

  const int64_t max_bytes_;
  mutable absl::Mutex mutex_;
  std::list<Entry> entries_ ABSL_GUARDED_BY(mutex_);  // the one used last is the first
  std::map<Key, std::list<Entry>::iterator> places_ ABSL_GUARDED_BY(mutex_);
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_MEMBER_CACHE_H_
