// XML as S3 answers it: small documents of elements and text, from a machine that is not ours. A
// document type, and with it every entity of its own, is refused, and so is what is deep, wide or
// not well-formed; names are without their namespaces' prefixes, attributes are passed over.
#ifndef VALUESCOPE_STORE_XML_ELEMENT_H_
#define VALUESCOPE_STORE_XML_ELEMENT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace valuescope::store {

struct XmlElement {
  std::string name;
  std::string text;  // its own, that of its children left out
  std::vector<XmlElement> children;

  // The text of the first child of that name; empty where there is none.
  absl::string_view TextOf(absl::string_view child) const;
};

inline constexpr int kMaxXmlDepth = 8;
inline constexpr int kMaxXmlElements = 100'000;

// The root. INVALID_ARGUMENT where `text` is not what the head of this file says.
absl::StatusOr<XmlElement> ParseXml(absl::string_view text);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_XML_ELEMENT_H_
