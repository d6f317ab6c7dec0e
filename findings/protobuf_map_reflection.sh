#!/usr/bin/env bash
# protobuf 3.21.12, C++: reading a map field through reflection leaves a second copy of the map in the message.
#
# Guess: Reflection::GetRepeatedMessage on a const message reads; a walk over a request by descriptors (to check, count or print it)
# costs no memory that stays. A map is a repeated field of entries to reflection, so that is how a generic walk meets it.
# Seen: the first read makes a list of copies of all entries, which is kept beside the map as long as the message lives, and the copies
# are messages with maps of their own, which the walk copies in turn. A google.protobuf.Struct of 100 strings and one Struct like it
# inside, four deep, takes 3.5 times its memory after it was looked at once.
# So: a walk that leaves map fields alone, or reads them by their generated accessors.
#
# Exits 0 while that is so, 1 when the message stays as it was. Needs g++ and apt-get of Debian 12, and installs nothing in the system.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
version=3.21.12-3+deb12u1
apt-get download -qq "libprotobuf-dev=$version" "libprotobuf32=$version" 2>/dev/null
for package in ./*.deb; do dpkg -x "$package" root; done
cat >probe.cc <<'CPP'
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/struct.pb.h>

#include <cstdio>
#include <string>
#include <vector>

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Looks at every message within a message, and changes none.
void Walk(const Message& message) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (!field->is_repeated()) {
      Walk(message.GetReflection()->GetMessage(message, field));
      continue;
    }
    const int size = message.GetReflection()->FieldSize(message, field);
    for (int i = 0; i < size; ++i) {
      Walk(message.GetReflection()->GetRepeatedMessage(message, field, i));
    }
  }
}

int main() {
  google::protobuf::Struct whole;
  google::protobuf::Struct* part = &whole;
  for (int depth = 0; depth < 4; ++depth) {
    for (int i = 0; i < 100; ++i) {
      (*part->mutable_fields())["key " + std::to_string(i)].set_string_value("a value of some length");
    }
    part = (*part->mutable_fields())["inner"].mutable_struct_value();
  }
  const size_t before = whole.SpaceUsedLong();
  Walk(whole);
  const size_t after = whole.SpaceUsedLong();
  std::printf("protobuf %d: %zu bytes before it is looked at, %zu after, %.1f times as much\n",
              GOOGLE_PROTOBUF_VERSION, before, after, static_cast<double>(after) / before);
  return after > 2 * before ? 0 : 1;
}
CPP
library=$(dirname "$(find root -name libprotobuf.so)")
g++ -std=c++17 -O1 -w -I root/usr/include probe.cc -o probe -L "$library" -lprotobuf -Wl,-rpath,"$folder/$library" -pthread
./probe
