#include "store/page_token.h"

#include <algorithm>
#include <limits>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/sha256.h"

namespace valuescope::store {
namespace {

constexpr int kDefaultPageSize = 50;
constexpr int kMaxPageSize = 1000;
constexpr size_t kScopeDigits = 16;
constexpr size_t kMaxTokenSize = 128;

std::string ScopeDigest(const std::vector<std::string>& scope) {
  Sha256 hash;
  for (const std::string& part : scope) hash.Update(absl::StrCat(part.size(), ":", part));
  return hash.HexDigest().substr(0, kScopeDigits);
}

}  // namespace

absl::StatusOr<PageBounds> ParsePage(const Page& page, const std::vector<std::string>& scope) {
  if (page.page_size < 0) return OutOfRange("page_size", page.page_size, 0, kMaxPageSize);
  PageBounds bounds{
      .before = std::numeric_limits<int64_t>::max(),
      .size = page.page_size == 0 ? kDefaultPageSize : std::min(page.page_size, kMaxPageSize)};
  if (page.page_token.empty()) return bounds;

  std::string decoded;
  const bool ours = page.page_token.size() <= kMaxTokenSize &&
                    absl::WebSafeBase64Unescape(page.page_token, &decoded) &&
                    decoded.size() > kScopeDigits &&
                    decoded.substr(0, kScopeDigits) == ScopeDigest(scope) &&
                    absl::SimpleAtoi(decoded.substr(kScopeDigits), &bounds.before);
  if (!ours) {
    return InvalidField("page_token",
                        "must be empty or the next_page_token of the same list with the same "
                        "filters");
  }
  return bounds;
}

std::string MakePageToken(int64_t last_sequence, const std::vector<std::string>& scope) {
  return absl::WebSafeBase64Escape(absl::StrCat(ScopeDigest(scope), last_sequence));
}

}  // namespace valuescope::store
