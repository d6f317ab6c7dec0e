// Failures of the Rust library as the statuses users meet.
#ifndef VALUESCOPE_TEXT_LIBRARY_FAILURE_H_
#define VALUESCOPE_TEXT_LIBRARY_FAILURE_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "text/rust_interface.h"

namespace valuescope::text {

// `field` names the input that the library was given; OK for VS_OK.
absl::Status StatusOf(VsFailure failure, const OwnedString& error, absl::string_view field);

inline VsBytes Borrow(absl::string_view text) { return {text.data(), text.size()}; }
inline absl::string_view View(const OwnedString& text) { return {text.data(), text.size()}; }

}  // namespace valuescope::text

#endif  // VALUESCOPE_TEXT_LIBRARY_FAILURE_H_
