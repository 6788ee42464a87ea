"""The READMEs' tables are those of the JSON beside them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report.documents import END, ROOT, differences, main, readmes, rewrite
from benchmarks.report.reference import read_reference
from benchmarks.report.rows import rows
from benchmarks.report.table import render
from benchmarks.report.tables import run_table
from compression.errors import CompressionError
from tests.support.places import REFERENCES

MARKER = "<!-- table: digits-cpu.json quality rows=baseline,static-int8 -->\n"


def test_every_table_is_that_of_its_json() -> None:
    assert list(differences(ROOT)) == [], "run python -m benchmarks.report.documents"


def test_every_json_is_shown_with_its_caption() -> None:
    text = "".join(path.read_text() for path in readmes(ROOT))
    for path in REFERENCES.glob("*.json"):
        assert f"<!-- table: {path.name} " in text, path.name
        assert f"[{path.name}](" in text, path.name


def test_a_gpus_run_names_its_card_and_shows_what_a_training_reached() -> None:
    reference = read_reference(REFERENCES / "training-cifar10-cuda-nvidia-h100.json")
    assert ", NVIDIA H100 80GB HBM3, " in reference.caption(reference.facts)
    assert "94.15" in run_table(reference.facts, ["quality"])
    rows_of_a_gpu = read_reference(REFERENCES / "cifar10-cuda-nvidia-h100.json").facts
    assert "(cuda graph, by batch)" in run_table(rows_of_a_gpu, ["graph"])
    assert "mJ/image" in run_table(rows_of_a_gpu, ["card"])


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository of one README with one table, of digits."""
    (tmp_path / "benchmarks/references").mkdir(parents=True)
    shutil.copy(REFERENCES / "digits-cpu.json", tmp_path / "benchmarks/references")
    (tmp_path / "README.md").write_text(f"Before.\n\n{MARKER}{END}\n\nAfter.\n")
    assert main([], tmp_path) == 0
    return tmp_path


def change_size(repository: Path, **facts: Any) -> None:
    """Change facts of the baseline's size."""
    path = repository / "benchmarks/references/digits-cpu.json"
    saved = json.loads(path.read_text())
    entry = next(e for e in saved["benchmarks"] if e["extra_info"]["metric"] == "size")
    entry["extra_info"] |= facts
    path.write_text(json.dumps(saved))


def digits() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((REFERENCES / "digits-cpu.json").read_text())
    return found


def test_a_table_is_written_between_its_markers_once(repository: Path) -> None:
    text = (repository / "README.md").read_text()
    assert text.startswith(f"Before.\n\n{MARKER}\n```\ntechnique ")
    assert text.endswith(f"\n\n{END}\n\nAfter.\n")
    accuracy = next(
        entry["extra_info"]["accuracy"]
        for entry in digits()["benchmarks"]
        if entry["name"] == "test_accuracy[cpu-static-int8]"
    )
    assert f"static-int8  10.71    25.1  {100 * accuracy:.2f}" in text
    assert "int4-weights" not in text
    assert main([], repository) == 0
    assert (repository / "README.md").read_text() == text


def test_the_caption_is_of_the_json(repository: Path) -> None:
    caption = " ".join((repository / "README.md").read_text().split())
    assert (
        "[digits-cpu.json](benchmarks/references/digits-cpu.json): scikit-learn digits" in caption
    )
    date = digits()["datetime"][:10]
    assert f"2 cores, 2 threads, torch 2.14.1+cu130, Python 3.11.7, {date}" in caption


def test_a_run_s_table_is_what_the_run_prints() -> None:
    facts = read_reference(REFERENCES / "digits-cpu.json").facts
    shown = run_table(facts, ["quality", "files", "speed", "notes"])
    assert shown == f"```\n{render(rows(facts))}\n```"


def test_a_changed_number_fails_the_check(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--check"], repository) == 0
    change_size(repository, stored_bytes=50 * 2**20)
    assert main(["--check"], repository) == 1
    assert capsys.readouterr().out == "README.md: differs from its JSON\n"
    assert "42.71" in (repository / "README.md").read_text(), "a check writes nothing"
    assert main([], repository) == 0
    assert "50.00" in (repository / "README.md").read_text()


def test_a_number_typed_by_hand_fails_the_check(repository: Path) -> None:
    readme = repository / "README.md"
    readme.write_text(readme.read_text().replace("10.71", "9.71"))
    assert main(["--check"], repository) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            MARKER.replace("digits-cpu", "gone") + END,
            "gone.json: expected a saved run, No such file",
        ),
        (MARKER, f"'table: digits-cpu.json quality rows=baseline,static-int8' has no {END}"),
        (MARKER + MARKER + END, f"rows=baseline,static-int8' has no {END}"),
        (END, f"the last {END} ends no table"),
        (END + "\n" + MARKER + END, "ends no table"),
        (
            MARKER.replace("quality", "qualities") + END,
            "is of no known kind: choose quality, files",
        ),
        (MARKER.replace("static-int8", "int9") + END, "no row int9"),
        (MARKER.replace("quality rows", "quality,curve rows") + END, "is of no known kind"),
        (MARKER.replace("quality rows", "curve rows") + END, "is of no known kind"),
        ("<!-- table: digits-cpu.json -->\n" + END, "must be: FILE KIND"),
        ("<!-- table: digits-cpu.json coders -->\n" + END, "has no facts of coder"),
        ("<!-- table: digits-cpu.json curve -->\n" + END, "digits-cpu.json lacks 'pruned'"),
    ],
)
def test_a_wrong_marker_is_told_in_one_sentence(
    repository: Path, capsys: pytest.CaptureFixture[str], text: str, sentence: str
) -> None:
    (repository / "README.md").write_text(text)
    with pytest.raises(SystemExit, match="2"):
        main(["--check"], repository)
    last = capsys.readouterr().err.splitlines()[-1]
    assert "error: README.md: " in last
    assert sentence in last


def test_a_json_that_is_no_saved_run_is_told(repository: Path) -> None:
    for content in ("[]", "{", '{"benchmarks": [{}]}'):
        (repository / "benchmarks/references/digits-cpu.json").write_text(content)
        with pytest.raises(CompressionError, match=r"digits-cpu\.json: no saved run"):
            rewrite(MARKER + END, repository / "README.md", repository)
