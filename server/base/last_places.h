// Who may have one of the last places of something that tenants share and hold for as long as they
// like: beside all the others there are some for tenants with few, of which each has less than an
// eighth of what is left. So nobody has all of them, however many come.
#ifndef VALUESCOPE_BASE_LAST_PLACES_H_
#define VALUESCOPE_BASE_LAST_PLACES_H_

#include <cstdint>

namespace valuescope {

// How many tenants share what is kept, and what part of the places it is.
inline constexpr int64_t kTenantsWithFew = 8;

// Whether a tenant that holds `own` places may have one of the `left` ones, of which the last
// `kept` are for tenants with few.
inline bool MayTakePlace(int64_t own, int64_t left, int64_t kept) {
  return left > kept || own * kTenantsWithFew < left;
}

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_LAST_PLACES_H_
