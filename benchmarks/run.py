"""Run every benchmark: `python -m benchmarks.run [--small] [--database-url URL] [NAME ...]`."""

import os
import sys
import time
import traceback
from importlib import import_module

import click

from benchmarks import report
from benchmarks.harness import RESULTS, Comparison, LeftOut, save, server

NAMES = (
    "drain",
    "versus_river",
    "pickup",
    "latency",
    "insert",
    "insert_from",
    "added",
    "claim",
    "snapshot",
    "pages",
    "coroutines",
    "processes",
    "sessions",
    "idle",
    "memory",
    "start",
    "versus_peers",
    "constants",
    "dashboard",
)
LONG = ("soak",)
"""Scripts that have a command of their own; here only their small form runs."""


@click.command
@click.option("--small", is_flag=True, help="Small sizes: only check that everything runs.")
@click.option("--database-url", help="A database. Default: a temporary server.")
@click.option("--report", "only_report", is_flag=True, help="Only write the report again.")
@click.argument("names", nargs=-1, type=click.Choice(NAMES + LONG))
def main(small: bool, database_url: str | None, only_report: bool, names: tuple[str, ...]) -> None:
    """Run benchmarks, print a table, and unless --small save the results.

    If a script fails, the others still run, and the exit code is 1.
    """
    comparisons: list[Comparison] = []
    failed: list[str] = []
    began = time.monotonic()
    load = os.getloadavg()[0]
    if not only_report:
        with server(database_url) as engine:
            for name in names or (NAMES + LONG if small else NAMES):
                script_began = time.monotonic()
                try:
                    found = import_module(f"benchmarks.{name}").compare(engine, small=small)
                except LeftOut as reason:
                    click.echo(f"{name}: left out: {reason}", err=True)
                    continue
                except Exception:
                    traceback.print_exc()
                    click.echo(f"{name}: FAILED", err=True)
                    failed.append(name)
                    continue
                took_s = time.monotonic() - script_began
                click.echo(f"{name}: {took_s:.0f} s", err=True)
                comparisons += found
                if not small:
                    save(engine, found, RESULTS / f"{name}.json", took_s=took_s, load=load)
        click.echo(report.table(comparisons, judged=not small))
    if not small:
        report.write(NAMES)
    if failed:
        click.echo(f"failed: {', '.join(failed)}", err=True)
        sys.exit(1)
    click.echo(f"all in {time.monotonic() - began:.0f} s", err=True)


if __name__ == "__main__":
    main()
