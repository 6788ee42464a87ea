"""What the figures show: each function draws one from the facts of one device."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.facts.record import Facts
from benchmarks.report.quality import baseline_of, quality_of, value_of

# Okabe and Ito's palette for the colour-blind; the markers repeat what the colours say.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*"
WIDTH_IN, HEIGHT_IN = 7.0, 3.8
LEGEND_LINE_IN = 0.17
MIB = 2**20
SHOWN_POINTS = 12.0
"""Percentage points below the best that the Pareto plot shows; lower points are noted."""


def title(facts: Sequence[Facts], what: str) -> str:
    """Return a title that says what is drawn, of which data and device."""
    return f"{what} — {facts[0].get('data', facts[0]['workload'])}, {facts[0]['device']}"


def percent(fact: Facts) -> float:
    """Return the accuracy in percent, or the score as it is shown."""
    return float(value_of(fact) or 0.0)


def standard_error(fact: Facts) -> float:
    """Return the standard error of the accuracy in percentage points, or of the score."""
    if "score" in fact:
        return quality_of([fact]).shown(fact.get("score_error", 0.0))
    p = fact["accuracy"]
    return 100 * math.sqrt(p * (1 - p) / fact["total"])


def tested(points: Sequence[Facts]) -> str:
    """Return the label of an axis of accuracies or scores on test images."""
    return f"test {quality_of(points).title}"


def _worth(fact: Facts) -> float:
    return quality_of([fact]).worth(percent(fact))


def _by_epochs(fact: Facts) -> list[float]:
    """Return the validation accuracy or score of each epoch, none where it is not known."""
    known = fact.get("epoch_scores", fact.get("epoch_accuracy", ()))
    return [quality_of([fact]).shown(value) for value in known]


def _lowest(points: Sequence[Facts]) -> float:
    """Return the lower edge of an axis: of shares that are better higher it leaves out the worst."""
    found, quality = [percent(f) for f in points], quality_of(points)
    if quality.is_share and quality.higher_is_better:
        return max(min(found), max(found) - SHOWN_POINTS) - 0.5
    return min(found) - 0.05 * ((max(found) - min(found)) or abs(max(found)))


def pruning(accuracy: list[Facts]) -> Figure | str:
    """Return accuracy against the fraction removed (figure 2), or what it needs."""
    points = [f for f in accuracy if "amount" in f]
    if not points:
        return "needs the pruning sweep: add -m sweep"
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    axes = figure.subplots()
    for i, family in enumerate(dict.fromkeys(f["family"] for f in points)):
        for tuned in (False, True):
            _pruning_line(axes, points, family, i, tuned=tuned)
    base = baseline_of(points[0]) or 0.0
    axes.axhline(base, color="grey", linestyle=":", label="baseline")
    axes.set(xlabel="weights (or filters) removed, %", ylabel=tested(points))
    axes.set_title(title(points, "Pruning and accuracy"), fontsize=10)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _pruning_line(axes: Axes, points: list[Facts], family: str, i: int, *, tuned: bool) -> None:
    """Draw a family, as pruned or fine-tuned, in the colour and with the marker number `i`."""
    line = sorted(
        (f for f in points if f["family"] == family and bool(f["fine_tuned"]) == tuned),
        key=lambda f: float(f["amount"]),
    )
    if line:
        axes.errorbar(
            [100 * f["amount"] for f in line],
            [percent(f) for f in line],
            yerr=[standard_error(f) for f in line],
            color=PALETTE[i % 7],
            marker=MARKERS[i % 7],
            markersize=4,
            linestyle="--" if tuned else "-",
            markerfacecolor="white" if tuned else None,
            label=f"{family}{', fine-tuned' if tuned else ''}",
        )


def distillation(accuracy: list[Facts]) -> Figure | str:
    """Return accuracy by epoch, temperature and alpha (figure 6), or what it needs."""
    points = [f for f in accuracy if "temperature" in f]
    control = next((f for f in accuracy if f["technique"].endswith("student")), None)
    if not points:
        return "needs the sweep of temperature and alpha: add -m sweep"
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    left, right = figure.subplots(1, 2)
    _by_epoch(left, points, control)
    for i, alpha in enumerate(sorted({f["alpha"] for f in points})):
        _alpha_line(right, points, alpha, i)
    if control:
        right.axhline(percent(control), color="grey", linestyle="--", label="without a teacher")
    right.set(xscale="log", xlabel="temperature T", ylabel=tested(points))
    right.legend(fontsize=8)
    figure.suptitle(title(points, "Distillation into the five-layer CNN"), fontsize=10)
    return figure


def _alpha_line(axes: Axes, points: list[Facts], alpha: float, i: int) -> None:
    """Draw accuracy against temperature at one alpha, in the colour number `i`."""
    line = sorted((f for f in points if f["alpha"] == alpha), key=lambda f: float(f["temperature"]))
    axes.errorbar(
        [f["temperature"] for f in line],
        [percent(f) for f in line],
        yerr=[standard_error(f) for f in line],
        color=PALETTE[i % 7],
        marker=MARKERS[i % 7],
        markersize=4,
        capsize=2,
        label=f"alpha = {alpha:g}",
    )


def _by_epoch(axes: Axes, points: list[Facts], control: Facts | None) -> None:
    middle = sorted({f["alpha"] for f in points})[len({f["alpha"] for f in points}) // 2]
    shown = [f for f in points if f["alpha"] == middle]
    for i, fact in enumerate(sorted(shown, key=lambda f: float(f["temperature"]))):
        values = _by_epochs(fact)
        label = f"T = {fact['temperature']:g}" + (" (paper)" if fact["temperature"] == 0.01 else "")
        axes.plot(range(1, len(values) + 1), values, color=PALETTE[i % 7], label=label)
    if control and (values := _by_epochs(control)):
        axes.plot(range(1, len(values) + 1), values, "--", color="grey", label="without a teacher")
    axes.set(xlabel="epoch", ylabel=f"validation {quality_of(shown).title} (alpha = {middle:g})")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8)


def pareto(accuracy: list[Facts]) -> Figure | str:
    """Return size against accuracy of the default run, or what it needs."""
    points = [f for f in accuracy if not f.get("sweep")]
    if len(points) < 2:
        return "needs at least two techniques of the default run"
    names = dict.fromkeys(f["technique"] for f in points)
    height_in = max(4.6, LEGEND_LINE_IN * (len(names) + 4))
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    axes = figure.subplots()
    sizes_mib = [f["stored_bytes"] / MIB for f in points]
    _front_line(axes, _front(points), max(sizes_mib))
    lowest = _lowest(points)
    for i, name in enumerate(names):
        _pareto_point(axes, next(f for f in points if f["technique"] == name), i, lowest)
    axes.set_ylim(bottom=lowest)
    axes.set(xscale="log", xlabel="stored file, MiB", ylabel=tested(points))
    _size_axis(axes, min(sizes_mib), max(sizes_mib))
    axes.set_title(title(points, "Size and accuracy"), fontsize=10)
    # A legend, not labels at the points: half of the techniques lie on top of one another.
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _front_line(axes: Axes, front: list[Facts], largest_mib: float) -> None:
    """Draw the steps of the front, as far as the largest file."""
    axes.step(
        [*(f["stored_bytes"] / MIB for f in front), largest_mib],
        [*(percent(f) for f in front), percent(front[-1])],
        where="post",
        color="grey",
        linewidth=1,
        label="Pareto front",
        zorder=1,
    )


def _pareto_point(axes: Axes, fact: Facts, i: int, lowest: float) -> None:
    """Draw a technique, at the lower edge where its accuracy is off scale."""
    below = percent(fact) < lowest
    name = fact["technique"]
    axes.errorbar(
        fact["stored_bytes"] / MIB,
        lowest if below else percent(fact),
        yerr=None if below else standard_error(fact),
        color=PALETTE[i % 7],
        marker="v" if below else MARKERS[i // 7 % 7],
        linestyle="none",
        clip_on=not below,
        label=f"{name} ({percent(fact):.0f}%, off scale)" if below else name,
    )


def _size_axis(axes: Axes, smallest: float, largest: float) -> None:
    """Give a logarithmic axis of sizes in MiB plain numbers at round places."""
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if t > smallest / 2]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_xlim(smallest * 0.8, largest * 1.25)


def size_curve(accuracy: list[Facts]) -> Figure | str:
    """Return accuracy against how many times smaller a file is, or what it needs."""
    points = [f for f in accuracy if "pruned" in f]
    if not any(f.get("sweep") for f in points):
        return "needs the sweep of pruned and shared weights: add -m sweep"
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    axes = figure.subplots()
    _curve(axes, sorted(points, key=_times_smaller))
    base = baseline_of(points[0]) or 0.0
    axes.axhline(base, color="grey", linestyle=":", label="baseline")
    if quality_of(points).is_share:
        axes.axhline(base - 0.5, color="grey", linestyle="--", label="0.5 points below")
    axes.set(xlabel="baseline's file / stored file", ylabel=tested(points))
    axes.set_title(title(points, "Size of the file and accuracy"), fontsize=10)
    axes.margins(x=0.2)  # room for the last label
    axes.set_xlim(left=0)
    axes.legend(fontsize=8, loc="lower left")
    return figure


def _curve(axes: Axes, line: list[Facts]) -> None:
    axes.errorbar(
        [_times_smaller(f) for f in line],
        [percent(f) for f in line],
        yerr=[standard_error(f) for f in line],
        color=PALETTE[0],
        marker="o",
        markersize=4,
        label="pruned, shared, entropy-coded",
    )
    for fact in line:
        axes.annotate(
            f"{fact['pruned']:.0%} pruned",
            (_times_smaller(fact), percent(fact)),
            textcoords="offset points",
            xytext=(4, 6),
            fontsize=8,
        )


def _times_smaller(fact: Facts) -> float:
    return float(fact["baseline_stored_bytes"] / fact["stored_bytes"])


def _front(points: list[Facts]) -> list[Facts]:
    front: list[Facts] = []
    for fact in sorted(points, key=lambda f: (f["stored_bytes"], -_worth(f))):
        if not front or _worth(fact) > _worth(front[-1]):
            front.append(fact)
    return front
