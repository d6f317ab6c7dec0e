#include "rpc/parsed_size.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/message.h>
#include <google/protobuf/unknown_field_set.h>

#include <algorithm>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "base/check.h"

namespace valuescope::rpc {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::MessageFactory;
using google::protobuf::UnknownField;
using google::protobuf::UnknownFieldSet;
using google::protobuf::io::CodedInputStream;
using google::protobuf::io::ZeroCopyInputStream;

// The lowest three bits of a tag: how the value behind it is written.
enum Encoding : uint32_t {
  kVarint = 0,
  kFixed64 = 1,
  kDelimited = 2,
  kStartGroup = 3,
  kEndGroup = 4,
  kFixed32 = 5,
};

// --- What things take in memory ------------------------------------------------------------------

// An allocation of `bytes` as glibc serves it: with a header, in steps of 16; a large one may be
// mapped by itself, in whole pages.
constexpr int64_t Allocated(int64_t bytes) {
  constexpr int64_t kHeader = 8, kStep = 16, kLeast = 32, kPage = 4096, kMapped = 128 << 10;
  if (bytes >= kMapped) return (bytes + 2 * kHeader + kPage - 1) / kPage * kPage;
  return std::max(kLeast, (bytes + kHeader + kStep - 1) / kStep * kStep);
}

// An element of `bytes` in an array that doubles when it is full; one more for whole pages.
constexpr int64_t InArray(int64_t bytes) { return 2 * bytes + 1; }
// What the first elements of an array take beyond that.
constexpr int64_t kArray = 32;
// The first table of a map. It doubles when three quarters are taken: 8 / (3/4) x 2 bytes an entry,
// rounded up, one more for whole pages.
constexpr int64_t kTable = Allocated(8 * sizeof(void*));
constexpr int64_t kInTable = 23;
// Entries that share a bucket, eight at least, may lie in a tree as well, of seven words: each has
// four words of a node there, its key and itself.
constexpr int64_t kInTree = Allocated(6 * sizeof(void*)) + Allocated(7 * sizeof(void*)) / 8;
// What a message has beside its fields once a field is unknown to it: a set and its arena.
constexpr int64_t kUnknownSet = Allocated(sizeof(UnknownFieldSet) + sizeof(void*));
constexpr int64_t kString = Allocated(sizeof(std::string));

// What a string of `length` takes beside itself.
int64_t TextBytes(int64_t length) {
  // As libstdc++ has it: so much lies inside the string, and room that grows at least doubles.
  constexpr int64_t kInside = 15;
  // The parser reserves no more than this before it has read as much; from there on room doubles.
  constexpr int64_t kReserved = 50'000'000;
  if (length <= kInside) return 0;
  return Allocated(std::max(length > kReserved ? 2 * length : length, 2 * kInside) + 1);
}

// --- What the messages of the contract hold ------------------------------------------------------

struct Layout;

// What a field's values take.
struct Field {
  Encoding encoding = kVarint;
  // Whether values may also be written side by side, with one tag for all.
  bool packable = false;
  // What each takes beside what it holds.
  int64_t bytes = 0;
  // What the first of them takes beyond that.
  int64_t first_bytes = 0;
  // Of a message; null for anything else.
  const Layout* message = nullptr;
};

// A type of message, as far as its size goes. Descriptors tell the same, at the price of several
// look-ups under locks for each value.
struct Layout {
  // Its class; of a map's entry the node that stands for it.
  int64_t bytes = 0;
  absl::flat_hash_map<uint32_t, Field> fields;  // by number
};

Encoding EncodingOf(const FieldDescriptor& field) {
  switch (field.type()) {
    case FieldDescriptor::TYPE_DOUBLE:
    case FieldDescriptor::TYPE_FIXED64:
    case FieldDescriptor::TYPE_SFIXED64:
      return kFixed64;
    case FieldDescriptor::TYPE_FLOAT:
    case FieldDescriptor::TYPE_FIXED32:
    case FieldDescriptor::TYPE_SFIXED32:
      return kFixed32;
    case FieldDescriptor::TYPE_STRING:
    case FieldDescriptor::TYPE_BYTES:
    case FieldDescriptor::TYPE_MESSAGE:
      return kDelimited;
    default:
      return kVarint;
  }
}

int64_t ScalarBytes(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      return sizeof(bool);
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_UINT32:
    case FieldDescriptor::CPPTYPE_FLOAT:
    case FieldDescriptor::CPPTYPE_ENUM:
      return sizeof(int32_t);
    default:
      return sizeof(int64_t);
  }
}

int64_t ClassBytes(const Descriptor& type) {
  const Message* const prototype = MessageFactory::generated_factory()->GetPrototype(&type);
  VS_CHECK(prototype != nullptr);
  return static_cast<int64_t>(prototype->SpaceUsedLong());
}

// A key or a value where it lies in the node of a map.
int64_t BytesInNode(const FieldDescriptor& field) {
  if (field.message_type() != nullptr) return ClassBytes(*field.message_type());
  return field.cpp_type() == FieldDescriptor::CPPTYPE_STRING
             ? static_cast<int64_t>(sizeof(std::string))
             : static_cast<int64_t>(sizeof(int64_t));  // padded
}

int64_t EntryBytes(const Descriptor& entry) {
  const int64_t next = sizeof(void*);
  return Allocated(BytesInNode(*entry.map_key()) + BytesInNode(*entry.map_value()) + next) +
         kInTable + kInTree;
}

// Every type that was asked for, made once.
class Layouts {
 public:
  const Layout& Of(const Descriptor& type) {
    absl::MutexLock lock(&mutex_);
    return Made(type);
  }

 private:
  const Layout& Made(const Descriptor& type) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Field Describe(const FieldDescriptor& field) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  absl::flat_hash_map<const Descriptor*, std::unique_ptr<Layout>> made_ ABSL_GUARDED_BY(mutex_);
};

const Layout& Layouts::Made(const Descriptor& type) {
  std::unique_ptr<Layout>& place = made_[&type];
  if (place != nullptr) return *place;
  place = std::make_unique<Layout>();
  Layout& layout = *place;
  // Before the fields, which may lead back to this type.
  const bool is_entry = type.map_key() != nullptr;
  layout.bytes = is_entry ? EntryBytes(type) : Allocated(ClassBytes(type));
  for (int i = 0; i < type.field_count(); ++i) {
    Field field = Describe(*type.field(i));
    if (is_entry) field.bytes = 0;  // key and value lie in the node
    layout.fields[static_cast<uint32_t>(type.field(i)->number())] = field;
  }
  return layout;
}

Field Layouts::Describe(const FieldDescriptor& descriptor) {
  Field field = {.encoding = EncodingOf(descriptor)};
  if (descriptor.message_type() != nullptr) {
    field.message = &Made(*descriptor.message_type());
    field.bytes = field.message->bytes;
  } else if (descriptor.cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
    field.bytes = kString;
  } else if (descriptor.is_repeated()) {
    field.packable = true;
    field.bytes = InArray(ScalarBytes(descriptor));
  }
  if (descriptor.is_map()) {
    field.first_bytes = kTable;
  } else if (descriptor.is_repeated()) {
    field.first_bytes = kArray;
    if (!field.packable) field.bytes += InArray(sizeof(void*));
  }
  return field;
}

Layouts& AllLayouts() {
  static Layouts& layouts = *new Layouts;
  return layouts;
}

// What a message keeps of a field that its type does not have, by encoding.
const Field& Unknown(uint32_t encoding) {
  constexpr int64_t kBytes = InArray(sizeof(UnknownField)), kFirst = kUnknownSet + kArray;
  static constexpr Field kScalar = {.bytes = kBytes, .first_bytes = kFirst};
  static constexpr Field kText = {.bytes = kBytes + kString, .first_bytes = kFirst};
  static constexpr Field kGroup = {.bytes = kBytes + Allocated(sizeof(UnknownFieldSet)),
                                   .first_bytes = kFirst};
  return encoding == kDelimited ? kText : encoding == kStartGroup ? kGroup : kScalar;
}

const Field& FieldOf(const Layout& layout, uint32_t number, uint32_t encoding) {
  const auto found = layout.fields.find(number);
  if (found == layout.fields.end()) return Unknown(encoding);
  const Field& field = found->second;
  const bool fits = encoding == field.encoding || (field.packable && encoding == kDelimited);
  return fits ? field : Unknown(encoding);
}

// --- The pass ------------------------------------------------------------------------------------

// Adds up what it passes. Its functions return false where the bytes are malformed.
class Pass {
 public:
  explicit Pass(ZeroCopyInputStream* wire) : wire_(wire) {}

  bool WholeMessage(const Layout& layout) {
    bytes_ += layout.bytes;
    return Fields(layout, kEnd, CodedInputStream::GetDefaultRecursionLimit());
  }

  // Far from the bounds of its type: the stream ends after 2 GiB, and a byte of it adds no more
  // than the largest class.
  int64_t bytes() const { return bytes_; }

 private:
  // What reads as a tag where a message ends.
  static constexpr uint32_t kEnd = 0;

  // The fields up to the tag `end`. `depth` is how many messages more may lie in each other.
  bool Fields(const Layout& layout, uint32_t end, int depth);
  bool Value(const Field& field, uint32_t tag, int depth);
  bool Delimited(const Field& field, int depth);
  bool Nested(const Layout& layout, int length, int depth);
  bool Packed(const Field& field, int length);
  bool CountVarints(int length, int64_t* count);

  CodedInputStream wire_;
  int64_t bytes_ = 0;
};

bool Pass::Fields(const Layout& layout, uint32_t end, int depth) {
  // Values of one list follow each other; a list that is taken up again counts as another.
  const Field* before = nullptr;
  for (;;) {
    const uint32_t tag = wire_.ReadTag();
    if (tag == end) return end != kEnd || wire_.ConsumedEntireMessage();
    const uint32_t number = tag >> 3;
    if (number == 0) return false;
    const Field& field = FieldOf(layout, number, tag & 7);
    if (&field != before) bytes_ += field.first_bytes;
    before = &field;
    if (!Value(field, tag, depth)) return false;
  }
}

bool Pass::Value(const Field& field, uint32_t tag, int depth) {
  const uint32_t encoding = tag & 7;
  if (encoding == kDelimited) return Delimited(field, depth);
  bytes_ += field.bytes;
  switch (encoding) {
    case kVarint: {
      uint64_t value;
      return wire_.ReadVarint64(&value);
    }
    case kFixed64:
      return wire_.Skip(8);
    case kFixed32:
      return wire_.Skip(4);
    case kStartGroup: {
      static const Layout& nothing_known = *new Layout;
      return depth > 0 && Fields(nothing_known, tag - kStartGroup + kEndGroup, depth - 1);
    }
    default:
      return false;
  }
}

bool Pass::Delimited(const Field& field, int depth) {
  int length;
  if (!wire_.ReadVarintSizeAsInt(&length)) return false;
  if (field.packable) return Packed(field, length);
  bytes_ += field.bytes;
  if (field.message != nullptr) return Nested(*field.message, length, depth);
  bytes_ += TextBytes(length);
  return wire_.Skip(length);
}

bool Pass::Nested(const Layout& layout, int length, int depth) {
  if (depth == 0) return false;
  if (length == 0) return true;
  const CodedInputStream::Limit limit = wire_.PushLimit(length);
  // The limit stays where it was if the message would reach beyond it.
  if (wire_.BytesUntilLimit() != length) return false;
  if (!Fields(layout, kEnd, depth - 1) || wire_.BytesUntilLimit() != 0) return false;
  wire_.PopLimit(limit);
  return true;
}

bool Pass::Packed(const Field& field, int length) {
  int64_t count = 0;
  if (field.encoding == kVarint) {
    if (!CountVarints(length, &count)) return false;
  } else {
    const int each = field.encoding == kFixed64 ? 8 : 4;
    count = length / each;
    if (length % each != 0 || !wire_.Skip(length)) return false;
  }
  bytes_ += count * field.bytes;
  return true;
}

// Adds the varints in the next `length` bytes to `count`.
bool Pass::CountVarints(int length, int64_t* count) {
  const auto is_last = [](uint8_t byte) { return byte < 0x80; };
  bool ended = true;
  while (length > 0) {
    const void* data;
    int size;
    if (!wire_.GetDirectBufferPointer(&data, &size)) return false;
    size = std::min(size, length);
    const auto* const bytes = static_cast<const uint8_t*>(data);
    *count += std::count_if(bytes, bytes + size, is_last);
    ended = is_last(bytes[size - 1]);
    if (!wire_.Skip(size)) return false;
    length -= size;
  }
  return ended;
}

}  // namespace

std::optional<int64_t> ParsedSize(const Descriptor& type, ZeroCopyInputStream* wire) {
  Pass pass(wire);
  if (!pass.WholeMessage(AllLayouts().Of(type))) return std::nullopt;
  return pass.bytes();
}

}  // namespace valuescope::rpc
