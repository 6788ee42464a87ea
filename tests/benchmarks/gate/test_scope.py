"""A run that was asked to leave tests out is narrowed, by whichever option; nothing else is."""

from collections.abc import Callable

import pytest

from tests.support.gated import BENCHMARKS, Suite, make_suite, verdict

ONE = "1 of 4 compared, 0 regressions, 0 not usable"


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return make_suite(pytester, monkeypatch)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-k", "size"],
        ["-ksize"],
        ["-vk", "size"],
        ["-xk", "size"],
        ["-xvksize"],
        ["@arguments"],
        ["@of_a_file"],
        ["-o", "addopts=-k size"],
        ["--deselect=test_bench.py::test_it[cost]", "-k=size"],
        ["test_bench.py::test_it[size]"],
    ],
    ids=" ".join,
)
def test_a_narrowed_run_is_seen(suite: Suite, arguments: list[str]) -> None:
    (suite.pytester.path / "arguments").write_text("-k\nsize\n")
    (suite.pytester.path / "of_a_file").write_text("-v\n@arguments\n")
    verdict(suite.gate(*arguments), 0, ONE)


@pytest.mark.parametrize("given", ["-vk size", "@arguments"])
def test_the_environment_narrows_too(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    (suite.pytester.path / "arguments").write_text("-k\nsize\n")
    monkeypatch.setenv("PYTEST_ADDOPTS", given)
    verdict(suite.gate(), 0, ONE)


def deselected(suite: Suite) -> list[str]:
    return ["--deselect=test_bench.py::test_it[cost]"]


def ignored(suite: Suite) -> list[str]:
    return ["--ignore=test_other.py"]


def ignored_by_pattern(suite: Suite) -> list[str]:
    return ["--ignore-glob=*other*"]


def last_failed(suite: Suite) -> list[str]:
    suite.write({"size": {"broken": True}})
    suite.pytester.runpytest_inprocess("-k", "size")
    suite.write()
    return ["--lf", "-p", "cacheprovider"]


@pytest.mark.parametrize("way", [deselected, ignored, ignored_by_pattern, last_failed])
def test_what_is_not_collected_is_not_gone(suite: Suite, way: Callable[[Suite], list[str]]) -> None:
    suite.pytester.makepyfile(test_other=BENCHMARKS)
    suite.run("--benchmark-json=history.json").assert_outcomes(passed=8)
    compared = {deselected: 7, last_failed: 2}.get(way, 4)
    verdict(suite.gate(*way(suite)), 0, f"{compared} of 8 compared, 0 regressions, 0 not usable")


def test_a_file_that_is_ignored_and_removed_is_gone(suite: Suite) -> None:
    suite.pytester.makepyfile(test_other=BENCHMARKS)
    suite.run("--benchmark-json=history.json").assert_outcomes(passed=8)
    (suite.pytester.path / "test_other.py").unlink()
    said = "4 benchmarks (test_other.py::test_it[size], test_other.py::test_it[accuracy], "
    verdict(suite.gate("--ignore=test_other.py"), 1, said, "gone from this run")


def test_what_a_node_id_covers_may_not_be_gone(suite: Suite) -> None:
    suite.write(drop="accuracy")
    found = suite.gate("test_bench.py::test_it")
    verdict(found, 1, "test_it[accuracy]: in the history, gone from this run")
    verdict(suite.gate("test_bench.py::test_it[cost]"), 0, ONE)


def test_a_module_s_name_is_its_file(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = suite.pytester.mkpydir("made_up_rows")
    (suite.pytester.path / "test_bench.py").rename(folder / "test_named.py")
    suite.pytester.syspathinsert()
    suite.run("--benchmark-json=history.json").assert_outcomes(passed=4)
    suite.write(drop="accuracy")
    found = suite.gate("--pyargs", "made_up_rows.test_named")
    verdict(found, 1, "test_it[accuracy]: in the history, gone from this run")


@pytest.mark.parametrize("arguments", [["-v"], ["-x"], ["-k", ""], ["--maxfail=3"]], ids=" ".join)
def test_what_narrows_nothing_is_a_full_run(suite: Suite, arguments: list[str]) -> None:
    suite.pytester.makeini('[pytest]\naddopts = -k "not size"')
    if "-k" in arguments:
        suite.write(drop="size")
        verdict(suite.gate(*arguments), 1, "test_it[size]: in the history, gone from this run")
    else:
        verdict(suite.gate(*arguments), 1, "test_it[size]: in the history, left out of a full run")


def test_an_argument_file_may_hold_the_second_rule(suite: Suite) -> None:
    (suite.pytester.path / "arguments").write_text("--benchmark-compare-fail=min:5%\n")
    verdict(suite.gate("@arguments"), 4, "more than once")
