// Early return on error, so that the main line of a function stays readable.
//
//   VS_RETURN_IF_ERROR(CheckShape(tensor));
//   VS_ASSIGN_OR_RETURN(auto model, Load(folder));
#ifndef VALUESCOPE_BASE_STATUS_MACROS_H_
#define VALUESCOPE_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define VS_STATUS_CONCAT_INNER(a, b) a##b
#define VS_STATUS_CONCAT(a, b) VS_STATUS_CONCAT_INNER(a, b)

#define VS_RETURN_IF_ERROR(expression)                                              \
  do {                                                                              \
    if (::absl::Status vs_status = (expression); !vs_status.ok()) return vs_status; \
  } while (false)

#define VS_ASSIGN_OR_RETURN(declaration, expression) \
  VS_ASSIGN_OR_RETURN_INNER(VS_STATUS_CONCAT(vs_status_or_, __LINE__), declaration, expression)
#define VS_ASSIGN_OR_RETURN_INNER(temporary, declaration, expression) \
  auto temporary = (expression);                                      \
  if (!temporary.ok()) return std::move(temporary).status();          \
  declaration = *std::move(temporary)

#endif  // VALUESCOPE_BASE_STATUS_MACROS_H_
