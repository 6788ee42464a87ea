"""The page: well-formed, alone, escaped, complete without its script, and small."""

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report.page.html import VOID
from benchmarks.report.page.page import page
from benchmarks.report.page.runs import read_runs
from tests.support.made_up import (
    channels_sweep,
    default_run,
    distillation_sweep,
    pruning_sweep,
    size_sweep,
)
from tests.support.places import ROOT
from tests.support.saved import save

REFERENCES = sorted((ROOT / "benchmarks/references").glob("*.json"))
MOST_BYTES = 2 * 2**20
NO_END = VOID | {"meta"}


class Reader(HTMLParser):
    """Reads a page: elements in order, ids, texts; fails where an end has no start."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == [], "elements without an end"

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag} has an attribute twice: {names}"
        self.elements.append((tag, dict(attrs)))
        if tag not in NO_END:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [about for name, about in self.elements if name == tag]


def everything() -> list[dict[str, Any]]:
    sweeps = (pruning_sweep, distillation_sweep, size_sweep, channels_sweep)
    facts = [*default_run(), *default_run("cuda"), *(fact for sweep in sweeps for fact in sweep())]
    contents = {"values": 4000, "index": 30, "codebook": 0, "metadata": 9}
    return [f | {"contents": contents} if f["metric"] == "size" else f for f in facts]


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = save(tmp_path_factory.mktemp("saved") / "run.json", everything())
    return page(read_runs([path]))


@pytest.fixture(scope="module")
def references() -> str:
    return page(read_runs(REFERENCES))


@pytest.mark.parametrize("which", ["made_up", "references"])
def test_the_page_is_well_formed_and_refers_to_nothing_outside(
    which: str, request: pytest.FixtureRequest
) -> None:
    text = request.getfixturevalue(which)
    read = Reader(text)
    ids = Counter(about["id"] for _, about in read.elements if "id" in about)
    assert max(ids.values()) == 1, ids.most_common(3)
    for name, about in read.elements:
        assert not {"src", "srcset", "action", "data", "poster"} & set(about), name
        assert (about.get("href") or "#").startswith("#"), about
        assert not any(key.startswith("on") for key in about), f"{name} has code in an attribute"
    assert "://" not in text
    assert "@import" not in text
    assert "url(" not in text
    for link in read.of("a"):
        assert (link["href"] or "").removeprefix("#") in ids


def test_every_technique_of_a_reference_stands_in_a_table_of_the_page(references: str) -> None:
    names = {text.strip() for element, text in Reader(references).texts if element == "th"}
    for path in REFERENCES:
        for entry in json.loads(path.read_text())["benchmarks"]:
            fact = entry["extra_info"]
            if fact["metric"] in ("size", "accuracy", "latency") and not fact.get("sweep"):
                assert fact["technique"] in names, path.name


def test_the_sections_are_those_that_the_facts_allow(made_up: str) -> None:
    headings = [text for element, text in Reader(made_up).texts if element == "h3"]
    assert headings == [
        *("What a file consists of", "What compression costs", "Sweeps", "Machine and data"),
        *("What a file consists of", "What compression costs", "Memory and energy"),
        "Machine and data",
    ]
    drawn = [text for element, text in Reader(made_up).texts if element == "figcaption"]
    assert [title.partition(" (")[0] for title in drawn] == [
        *("Pruning and accuracy", "Distillation", "File size and accuracy"),
        "Channels removed and accuracy",
    ]


def test_numbers_stand_in_the_tables_with_their_intervals(made_up: str) -> None:
    line = re.search(r'<tr data-row="s0-\d+"[^>]*><th[^>]*>student</th>.*?</tr>', made_up)
    assert line
    cells = re.findall(r"<td[^>]*>(.*?)</td>", line[0])
    assert cells[1:5] == ["5.19", "12.1", "84.74 (84.02–85.43)", "+9.50"]
    assert re.match(r"6\.12 \(.*-.*\)", cells[6])


def test_each_point_of_a_drawing_has_its_line_in_the_table(made_up: str) -> None:
    read = Reader(made_up)
    points = {about["data-row"] for about in read.of("g")}
    lines = {about.get("data-row") for about in read.of("tr")}
    assert len(points) > 20
    assert points <= lines


HOSTILE = "<script>alert(1)</script>\"'&</style><!--"


def test_whatever_a_run_says_is_text(tmp_path: Path) -> None:
    facts = [
        fact | {"technique": fact["technique"] + HOSTILE, "data": HOSTILE, "workload": HOSTILE}
        for fact in everything()
    ]
    suite = {"device_name": HOSTILE, "torch": HOSTILE, "dataset_fingerprint": HOSTILE}
    path = save(tmp_path / "run.json", facts, suite=suite, commit=HOSTILE)
    text = page(read_runs([path]))
    read = Reader(text)
    assert len(read.of("script")) == 1
    assert text.count("alert(1)") == text.count("alert(1)&lt;/script&gt;") > 20
    assert "<!--" not in text


def test_a_run_of_two_devices_and_a_newer_one_of_the_same_machine(tmp_path: Path) -> None:
    older = save(tmp_path / "a.json", default_run(), day=1, commit="aaaaaaaaa")
    changed = [
        f | {"stored_bytes": 123 * 2**20} if f["technique"] == "student" else f
        for f in default_run()
    ]
    newer = save(tmp_path / "b.json", changed, day=2, commit="bbbbbbbbb")
    other = save(tmp_path / "c.json", default_run(), day=3, suite={"device_name": "another"})
    text = page(read_runs([newer, other, older]))
    read = Reader(text)
    assert [about["id"] for about in read.of("article")] == ["s0", "s1"]
    first, second = text.split("<article")[1:]
    assert re.search(r">student</th><td.*?</td><td[^>]*>123<", first)
    assert re.search(r">student</th><td.*?</td><td[^>]*>5\.19<", second)
    assert [name for name in ("a.json", "b.json", "c.json") if name in first] == [
        "a.json",
        "b.json",
    ]
