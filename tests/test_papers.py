"""docs/papers.md: every claim stands on it once, it is what the stored rows render to, and no figure is invented."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
CLAIMS_OF = {"000": 17, "001": 10, "002": 7, "003": 9, "004": 5}
"""Numbered systems and claims of each paper: 48."""


@pytest.fixture(scope="module")
def papers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("papers", ROOT / "benchmarks" / "papers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["papers"] = module  # data classes look their module up
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def test_every_claim_of_the_papers_stands_there_once_and_in_order(papers: ModuleType) -> None:
    expected = [f"{paper}-{n}" for paper, last in CLAIMS_OF.items() for n in range(1, last + 1)]
    assert len(expected) == 48
    assert list(papers.claims()) == expected
    assert list(papers.stored()) == expected


def test_the_page_is_what_the_stored_rows_render_to(papers: ModuleType) -> None:
    assert (ROOT / "docs" / "papers.md").read_text(encoding="utf-8") == papers.page(
        list(papers.stored().values())
    )


def test_the_stored_rows_have_the_words_of_the_claims(papers: ModuleType) -> None:
    for number, row in papers.stored().items():
        one = papers.claims()[number]
        assert (row.claim, row.shown_by, row.paper) == (one.claim, one.shown_by, one.paper), number
        if papers.run_of(one) is None:
            assert row == papers.as_stated(one), number


def test_a_figure_comes_from_a_run_or_from_words_that_stand_in_a_document(papers: ModuleType) -> None:
    claims = papers.claims()
    for number, row in papers.stored().items():
        assert row.holds in papers.HOLDS, number
        if row.document:
            text = (ROOT / "docs" / row.document).read_text(encoding="utf-8")
            assert claims[number].words, number
            assert claims[number].words in text, f"{number}: {row.document} no longer says it"
        elif row.here:
            assert papers.run_of(claims[number]) is not None, number
            assert row.seconds > 0, number
        else:
            assert row.holds in ("not yet", "not run"), number


def test_every_row_that_is_run_is_a_claim(papers: ModuleType) -> None:
    assert set(papers.RUNS) <= set(papers.claims())
    for number, one in papers.claims().items():
        assert not (one.tests and number in papers.RUNS), number
        for word in one.tests:
            assert not word.endswith(".py") or (ROOT / word).is_file(), f"{number}: {word}"


def test_a_finished_row_is_read_and_not_run_again(
    papers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def run(_: object) -> object:
        calls.append(1)
        return papers.Found("3 of 3", "holds", "tiny")

    monkeypatch.setitem(papers.RUNS, "000-4", run)
    work = papers.Work(tmp_path, tmp_path / "work", 1)
    one = papers.claims()["000-4"]
    first, second = (papers.measured(one, work, again=False) for _ in range(2))
    assert (first.here, first.holds, first) == ("3 of 3", "holds", second)
    assert len(calls) == 1
    papers.measured(one, work, again=True)
    assert len(calls) == 2


def test_a_run_is_taken_up_by_the_page_and_others_keep_what_is_stored(
    papers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [papers.as_stated(one) for one in papers.claims().values()]
    kept = papers.replace(rows[2], here="0.9", holds="partly", seconds=3.0)
    monkeypatch.setattr(papers, "STORE", tmp_path / "papers.json")
    papers.STORE.write_text(papers.as_json([papers.asdict(row) for row in [*rows[:2], kept, *rows[3:]]]))
    found = tmp_path / "out" / "rows" / "000-4.json"
    found.parent.mkdir(parents=True)
    found.write_text(json.dumps({"here": "3 of 3", "holds": "holds", "settings": "", "seconds": 2.0}))
    papers.write_page(tmp_path / "out", tmp_path / "papers.md")
    text = (tmp_path / "papers.md").read_text(encoding="utf-8")
    assert "| 000-3 | " + kept.claim in text
    assert "| 0.9 | **partly** |" in text
    assert "| 3 of 3 | **holds** |" in text
    assert papers.stored()["000-3"] == kept


def test_an_unknown_row_is_refused_with_those_that_are_there(papers: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"there is no 000-99; there are 000-1 to 004-5"):
        papers.wanted("000-1,000-99")
    assert papers.wanted("003-1, 000-2") == ["000-2", "003-1"]


def test_the_tables_of_the_replication_are_copied_right(shared: Path) -> None:
    spec = importlib.util.spec_from_file_location("paper_003", ROOT / "benchmarks" / "paper_003.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (paper,) = (shared / "papers").glob("003_*.txt")
    rows = [
        line.split()
        for line in paper.read_text(encoding="utf-8").splitlines()
        if line[:3] in ("C1\t", "C2\t", "C3\t")
    ]
    # Its C1 is the brightest of planaria (table 1) and the darkest of tribolium (table 2).
    names = [("planaria", f"C{n}") for n in (1, 2, 3)] + [("tribolium", f"C{n}") for n in (3, 2, 1)]
    for name, row in zip(names, rows, strict=True):
        errors, similarities = module.PUBLISHED[name]
        assert [float(value) for value in row[1:]] == [*errors, *similarities]
