"""What stands in a macro: calls with their arguments, functions, loops, constants; read from its text, never run."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

HOLE = "\0"
"""Stands in a text for what the macro computes when it runs."""

_TOKEN = re.compile(
    r"""(?P<blank>\s+)
    |(?P<text>\"(?:[^\"\\\n]|\\.)*\"?|'(?:[^'\\\n]|\\.)*'?)
    |(?P<name>[A-Za-z_$][\w$]*(?:\.[A-Za-z_]\w*)*)
    |(?P<number>\d[\w.]*)
    |(?P<sign>\+\+|--|[-+*/<>=!]=|&&|\|\||.)""",
    re.VERBOSE | re.DOTALL,
)
_INSIDE = {quote: re.compile(rf"(?:[^{quote}\\\n]|\\.)*", re.DOTALL) for quote in "\"'"}
_MOST_FOLLOWED = 2000
_LONGEST_EXPRESSION = 500
"""Tokens; what a longer one holds is not known."""

_DEEPEST = 100
"""Of calls within so many others the arguments are not read: each holds all those within it."""
_KEYWORDS = {"if", "for", "while", "do", "else", "return", "function", "macro", "var", "new"}


@dataclass(frozen=True)
class Token:
    """A word of a macro: its kind (text, name, number, sign), its letters, and where it starts."""

    kind: str
    word: str
    start: int


@dataclass(frozen=True)
class Call:
    """A call `name(arguments)`; tokens from `first` to `last`, the closing bracket."""

    name: str
    arguments: tuple[tuple[Token, ...], ...]
    start: int
    line: int
    first: int
    last: int


@dataclass(frozen=True)
class Happening:
    """A call in the order in which it happens, functions of the macro followed."""

    call: Call
    repeated: bool


@dataclass
class Function:
    """A function of the macro: its parameters, and its body as a range of tokens."""

    parameters: tuple[str, ...]
    first: int
    last: int


@dataclass
class Macro:
    """A macro as far as its text says what it does.

    Attributes
    ----------
    text : str
        With line ends of one kind.
    code : str
        The same without comments; lines and columns stay.
    """

    text: str
    hash_comments: bool = False
    code: str = field(init=False)

    def __post_init__(self) -> None:
        self.text = self.text.replace("\r\n", "\n").replace("\r", "\n")
        self.code = _without_comments(self.text, hash_comments=self.hash_comments)

    @cached_property
    def tokens(self) -> list[Token]:
        """All words, blanks left out."""
        found = []
        for match in _TOKEN.finditer(self.code):
            if match.lastgroup != "blank":
                found.append(Token(str(match.lastgroup), match[0], match.start()))
        return found

    @cached_property
    def _ends(self) -> list[int]:
        return [match.start() for match in re.finditer("\n", self.code)]

    def line(self, place: int) -> int:
        """Number of the line of a place, from 1."""
        return bisect.bisect_left(self._ends, place) + 1

    @cached_property
    def partners(self) -> dict[int, int]:
        """For each opening bracket the token that closes it or what it stands in; the end where none does."""
        opened: list[int] = []
        found: dict[int, int] = {}
        waiting = {"(": 0, "[": 0, "{": 0}
        for number, token in enumerate(self.tokens):
            if token.kind != "sign":
                continue
            if token.word in "([{":
                opened.append(number)
                waiting[token.word] += 1
            elif token.word in ")]}":
                wanted = {")": "(", "]": "[", "}": "{"}[token.word]
                if not waiting[wanted]:
                    continue
                word = ""
                while word != wanted:  # one that is closed by nothing ends with what it stands in
                    found[opened[-1]] = number
                    word = self.tokens[opened.pop()].word
                    waiting[word] -= 1
        return found | dict.fromkeys(opened, len(self.tokens))

    def _word(self, number: int) -> str:
        return self.tokens[number].word if 0 <= number < len(self.tokens) else ""

    @cached_property
    def calls(self) -> list[Call]:
        """All calls, in the order of the text; definitions of functions are none."""
        found: list[Call] = []
        around: list[int] = []
        for number, token in enumerate(self.tokens):
            if token.kind != "name" or token.word in _KEYWORDS or self._word(number + 1) != "(":
                continue
            if self._word(number - 1) in ("function", "def"):
                continue
            last = self.partners[number + 1]
            while around and around[-1] < number:
                around.pop()
            around.append(last)
            arguments = tuple(self._split(number + 2, last)) if len(around) <= _DEEPEST else ()
            found.append(Call(token.word, arguments, token.start, self.line(token.start), number, last))
        return found

    def _split(self, first: int, last: int) -> Iterator[tuple[Token, ...]]:
        depth, start = 0, first
        for number in range(first, last):
            word = self._word(number) if self.tokens[number].kind == "sign" else ""
            depth += (word in ("(", "[", "{")) - (word in (")", "]", "}"))
            if word == "," and depth == 0:
                yield tuple(self.tokens[start:number])
                start = number + 1
        if last > first:
            yield tuple(self.tokens[start:last])

    @cached_property
    def functions(self) -> dict[str, Function]:
        """The macro's own functions by their names."""
        found = {}
        for number, token in enumerate(self.tokens):
            if token.word not in ("function", "def") or self._word(number + 2) != "(":
                continue
            closing = self.partners[number + 2]
            if self._word(closing + 1) != "{":
                continue
            names = tuple(one.word for one in self.tokens[number + 3 : closing] if one.kind == "name")
            found[self._word(number + 1)] = Function(names, closing + 1, self.partners[closing + 1])
        return found

    def _statement(self, first: int) -> int:
        """Last token of the statement or block that begins at a token."""
        number = first
        while number < len(self.tokens):
            word = self._word(number) if self.tokens[number].kind != "text" else ""
            if word == "{" and number == first:
                return self.partners[first]
            if word in ("for", "while", "if") and self._word(number + 1) == "(":
                number = first = self.partners[number + 1] + 1
                continue
            if word == ";":
                return number
            number = self.partners[number] + 1 if number in self.partners else number + 1
        return len(self.tokens)

    @cached_property
    def loops(self) -> list[tuple[int, int]]:
        """Ranges of tokens that are run again and again."""
        found = []
        for number, token in enumerate(self.tokens):
            if token.kind == "name" and token.word in ("for", "while") and self._word(number + 1) == "(":
                body = self.partners[number + 1] + 1
                found.append((body, self._statement(body)))
            elif token.word == "do" and self._word(number + 1) == "{":
                found.append((number + 1, self.partners[number + 1]))
        return found

    def conditions(self, number: int) -> Iterator[str]:
        """Text of the conditions under which a token is reached."""
        for at, token in enumerate(self.tokens[:number]):
            if token.kind == "name" and token.word == "if" and self._word(at + 1) == "(":
                closing = self.partners[at + 1]
                if closing < number <= self._statement(closing + 1):
                    yield self.code[token.start : self.tokens[closing].start]

    @cached_property
    def happenings(self) -> list[Happening]:
        """All calls in the order in which they happen; a function that nobody calls stands at the end."""
        found: list[Happening] = []
        followed: set[str] = set()
        inside = [(one.first, one.last) for one in self.functions.values()]

        followings = 0

        def follow(first: int, last: int, active: tuple[str, ...], repeated: bool) -> None:
            nonlocal followings
            followings += 1
            for call in self.calls:
                # Functions that call each other twice and more would be followed without an end.
                if not first <= call.first <= last or followings > _MOST_FOLLOWED:
                    continue
                if any(a <= call.first <= b and not (a <= first <= b) for a, b in inside):
                    continue
                again = repeated or any(a <= call.first <= b for a, b in self.loops if a >= first)
                if call.name in self.functions and call.name not in active:
                    followed.add(call.name)
                    body = self.functions[call.name]
                    follow(body.first, body.last, (*active, call.name), again)
                else:
                    found.append(Happening(call, again))

        follow(0, len(self.tokens), (), False)
        for name, body in self.functions.items():
            if name not in followed:
                follow(body.first, body.last, (name,), False)
        return found

    @cached_property
    def _expression_ends(self) -> list[int]:
        """For each token where the expression ends that begins there; found from behind, for each is part of another."""
        count = len(self.tokens)
        ends = [count] * (count + 3)
        for number in range(count - 1, -1, -1):
            behind = self.partners[number] + 1 if number in self.partners else number + 1
            ends[number] = number if self._word(number) in (";", "}") else ends[behind]
        return ends

    @cached_property
    def assigned(self) -> dict[str, list[tuple[Token, ...]]]:
        """What is put into each variable; an empty expression for what is changed in another way."""
        found: dict[str, list[tuple[Token, ...]]] = {}
        for number, token in enumerate(self.tokens):
            if token.kind != "name" or token.word in _KEYWORDS:
                continue
            sign = self._word(number + 1)
            if sign == "=":
                first, end = number + 2, self._expression_ends[number + 2]
                short = end - first <= _LONGEST_EXPRESSION
                found.setdefault(token.word, []).append(tuple(self.tokens[first:end]) if short else ())
            elif sign in ("+=", "-=", "*=", "/=", "++", "--"):
                found.setdefault(token.word, []).append(())
        for function in self.functions.values():
            for name in function.parameters:
                found.setdefault(name, []).append(())
        for call in self.calls:
            # getDimensions(width, ...) and the like fill the variables that they are given.
            if re.match(r"get[A-Z]|Stack\.get", call.name):
                for argument in call.arguments:
                    if len(argument) == 1 and argument[0].kind == "name":
                        found.setdefault(argument[0].word, []).append(())
        return found

    def once(self, name: str) -> tuple[Token, ...]:
        """The one expression that a variable ever holds; empty where there are several or it is unknown."""
        expressions = self.assigned.get(name, [])
        return expressions[0] if len(expressions) == 1 else ()

    def value(self, expression: tuple[Token, ...], depth: int = 5) -> str:
        """The text of an expression: what is computed when the macro runs is a HOLE."""
        return "".join(
            self.piece(piece, depth) if piece else HOLE for piece in _at_top_level(expression, "+")
        )

    def piece(self, piece: tuple[Token, ...], depth: int = 5) -> str:
        """The text of an expression without a + in it."""
        if len(piece) == 1:
            token = piece[0]
            if token.kind == "text":
                return unquoted(token.word)
            if token.kind == "number" or token.word in ("true", "false"):
                return token.word
            inner = self.once(token.word) if depth else ()
            return self.value(inner, depth - 1) if inner else HOLE
        if len(piece) > 2 and piece[0].word == "(" and piece[-1].word == ")":
            return self.value(piece[1:-1], depth - 1) if depth else HOLE
        return HOLE

    def leads_to(self, expression: tuple[Token, ...], name: str, depth: int = 5) -> bool:
        """Whether an expression is a call of a function, through variables that are set once."""
        if len(expression) == 1 and expression[0].kind == "name" and depth:
            inner = self.once(expression[0].word)
            return bool(inner) and self.leads_to(inner, name, depth - 1)
        return bool(expression) and expression[0].word == name


def unquoted(word: str) -> str:
    """A text without its quotes and escapes."""
    inner = word[1:-1] if len(word) > 1 and word[-1] == word[0] else word[1:]
    return re.sub(r"\\(.)", lambda match: {"n": "\n", "t": "\t"}.get(match[1], match[1]), inner)


def _at_top_level(expression: tuple[Token, ...], sign: str) -> list[tuple[Token, ...]]:
    pieces: list[tuple[Token, ...]] = []
    depth, start = 0, 0
    for number, token in enumerate(expression):
        word = token.word if token.kind == "sign" else ""
        depth += (word in ("(", "[", "{")) - (word in (")", "]", "}"))
        if word == sign and depth == 0:
            pieces.append(expression[start:number])
            start = number + 1
    return [*pieces, expression[start:]] if expression else []


def pieces_of(expression: tuple[Token, ...]) -> list[tuple[Token, ...]]:
    """The parts that an expression joins by +."""
    return _at_top_level(expression, "+")


def _without_comments(text: str, *, hash_comments: bool) -> str:
    """The text with comments blanked and lines kept."""
    comment = r"#[^\n]*" if hash_comments else r"//[^\n]*|/\*.*?(?:\*/|\Z)"
    begin = re.compile(rf"[\"']|{comment}", re.DOTALL)
    pieces, place = [], 0
    # Where a text that began before has no end, none that begins within it has one: not looked for again.
    endless = {'"': 0, "'": 0}
    while match := begin.search(text, place):
        pieces.append(text[place : match.start()])
        place = match.end()
        if match[0] not in endless:
            pieces.append(re.sub(r"[^\n]", " ", match[0]))
            continue
        pieces.append(match[0])
        # An apostrophe in code without its partner on the line is no text.
        if match.start() >= endless[match[0]]:
            inside = _INSIDE[match[0]].match(text, place)
            end = inside.end() if inside else place
            if text[end : end + 1] == match[0]:
                pieces.append(text[place : end + 1])
                place = end + 1
            else:
                endless[match[0]] = end
    return "".join([*pieces, text[place:]])
