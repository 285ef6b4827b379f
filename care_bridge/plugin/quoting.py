"""Text as ImageJ's macro language, its options and Groovy read it: whatever a path holds, it stays a path.

Every macro, line and script that is written goes through here. ImageJ takes options by searching for the first
``key=`` that no letter precedes, in brackets or not, so a value that holds a key of the same call is read as that key.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from care_bridge.errors import InputError

_NAMED = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
# Controls, lone halves of characters (names that are no UTF-8), separators of lines and paragraphs.
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")


@dataclass(frozen=True)
class Code:
    """A piece of a macro that is computed where it runs, e.g. ``Code("getTitle()")``, beside text, which is quoted."""

    text: str


def imagej_string(text: str) -> str:
    r"""A literal of ImageJ's macro language that has this value.

    Notes
    -----
    Read as Java's StreamTokenizer does: ``\"``, ``\\``, ``\n``, octal numbers; a line break ends it.
    """
    _no_half_characters(text)
    return '"' + "".join(_NAMED.get(letter) or _octal(letter) for letter in text) + '"'


def groovy_string(text: str) -> str:
    r"""A literal of Groovy that has this value; in single quotes, where ``$`` means nothing."""
    _no_half_characters(text)
    special = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return (
        "'"
        + "".join(
            special.get(letter)
            or (f"\\u{ord(letter):04x}" if unicodedata.category(letter) in _UNPRINTABLE else letter)
            for letter in text
        )
        + "'"
    )


def imagej_options(options: Mapping[str, str | Code], *, others: Mapping[str, str] | None = None) -> str:
    """``key=[value] ...`` as an expression of ImageJ's macro language, each value read as it is.

    Parameters
    ----------
    options : mapping
        Values that may hold anything; text is quoted, code is computed in the macro. Give code last: what it computes
        cannot be looked at here, and of two equal keys ImageJ takes the first.
    others : mapping, optional
        Words and numbers of our own, written before these without brackets.

    Raises
    ------
    InputError
        If ImageJ would read a value differently: a single bracket, or a key of the same call in it.
    """
    keys = [*(others or {}), *options]
    pieces = [" ".join(f"{key}={value}" for key, value in (others or {}).items())]
    for key, value in options.items():
        pieces[-1] += f"{' ' if pieces[-1] or len(pieces) > 1 else ''}{key}=["
        if isinstance(value, Code):
            pieces += [value.text, "]"]
            continue
        problem = option_problem(value, keys)
        if problem:
            raise InputError(f"an ImageJ macro cannot take {value!r} as {key}: {problem}")
        pieces[-1] += f"{value}]"
    return " + ".join(piece if number % 2 else imagej_string(piece) for number, piece in enumerate(pieces))


def imagej_argument(settings: Mapping[str, str]) -> str:
    """``key=[value] ...`` for the argument of a macro of ours, which reads it from left to right.

    Raises
    ------
    InputError
        For a key that is no word, or a value with a single bracket.
    """
    for key, value in settings.items():
        if not re.fullmatch(r"\w+", key):
            raise InputError(f"{key!r} is no name of a setting; write one word, e.g. model=cell.zip")
        problem = option_problem(value, ())
        if problem:
            raise InputError(f"a macro cannot take {value!r} as {key}: {problem}")
    return " ".join(f"{key}=[{value}]" for key, value in settings.items())


def option_problem(value: str, keys: Iterable[str]) -> str:
    """Why ImageJ would not read ``[value]`` as it is, in a call with these keys; "" where it does."""
    depth = 0
    for letter in value:
        depth += (letter == "[") - (letter == "]")
        if depth < 0:
            break
    if depth:
        return "it holds a single bracket; rename it"
    for key in keys:
        for found in re.finditer(f"{re.escape(key)}=", value, re.IGNORECASE):
            if found.start() == 0 or not value[found.start() - 1].isalpha():
                return f"it holds '{key}=', which is an option of the same line; rename it"
    return ""


def path_text(path: str | os.PathLike[str]) -> str:
    """A path of this machine as macros hold it: absolute, with forward slashes.

    Raises
    ------
    InputError
        If it holds a line break, another control character, or a backslash that separates nothing.
    """
    text = os.path.abspath(path)
    if os.sep == "\\":
        text = text.replace("\\", "/")
    problem = next((letter for letter in text if unicodedata.category(letter) in _UNPRINTABLE), None)
    if problem is None and "\\" in text:
        problem = "\\"
    if problem is not None:
        raise InputError(
            f"a macro cannot hold the character {problem!r} in {text!r}; rename the folder or file"
        )
    return text


def printable(text: str) -> str:
    """A name for texts that people read, on one line."""
    return "".join("?" if unicodedata.category(letter) in _UNPRINTABLE else letter for letter in text)


def _octal(letter: str) -> str:
    return f"\\{ord(letter):03o}" if ord(letter) < 256 and unicodedata.category(letter) == "Cc" else letter


def _no_half_characters(text: str) -> None:
    if any(unicodedata.category(letter) == "Cs" for letter in text):
        raise InputError(f"{text!r} is not text in UTF-8; rename the folder or file")
