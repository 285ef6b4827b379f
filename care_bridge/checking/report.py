"""One result object for every check; text, JSON and HTML are renderings of it."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from care_bridge.errors import NotInstalledError
from care_bridge.files import write_text

Result = Literal["passed", "failed", "warning", "not run"]


@dataclass(frozen=True)
class Rule:
    """One rule and how it went.

    Attributes
    ----------
    rule : str
        What is asked for.
    result : {"passed", "failed", "warning", "not run"}
        `warning`: it works, but somebody will stumble.
    run : str
        What was really run or looked at, and what it gave.
    remedy : str
        What would mend it; empty where nothing is to be mended.
    decisive : bool
        Whether the verdict hangs on it: failed or not run means not accepted.
    """

    rule: str
    result: Result
    run: str = ""
    remedy: str = ""
    decisive: bool = True


@dataclass(frozen=True)
class CheckReport:
    """What was found out about a bundle or package.

    Attributes
    ----------
    path : Path
    kind : {"bundle", "package"}
    rules : tuple of Rule
    facts : mapping
        Measured values: runtimes, differences, sizes, completeness.
    """

    path: Path
    kind: str
    rules: tuple[Rule, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Whether nothing decisive failed or was left out."""
        return all(rule.result in ("passed", "warning") for rule in self.rules if rule.decisive)

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        name = self.path.name or self.path.resolve().name
        if self.accepted:
            return f"{name}: accepted"
        failed = [rule for rule in self.rules if rule.decisive and rule.result == "failed"]
        if failed:
            return f"{name}: not accepted: {failed[0].rule.rstrip('.')}: {failed[0].run}"
        left = next(rule for rule in self.rules if rule.decisive and rule.result == "not run")
        return f"{name}: not judged: {left.rule.rstrip('.')}: {left.run}"

    def __str__(self) -> str:
        lines = []
        for rule in self.rules:
            lines.append(f"{rule.result:>8}  {rule.rule}")
            for text, label in ((rule.run, ""), (rule.remedy, "-> ")):
                if not text:
                    continue
                lines += textwrap.wrap(label + text, 100, initial_indent=" " * 10, subsequent_indent=" " * 10)
        facts = [f"          {key}: {value}" for key, value in self.facts.items()]
        return "\n".join([*lines, *facts, self.verdict])

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "path": str(self.path),
            "kind": self.kind,
            "accepted": self.accepted,
            "verdict": self.verdict,
            "rules": [
                {"rule": rule.rule, "result": rule.result, "run": rule.run, "remedy": rule.remedy}
                | {"decisive": rule.decisive}
                for rule in self.rules
            ],
            "facts": dict(self.facts),
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the report; the suffix decides: .html, .json, or text."""
        path = Path(path)
        if path.suffix == ".json":
            write_text(path, json.dumps(self.to_json(), indent=1, default=str) + "\n")
        elif path.suffix in (".html", ".htm"):
            self._page().save(path)
        else:
            write_text(path, f"{self}\n")
        return path

    def _page(self) -> Any:
        from care_bridge.page import Mark, Page

        page = Page(f"Check of {self.path.name}", verdict=self.verdict, good=self.accepted)
        page.section("Rules", "What each reader asks for, what was really run, and what would mend it.")
        page.table(
            [
                {
                    "result": rule.result
                    if rule.result in ("warning", "not run")
                    else Mark(rule.result, rule.result == "passed"),
                    "rule": rule.rule,
                    "what was run": rule.run,
                    "remedy": rule.remedy,
                }
                for rule in self.rules
            ],
            name="rules",
        )
        if self.facts:
            page.section("Measured")
            page.settings({key: str(value) for key, value in self.facts.items()})
        page.attach("check.json", json.dumps(self.to_json(), indent=1, default=str))
        return page


def brief(error: BaseException | str, most: int = 300) -> str:
    """A message in one line of so many letters."""
    text = " ".join(str(error).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


class Findings:
    """Rules as they are found, in order."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.facts: dict[str, Any] = {}
        self._unpacked: dict[str, str] = {}

    def unpacked(self, path: Path, folder: Path) -> None:
        """Name a person's file wherever a rule would name the folder for temporary files that it is unpacked into."""
        for place in (folder, folder.resolve()):
            self._unpacked[str(place)] = str(path)

    def add(
        self, rule: str, good: bool | None, run: str = "", remedy: str = "", *, decisive: bool = True
    ) -> bool:
        """Note a rule: True passed, False failed (a warning where it is not decisive), None not run."""
        result: Result = (
            "passed" if good else "not run" if good is None else "failed" if decisive else "warning"
        )
        self.rules.append(Rule(rule, result, run, "" if good else remedy, decisive))
        return bool(good)

    @contextmanager
    def stage(self, rule: str, remedy: str = "", *, decisive: bool = True) -> Iterator[None]:
        """Note a rule as failed where what is done meanwhile stumbles over the file: a row, never a traceback.

        Parameters
        ----------
        rule, remedy, decisive
            As for `add`.
        """
        try:
            yield
        except NotInstalledError as error:
            self.add(rule, None, "it is not here", str(error), decisive=decisive)
        except Exception as error:
            # People bring files that are damaged in ways nobody thought of; the other rules are judged all the same.
            self.add(
                rule,
                False,
                f"{type(error).__name__}: {brief(self._named(str(error)))}",
                remedy,
                decisive=decisive,
            )

    def report(self, path: Path, kind: str) -> CheckReport:
        """The finished report."""
        rules = [
            replace(rule, run=self._named(rule.run), remedy=self._named(rule.remedy)) for rule in self.rules
        ]
        facts = {
            key: self._named(value) if isinstance(value, str) else value for key, value in self.facts.items()
        }
        return CheckReport(path, kind, tuple(rules), facts)

    def _named(self, text: str) -> str:
        # The last first: a folder may lie within an earlier one.
        for folder, file in reversed(self._unpacked.items()):
            text = text.replace(folder, file)
        return text
