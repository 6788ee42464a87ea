"""What became worse and what better between a saved run and another, by the gate's rules."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.facts.record import Facts
from benchmarks.gate.evidence import comparison_problem, damage, shorten
from benchmarks.gate.history import History
from benchmarks.gate.rules import control_is_off, noise, rules, score_change
from benchmarks.gate.sentences import group_by_reason

MACHINE = ("device_name", "num_threads", "torch")
"""What a suite says of its machine: times of another are advisory."""
EVIDENCE = ("workload", "dataset_fingerprint", "recipe_fingerprint")
"""What a suite says of its data: nothing is compared with other data."""


@dataclass(slots=True)
class Changes:
    """Sentences on two runs, one for each benchmark or reason, and how many were compared."""

    regressions: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    better: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    compared: int = 0

    @property
    def parts(self) -> dict[str, list[str]]:
        """The sentences by what they mean, the worst first."""
        return {
            "Worse": self.regressions,
            "Not usable": self.unusable,
            "Better": self.better,
            "Advice": self.advice,
        }

    def __str__(self) -> str:
        """Return the counts in a sentence."""
        unusable = f", {len(self.unusable)} not usable" * bool(self.unusable)
        worse, better = len(self.regressions), len(self.better)
        return f"{self.compared} benchmarks compared: {worse} worse, {better} better{unusable}."


def changes(now: Mapping[str, Facts], suite: Mapping[str, Any], then: History) -> Changes:
    """Return what changed from `then` to `now`: facts by node id, and what `suite` says of them."""
    if differing := differences(suite, then.suite, EVIDENCE):
        return Changes(unusable=[f"{differing}: nothing can be compared"])
    advisory = [*why_advisory(now, suite, then)]
    found = Changes(advice=[f"{reason}: times are advisory" for reason in advisory])
    same = not differences(suite, then.suite, ["baseline_fingerprint"])
    for name in (name for name in now if name in then.entries):
        old = then.entries[name].get("extra_info", {})
        found.compared += 1
        if why := comparison_problem(now[name], old):
            found.unusable.append(f"{name}: {why}")
        else:
            _compare(found, name, now[name], old, same_weights=same, advisory=bool(advisory))
    found.advice += group_by_reason(_only_in_one(now, then))
    return found


def _compare(
    found: Changes, name: str, now: Facts, old: Facts, *, same_weights: bool, advisory: bool
) -> None:
    """Note what a benchmark became: a rule that fails the other way round is a better result."""
    rule = rules(same_weights=same_weights).get(str(now.get("metric")))
    if rule is None:
        return
    timed = now["metric"] == "latency" and bool(advisory or noise_of(now, old))
    if worse := rule(now, old):
        (found.advice if timed else found.regressions).append(f"{name}: {worse}")
    elif rule(old, now) and not timed:
        found.better.append(f"{name}: {_gain(now, old)}")


def _gain(now: Facts, old: Facts) -> str:
    if now["metric"] == "size":
        return f"size {old['stored_bytes']:,} -> {now['stored_bytes']:,} bytes"
    if now["metric"] == "accuracy":
        before, after = (facts["correct"] / facts["total"] for facts in (old, now))
        return f"accuracy {before:.2%} -> {after:.2%}"
    if now["metric"] == "score":
        return score_change(now, old)
    interval = f"{now['speed_up_low']:.2f}..{now['speed_up_high']:.2f}"
    return f"speed-up {old['speed_up']:.2f}x -> {interval}x"


def _only_in_one(now: Mapping[str, Facts], then: History) -> Iterator[tuple[str, str]]:
    yield from ((name, "new") for name in now if name not in then.entries)
    yield from ((name, "did not run") for name in then.entries if name not in now)


def differences(here: Mapping[str, Any], there: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Return what two suites say differently of themselves; empty where they agree."""
    return ", ".join(
        f"{k} is {shorten(here.get(k))}, the history's {shorten(there.get(k))}"
        for k in keys
        if here.get(k) != there.get(k)
    )


def why_advisory(
    now: Mapping[str, Facts], suite: Mapping[str, Any], then: History
) -> Iterator[str]:
    """Yield why times are no evidence: another machine, or one that was busy with other work."""
    if differing := differences(suite, then.suite, MACHINE):
        yield differing
    for where, found in (("this run", now), ("the history", then.facts)):
        usable = ((name, facts) for name, facts in found.items() if not damage(facts))
        if off := [name for name, facts in usable if control_is_off(facts)]:
            yield f"{where} is noisy ({off[0]}: the baseline against itself is not about 1)"


def noise_of(now: Facts, then: Facts) -> str:
    """Return why the times of two entries are only advice; empty where they are evidence."""
    for where, facts in (("in this run", now), ("in the history", then)):
        if why := noise(facts):
            return f"{where} {why}"
    return ""
