#include "services/kind.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace valuescope::services {

void KindRegistry::Add(std::unique_ptr<Kind> kind) {
  VS_CHECK(Find(kind->Name()) == nullptr);
  kinds_.push_back(std::move(kind));
}

Kind* KindRegistry::Find(absl::string_view name) const {
  const auto found = std::find_if(kinds_.begin(), kinds_.end(),
                                  [&](const auto& kind) { return kind->Name() == name; });
  return found == kinds_.end() ? nullptr : found->get();
}

Kind& KindRegistry::Get(absl::string_view name) const {
  Kind* const kind = Find(name);
  VS_CHECK(kind != nullptr);
  return *kind;
}

std::string KindRegistry::Names() const {
  return absl::StrJoin(kinds_, ", ", [](std::string* out, const std::unique_ptr<Kind>& kind) {
    absl::StrAppend(out, kind->Name());
  });
}

std::vector<jobs::JobKind*> KindRegistry::ForWorkers() const {
  std::vector<jobs::JobKind*> kinds;
  for (const std::unique_ptr<Kind>& kind : kinds_) kinds.push_back(kind.get());
  return kinds;
}

}  // namespace valuescope::services
