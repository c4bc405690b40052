"""Names of classes and image files.

They are brought to the Unicode form NFC: macOS writes the letters of one name in another way than Linux does.
"""

from __future__ import annotations

import unicodedata

#: Bytes that a class or file name may have, as in every common file system.
_LONGEST = 255
#: They turn the direction of what stands around them, so that a name looks like another.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def nfc(text: str) -> str:
    """Text in the one spelling that names have here."""
    return unicodedata.normalize("NFC", text)


def shown(text: str) -> str:
    """A name as a message may have it: whatever would break the line or the terminal is escaped."""
    return text if text.isprintable() else repr(text)


def unusable(name: str) -> str:
    """Why a class or a file cannot have this name; "" where it can."""
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        return "is not UTF-8"
    if any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in name):
        return "has a control character, such as a line break"
    if _TURNING & set(name):
        return "has a character that turns the direction of writing"
    if not name:
        return "is empty"
    if len(nfc(name).encode()) > _LONGEST:
        return f"has more than {_LONGEST} bytes"
    return ""


def unusable_class(name: str) -> str:
    """Why a class cannot have this name; "" where it can. Blanks at its ends would be lost on the way through lists and forms."""
    return unusable(name) or ("begins or ends with a blank" if name != name.strip() else "")
