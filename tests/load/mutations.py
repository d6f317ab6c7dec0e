"""Requests that are nearly right: valid ones of which some fields have other values, bytes are cut off, changed or added, and parts are huge
or deep. What is drawn depends on the generator alone, so that a mutation can be made again from its seed."""

import math
import random

from google.protobuf.descriptor import FieldDescriptor

# Of each integer type the values at which a mistake shows.
_WHOLE = [-1, 0, 1, 2, 3, 7, 100, 1000, 65_536]
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_REAL = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45, -1.0, 0.5, 1.0, 2.0, 1e30, 3e38, -3e38]
_DOUBLE = [1e308, -1e308, 5e-324]
_TEXTS = [
    "", " ", "x", "\0", "a\0b", "%s%n", "../../etc/passwd", "models/", "models/../x", "vectors/", "artifacts/x/y", "jobs/*", "{item}",
    "{query}{response}", "{{", "\u202e\u0301" * 9, "\U0001f600" * 40, "<|im_start|>", "<s>", "w12 w13", "*", "[", "null", "-1", "1e999",
]  # fmt: skip
_MOST_BYTES = (
    6 << 20
)  # the server takes 64 MiB; a request as large as that every few takes too long
_DEEPEST = 4


class Mutator:
    """`names`: strings that stand where names of resources may."""

    def __init__(self, draws: random.Random, names):
        self.draws, self.names = draws, list(names)

    def mutate(self, messages):
        """The bytes of one call's messages, some of which are other than they were."""
        changed = [type(message).FromString(message.SerializeToString()) for message in messages]
        for _ in range(self.draws.choice([0, 1, 1, 1, 2, 3, 6])):
            self._change(self.draws.choice(changed))
        parts = [message.SerializeToString()[:_MOST_BYTES] for message in changed]
        if self.draws.random() < 0.25:
            place = self.draws.randrange(len(parts))
            parts[place] = self._damaged(parts[place])
        if len(parts) > 1 and self.draws.random() < 0.2:
            self.draws.shuffle(parts)
        return parts

    # --- Fields ---

    def _change(self, message):
        inner = self.draws.choice(list(_messages_in(message)))
        field = self.draws.choice(inner.DESCRIPTOR.fields) if inner.DESCRIPTOR.fields else None
        if field is None:
            return
        if self.draws.random() < 0.2:
            inner.ClearField(field.name)
        elif _is_map(field):
            self._fill_map(inner, field)
        elif field.is_repeated:
            self._change_list(getattr(inner, field.name), field)
        elif field.message_type is not None:
            self._fill(getattr(inner, field.name), _DEEPEST)
        else:
            self._set(inner, field)

    def _change_list(self, values, field):
        how = self.draws.random()
        if how < 0.4 or not values:
            self._append(values, field, _DEEPEST)
        elif how < 0.5:
            del values[self.draws.randrange(len(values)) :]
        elif how < 0.8:
            self._repeat(values, field)
        elif field.message_type is not None:
            self._change(self.draws.choice(list(values)))
        else:
            values[self.draws.randrange(len(values))] = self._scalar(field)

    def _repeat(self, values, field):
        one = values[self.draws.randrange(len(values))]
        size = one.ByteSize() if field.message_type is not None else 16
        most = max(1, _MOST_BYTES // 8 // max(1, size))
        count = min(most, self.draws.choice([1, 2, 17, 65, 300, 5000, 70_000]))
        values.extend([one] * count)

    def _append(self, values, field, depth):
        if field.message_type is not None:
            self._fill(values.add(), depth - 1)
        else:
            values.append(self._scalar(field))

    def _fill(self, message, depth):
        message.SetInParent()
        for field in message.DESCRIPTOR.fields:
            if self.draws.random() > 0.3 or depth <= 0:
                continue
            if _is_map(field):
                self._fill_map(message, field)
            elif field.is_repeated:
                self._append(getattr(message, field.name), field, depth)
            elif field.message_type is not None:
                self._fill(getattr(message, field.name), depth - 1)
            else:
                self._set(message, field)

    def _fill_map(self, message, field):
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        entries, at = getattr(message, field.name), self._scalar(key)
        if value.message_type is None:
            entries[at] = self._scalar(value)
        else:
            self._fill(entries[at], 1)

    def _set(self, message, field):
        setattr(message, field.name, self._scalar(field))

    def _scalar(self, field):
        if field.enum_type is not None:
            known = [value.number for value in field.enum_type.values]
            return self.draws.choice([*known, 99, -1, 2**31 - 1])
        if field.cpp_type in _RANGES:
            low, high = _RANGES[field.cpp_type]
            return min(high, max(low, self.draws.choice([*_WHOLE, low, high])))
        if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
            return self.draws.choice(_REAL)
        if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
            return self.draws.choice(_REAL + _DOUBLE)
        if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return self.draws.random() < 0.5
        if field.type == FieldDescriptor.TYPE_BYTES:
            return self.draws.randbytes(self.draws.choice([0, 1, 4, 64, 1000, 1 << 20]))
        length = self.draws.choice([1, 257, 5000, 5000, 1 << 20])
        return self.draws.choice([*_TEXTS, *self.names, *self.names, "w1 " * length])

    # --- Bytes ---

    def _damaged(self, data):
        how = self.draws.randrange(6)
        at = self.draws.randrange(len(data) + 1)
        if how == 0:
            return data[:at]
        if how == 1:
            flipped = bytearray(data)
            for _ in range(self.draws.choice([1, 4, 32])):
                if flipped:
                    flipped[self.draws.randrange(len(flipped))] ^= 1 << self.draws.randrange(8)
            return bytes(flipped)
        if how == 2:
            return data[:at] + self.draws.randbytes(self.draws.choice([1, 9, 200])) + data[at:]
        if how == 3:  # one that nobody knows: of each wire type
            number = self.draws.choice([15, 999, 2**28])
            return data + _tag(number, self.draws.choice([0, 1, 2, 5])) + b"\x05abcdefgh"
        if how == 4:  # in each other, as messages or as groups
            depth = self.draws.choice([50, 120, 5000])
            number = self.draws.randrange(1, 12)
            if self.draws.random() < 0.5:
                return data + _tag(number, 3) * depth + _tag(number, 4) * depth
            return data + _nested(number, depth)
        # A length that is not there.
        return data + _tag(self.draws.randrange(1, 12), 2) + b"\xff\xff\xff\xff\x07"


def _tag(number, wire_type):
    return _varint(number << 3 | wire_type)


def _varint(value):
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _nested(number, depth):
    data = b""
    for _ in range(min(depth, 500)):
        data = _tag(number, 2) + _varint(len(data)) + data
    return data


def _is_map(field):
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _messages_in(message):
    """The message, and those that are set in it, of lists the first few."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None or _is_map(field):
            continue
        for inner in list(value)[:4] if field.is_repeated else [value]:
            yield from _messages_in(inner)
