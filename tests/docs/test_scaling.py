"""The figures of docs/scaling.md follow from the saved constants."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
DAY_S = 86_400


def constants() -> dict[str, dict[str, float]]:
    """Return the saved constants, by question and side."""
    saved = json.loads((ROOT / "benchmarks/results/constants.json").read_text())
    return {
        each["question"]: {side: values[0] for side, values in each["samples"].items()}
        for each in saved["comparisons"]
    }


def test_figures_are_those_that_were_counted() -> None:
    """Each figure of the page is a saved one, or follows from saved ones."""
    page = " ".join((ROOT / "docs/scaling.md").read_text().split())
    counted = constants()
    log = counted["write-ahead log of a job, no checkpoint since"]
    whole = counted["write-ahead log of a job, right after a checkpoint"]
    disk = counted["disk of a completed job"]
    statements = counted["statements for each job of a client that drains a queue"]
    connections = counted["connections of a client"]
    steps = ("insert, each in a transaction", "claim", "complete", "delete")
    life = sum(round(log[step]) for step in steps)
    table, indexes = (disk[f"{part}, args of 20 bytes"] for part in ("table", "indexes"))
    idle = connections["idle, 1 queue"]
    for figure in (
        f"in a transaction of its own | {log[steps[0]]:,.0f} bytes |",
        f"| claim | {log['claim']:,.0f} bytes |",
        f"| complete | {log['complete']:,.0f} bytes |",
        f"| delete, when it is old | {log['delete']:,.0f} bytes |",
        f"| a job's whole life | {life:,} bytes |",
        f"pages are logged | {sum(round(whole[step]) for step in steps):,} bytes |",
        f"a completed job: table | {table:,.0f} bytes |",
        f"| indexes | {indexes:,.0f} bytes |",
        f"| table, args of 1,000 bytes | {disk['table, args of 1,000 bytes']:,.0f} bytes |",
        f"returns, 10 slots | {statements['returning, 10 slots']:.2g} |",
        f"writes apart | {statements['ctx.transaction(), 10 slots']:.3g} |",
        f"process with 1 queue | {idle:.0f} |",
        f"| with 4 queues | {connections['idle, 4 queues']:.0f} |",
        f"`poll_only` | {connections['idle, 1 queue, poll_only']:.0f} |",
        f"log grows by {life / 1e3:.1f} MB/s, {life * DAY_S / 1e6:.0f} GB a day",
        f"at 10,000 jobs/s by {life / 100:.0f} MB/s",
        f"is full at {round(125e6 / life, -3):,.0f} jobs/s",
        f"{1_000 * DAY_S / 1e6:.0f} million rows and {(table + indexes) * DAY_S / 1e6:.0f} GB",
        f"of which {indexes * DAY_S / 1e6:.0f} GB are indexes",
        f"64 GB hold those of {64e9 / indexes / 1e6:.0f} million jobs",
        f"A process has {idle:.0f} while idle",
        f"that is {97 // idle:.0f} idle processes; with 500, {497 // idle:.0f}.",
    ):
        assert figure in page, f"not in docs/scaling.md: {figure}"
