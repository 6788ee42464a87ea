"""What a run prints at its end."""

import pytest

from benchmarks.ending import print_changes, print_table, shows_all
from tests.support.made_up import default_run


class Lines:
    """A terminal reporter that keeps what it is given."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def section(self, title: str, **_: str) -> None:
        self.lines.append(title)

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.parametrize(("workload", "said"), [("digits-quick", True), ("digits", False)])
def test_a_quick_look_says_what_it_leaves_out(
    pytestconfig: pytest.Config, workload: str, said: bool
) -> None:
    reporter = Lines()
    facts = [fact | {"workload": workload, "data": "digits"} for fact in default_run()]
    print_table(reporter, facts, pytestconfig)
    assert reporter.lines[0] == f"compression: {workload} (digits)"
    assert reporter.lines[-1].startswith("a quick look: 8 of ") == said


def test_a_run_of_other_metrics_has_no_table(pytestconfig: pytest.Config) -> None:
    reporter = Lines()
    print_table(reporter, [fact | {"metric": "layers"} for fact in default_run()], pytestconfig)
    assert pytestconfig.get_verbosity() > 0 or reporter.lines == []


def test_what_the_table_does_not_show_keeps_pytest_benchmark_s_own() -> None:
    shown = [{"extra_info": fact} for fact in default_run()]
    assert shows_all(shown)
    for metric in ("training", "layers", "storage-speed", None):
        assert not shows_all([*shown, {"extra_info": {"metric": metric}}]), metric
    assert not shows_all([{"extra_info": {}}])


class Compared:
    """The configuration of a run that is compared with saved entries."""

    def __init__(self, *entries: object) -> None:
        self._benchmarksession = self
        self.compared_mapping = {"saved.json": dict(enumerate(entries))}


def changes_since(*entries: object) -> list[str]:
    reporter = Lines()
    print_changes(reporter, default_run(), Compared(*entries))  # type: ignore[arg-type]
    return reporter.lines


def test_only_entries_of_this_suite_that_are_undamaged_are_compared() -> None:
    size = next(fact for fact in default_run() if fact["metric"] == "size")
    named = {name: value for name, value in size.items() if name != "technique"}
    others = [{}, {"extra_info": None}, {"extra_info": {"metric": "size", "stored_bytes": 1}}]
    others += [{"extra_info": named}, {"extra_info": size | {"stored_bytes": -1}}]
    others += [{"extra_info": size | {"device": []}}]
    assert changes_since(*others) == [
        "then and now: saved.json",
        "nothing is compared: it has no entry of this suite",
    ]
    lines = changes_since(*others, {"extra_info": size | {"left_out": 3.5}})
    assert lines[-2].split() == [
        "baseline",
        *["44,795,167"] * 2,
        "-",
        "94.24",
        "-",
        "1.00",
        "-",
        "1.00",
    ]
    assert lines[-1].startswith("not in the saved run (18): ")


def test_other_data_are_compared_with_nothing() -> None:
    size = next(fact for fact in default_run() if fact["metric"] == "size")
    (*_, last) = changes_since({"extra_info": size | {"data": "CIFAR-10, JPEG copy"}})
    assert last == "nothing is compared: it is of cifar10 (CIFAR-10, JPEG copy)"
