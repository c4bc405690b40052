"""Names of classes and image files.

They are normalised to the Unicode form NFC, because macOS and Linux encode the letters of the same name differently.
"""

from __future__ import annotations

import unicodedata

#: Bytes that a class or file name may have, as in every common file system.
_LONGEST = 255
#: Characters that change the writing direction of the text around them, so that one name can look like another.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def nfc(text: str) -> str:
    """Return a text in NFC, the one spelling that names have here."""
    return unicodedata.normalize("NFC", text)


def shown(text: str) -> str:
    """Return a name that is safe to print: whatever would break the line or the terminal is escaped."""
    return text if text.isprintable() else repr(text)


def unusable(name: str) -> str:
    """Return why a class or a file cannot have this name; "" where it can."""
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
    """Return why a class cannot have this name; "" where it can. Lists and forms would lose blanks at its ends."""
    return unusable(name) or ("begins or ends with a blank" if name != name.strip() else "")
