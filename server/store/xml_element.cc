#include "store/xml_element.h"

#include <expat.h>

#include <limits>
#include <memory>
#include <new>
#include <utility>

#include "absl/status/status.h"

namespace valuescope::store {
namespace {

// Between a name's namespace and the name itself.
constexpr char kSeparator = ' ';

// Called by expat, through which no exception may pass.
class Reader {
 public:
  explicit Reader(XML_Parser parser) : parser_(parser) {
    XML_SetUserData(parser, this);
    XML_SetElementHandler(
        parser,
        [](void* self, const char* name, const char**) { static_cast<Reader*>(self)->Begin(name); },
        [](void* self, const char*) { static_cast<Reader*>(self)->End(); });
    XML_SetCharacterDataHandler(parser, [](void* self, const char* text, int length) {
      static_cast<Reader*>(self)->Add({text, static_cast<size_t>(length)});
    });
    XML_SetStartDoctypeDeclHandler(parser, [](void* self, const char*, const char*, const char*,
                                              int) { static_cast<Reader*>(self)->Stop(); });
  }

  // Once the whole document was parsed.
  XmlElement TakeRoot() { return std::move(root_); }

 private:
  void Begin(absl::string_view name) noexcept {
    if (open_.size() >= kMaxXmlDepth || ++elements_ > kMaxXmlElements) return Stop();
    try {
      // Only the last child of each grows, so that those which are open stay where they are.
      XmlElement& element = open_.empty() ? root_ : open_.back()->children.emplace_back();
      element.name = std::string(name.substr(name.rfind(kSeparator) + 1));
      open_.push_back(&element);
    } catch (const std::bad_alloc&) {
      Stop();
    }
  }

  // Behind a stop expat still ends an empty element that did not begin.
  void End() noexcept {
    if (!open_.empty()) open_.pop_back();
  }

  void Add(absl::string_view text) noexcept {
    if (open_.empty()) return;
    try {
      open_.back()->text.append(text.data(), text.size());
    } catch (const std::bad_alloc&) {
      Stop();
    }
  }

  void Stop() { XML_StopParser(parser_, /*resumable=*/XML_FALSE); }

  const XML_Parser parser_;
  XmlElement root_;
  std::vector<XmlElement*> open_;
  int elements_ = 0;
};

struct FreeParser {
  void operator()(XML_Parser parser) const { XML_ParserFree(parser); }
};

}  // namespace

absl::string_view XmlElement::TextOf(absl::string_view child) const {
  for (const XmlElement& element : children) {
    if (element.name == child) return element.text;
  }
  return "";
}

absl::StatusOr<XmlElement> ParseXml(absl::string_view text) {
  const std::unique_ptr<XML_ParserStruct, FreeParser> parser(
      XML_ParserCreateNS(/*encoding=*/"UTF-8", kSeparator));
  if (parser == nullptr) throw std::bad_alloc();
  Reader reader(parser.get());
  if (text.size() > std::numeric_limits<int>::max() ||
      XML_Parse(parser.get(), text.data(), static_cast<int>(text.size()), /*isFinal=*/XML_TRUE) !=
          XML_STATUS_OK) {
    return absl::InvalidArgumentError("not the XML of an answer");
  }
  return reader.TakeRoot();
}

}  // namespace valuescope::store
