// Page tokens: the place of the last row seen, bound to the list that it came from, so that a token
// of another tenant, collection or filter is refused and not misread.
#ifndef VALUESCOPE_STORE_PAGE_TOKEN_H_
#define VALUESCOPE_STORE_PAGE_TOKEN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "store/store.h"

namespace valuescope::store {

// Where a list goes on: rows with a sequence number below `before`, at most `size` of them.
struct PageBounds {
  int64_t before = 0;
  int size = 0;
};

// `scope`: tenant, collection and filters of the list. INVALID_ARGUMENT for a negative page_size or
// a token that is not of this scope.
absl::StatusOr<PageBounds> ParsePage(const Page& page, const std::vector<std::string>& scope);

std::string MakePageToken(int64_t last_sequence, const std::vector<std::string>& scope);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_PAGE_TOKEN_H_
