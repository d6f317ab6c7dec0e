"""Words and phrases in a text, found as the contract's WordListJudge finds them, so that data can be checked before a server sees it.

Text is compared in composed form without regard to case, white space of any kind and length is one space. An entry is whole where no
letter, digit or mark continues it on either side; one that ends in "*" stands for every word that begins so. (The server lets entries
in scripts without spaces stand at Unicode's word boundaries; here they may stand anywhere.)
"""

from __future__ import annotations

import unicodedata

# Beginnings of the names of letters of scripts without spaces.
_WITHOUT_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


def folded(text: str) -> str:
    """The form in which texts and entries are compared: each character in the lower case of its upper case."""
    composed = unicodedata.normalize("NFC", " ".join(text.split()))
    return "".join(character.upper().lower() for character in composed)


def occurs(entry: str, text: str) -> bool:
    """Whether an entry of a word list stands in a text."""
    return occurs_folded(folded(entry), folded(text))


def occurs_folded(entry: str, text: str) -> bool:
    """The same, of what is `folded` already."""
    open_ended = entry.endswith("*")
    wanted = entry.removesuffix("*")
    start = text.find(wanted)
    while start >= 0:
        end = start + len(wanted)
        begins = not _continued(text[start - 1 : start], wanted[0])
        if begins and (open_ended or not _continued(text[end : end + 1], wanted[-1])):
            return True
        start = text.find(wanted, start + 1)
    return False


def _continued(neighbour: str, edge: str) -> bool:
    """Whether the character beside an entry makes its edge part of a longer word."""
    if not neighbour or unicodedata.category(neighbour)[0] not in "LMN":
        return False
    return not unicodedata.name(edge, "").startswith(_WITHOUT_SPACES)
