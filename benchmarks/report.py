"""Writes the saved results for readers: a table, plots, and a summary for the README."""

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from benchmarks.harness import RESULTS, Comparison, Verdict, percentile, read
from benchmarks.plot import bars, number

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"(<!-- benchmarks -->\n).*?(<!-- /benchmarks -->)", re.DOTALL)

PLOTTED = ("versus_river", "versus_peers")
"""The scripts whose first plot is in the README."""

TABULATED = ("pickup", "insert", "coroutines")
"""The scripts whose figures are in the README's table."""

BUSY = 1.0
"""The load average before a run, from which on the machine counts as busy."""

HEADER = """\
| Question | Side | Median (least to most) | Against | Target | Measured | |
|---|---|---|---|--:|---|---|"""

OPENING = """\
# Results

Made by `python -m benchmarks.run` from the JSON files beside it, which hold every sample, the
settings, the versions and the machine. The sides of a question were measured in turns, in one run,
on one server with fsync and synchronous_commit on; every job was checked to have run once. A ratio
is that of the medians; in brackets, the least and the greatest of samples taken in one turn.
"""


def table(comparisons: Sequence[Comparison], *, judged: bool = True) -> str:
    """Return the figures as a Markdown table with a row per side and target.

    Args:
        comparisons: The figures.
        judged: Whether to show which targets were reached. For small sizes that means nothing.
    """
    if not judged:
        comparisons = [attrs.evolve(each, targets=()) for each in comparisons]
    rows = [row for each in comparisons for row in _rows(each)]
    return "\n".join([HEADER, *rows]) + "\n"


def write(names: Sequence[str]) -> None:
    """Write results/README.md, its plots, and the part of README.md that shows results."""
    results = {name: saved for name in names if (saved := read(RESULTS / f"{name}.json"))}
    comparisons = [each for saved in results.values() for each in saved["comparisons"]]
    for old in RESULTS.glob("*.svg"):
        if old.name.partition("-")[0].removesuffix(".svg") in results:
            old.unlink()
    parts = [OPENING, _summary(results) + "\n", table(comparisons)]
    for name, saved in results.items():
        parts.append(_section(name, saved))
    (RESULTS / "README.md").write_text("\n".join(parts))
    README.write_text(
        BLOCK.sub(lambda match: match[1] + _short(results) + match[2], README.read_text())
    )


def _section(name: str, saved: dict[str, Any]) -> str:
    versions = ", ".join(f"{what} {version}" for what, version in saved["versions"].items())
    lines = [
        f"## {name}",
        "",
        (
            f"{saved['measured']}, revision `{saved['revision']}`, in {saved['seconds']:,.0f} s on "
            f"{saved['machine']['processors']} cores; {versions}."
        ),
        "",
    ]
    if busy(saved):
        lines += [f"**The machine was busy** (load {saved['machine']['load']:g}): provisional.", ""]
    for index, each in enumerate(saved["comparisons"]):
        plot = RESULTS / f"{name}-{index + 1}.svg"
        plot.write_text(_plot(each))
        lines += [f"![{each.question}]({plot.name})", ""]
        lines += [f"- {note}" for note in each.notes]
        if each.notes:
            lines.append("")
        for side, profile in each.profiles.items():
            lines += [f"Where the time of “{side}” goes, as it missed its target:", ""]
            lines += ["```text", profile, "```", ""]
    return "\n".join(lines)


def busy(saved: Mapping[str, Any]) -> bool:
    """Return whether other processes kept the machine busy before a run, so that it says little."""
    return bool(saved["machine"]["load"] > BUSY)


def _plot(each: Comparison) -> str:
    ours = [side for side in each.samples if "riverrun" in side]
    return bars(each.question, each.samples, unit=each.unit, ours=ours)


def _rows(each: Comparison) -> Iterator[str]:
    verdicts = each.verdicts()
    for side, samples in each.samples.items():
        figure = _spread(each, samples)
        own = [verdict for verdict in verdicts if verdict.target.side == side]
        for verdict in own:
            target = verdict.target
            against = "" if target.percentile is not None else target.against or each.first
            yield (
                f"| {each.question} | {side} | {figure} | {against} | {_target(each, verdict)} "
                f"| {_measured(each, verdict)} | {_word(verdict)} |"
            )
        if not own:
            yield f"| {each.question} | {side} | {figure} | | | | |"


def _spread(each: Comparison, samples: Sequence[float]) -> str:
    median = f"{number(statistics.median(samples))} {each.unit}"
    if len(samples) == 1:
        return median
    spread = f"{median} ({number(min(samples))} to {number(max(samples))})"
    if any(target.percentile == 99 for target in each.targets):
        spread += f", p99 {number(percentile(samples, 99))}"
    return spread


def _target(each: Comparison, verdict: Verdict) -> str:
    target = verdict.target
    sign = "≤" if each.less else "≥"
    if target.percentile is None:
        return f"{sign} {target.limit:g}x"
    return f"p{target.percentile:g} {sign} {number(target.limit)} {each.unit}"


def _measured(each: Comparison, verdict: Verdict) -> str:
    if verdict.target.percentile is not None:
        return f"{number(verdict.value)} {each.unit}"
    ratio = f"{verdict.value:.2f}x"
    if verdict.spread is None:
        return ratio
    return f"{ratio} ({verdict.spread[0]:.2f} to {verdict.spread[1]:.2f})"


def _word(verdict: Verdict) -> str:
    return "reached" if verdict.reached else "**MISSED**"


def _short(results: Mapping[str, dict[str, Any]]) -> str:
    """Return the part of README.md that shows results: the main plots, and some figures."""
    plots = [
        f"![{results[name]['comparisons'][0].question}](benchmarks/results/{name}-1.svg)"
        for name in PLOTTED
        if name in results
    ]
    rows = [
        f"| {each.question} | {_figure(each, each.targets[0].side)} | {_beside(each)} |"
        for name in TABULATED
        if name in results
        for each in results[name]["comparisons"]
    ]
    table = ["| | riverrun | beside it |", "|---|--:|--:|", *rows]
    busiest = max((saved["machine"]["load"] for saved in results.values()), default=0.0)
    counted = _count([each for saved in results.values() for each in saved["comparisons"]])
    if busiest > BUSY:
        counted += f" Provisional: the machine was busy with other work (load {busiest:g})."
    return "\n".join(["", *plots, "", *table, "", counted, "", ""])


def _beside(each: Comparison) -> str:
    side = each.targets[0].against or each.first
    if side == each.targets[0].side:
        return ""
    return f"{side}: {_figure(each, side)}"


def _figure(each: Comparison, side: str) -> str:
    return f"{number(statistics.median(each.samples[side]))} {each.unit}"


def _count(comparisons: Sequence[Comparison]) -> str:
    verdicts = [verdict for each in comparisons for verdict in each.verdicts()]
    missed = sum(not verdict.reached for verdict in verdicts)
    return f"{len(verdicts) - missed} of {len(verdicts)} targets are reached, {missed} missed."


def _summary(results: Mapping[str, dict[str, Any]]) -> str:
    comparisons = [each for saved in results.values() for each in saved["comparisons"]]
    missed = [
        f"- Missed: {each.question}, {verdict.target.side}: {_measured(each, verdict)}, "
        f"target {_target(each, verdict)}"
        for each in comparisons
        for verdict in each.verdicts()
        if not verdict.reached
    ]
    return "\n".join([_count(comparisons), *([""] if missed else []), *missed])
