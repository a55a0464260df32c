"""Run every benchmark: `python -m benchmarks.run [--small] [--database-url URL] [NAME ...]`."""

from importlib import import_module

import click

from benchmarks.harness import RESULTS, Comparison, load, save, server, table

NAMES = ("insert", "claim", "pickup", "drain")


@click.command
@click.option("--small", is_flag=True, help="Small sizes: shows that all runs, measures nothing.")
@click.option("--database-url", help="A database; without it a server made for the while.")
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
def main(small: bool, database_url: str | None, names: tuple[str, ...]) -> None:
    """Measure, print a table, and unless --small save it."""
    comparisons: list[Comparison] = []
    with server(database_url) as engine:
        for name in names or NAMES:
            click.echo(f"{name} ...", err=True)
            found = import_module(f"benchmarks.{name}").compare(engine, small=small)
            comparisons += found
            if not small:
                save(engine, found, RESULTS / f"{name}.json")
    click.echo(table(comparisons))
    if not small:
        saved = [each for name in NAMES for each in load(RESULTS / f"{name}.json")]
        (RESULTS / "README.md").write_text(f"# Results\n\n{table(saved)}")


if __name__ == "__main__":
    main()
