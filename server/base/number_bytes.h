// Numbers as bytes of this machine's order, as partial results hold them.
#ifndef VALUESCOPE_BASE_NUMBER_BYTES_H_
#define VALUESCOPE_BASE_NUMBER_BYTES_H_

#include <cstring>
#include <span>
#include <type_traits>

#include "absl/strings/string_view.h"

namespace valuescope {

// The bytes of a contiguous range of numbers, good as long as they are.
template <typename Numbers>
absl::string_view BytesOfNumbers(const Numbers& numbers) {
  const std::span all(numbers);
  static_assert(std::is_arithmetic_v<typename decltype(all)::value_type>);
  return {reinterpret_cast<const char*>(all.data()), all.size_bytes()};
}

// Fills a contiguous range of numbers from the front of `bytes`, which has that many and loses
// them. No numbers have no place in memory, which memcpy must not be given even where it copies
// nothing.
template <typename Numbers>
void TakeNumbers(absl::string_view& bytes, Numbers&& numbers) {
  const std::span all(numbers);
  static_assert(std::is_arithmetic_v<typename decltype(all)::value_type>);
  if (all.empty()) return;
  std::memcpy(all.data(), bytes.data(), all.size_bytes());
  bytes.remove_prefix(all.size_bytes());
}

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_NUMBER_BYTES_H_
