"""The command: `make bench`, or python -m bench."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from bench import daemon, net_cost, quantiles, report, scale, slowdown
from bench.numbers import Row
from bench.scale import Series
from bench.subjects import AS_A_SERVICE, Peers, agent

DOCS = Path(__file__).parents[1] / "docs"
SECTIONS = ("net", "slowdown", "daemon", "quantiles", "scale")


@click.command()
@click.option("--quick", is_flag=True, help="One short round of everything: does it work?  Nothing is written.")
@click.option("--rounds", default=5, show_default=True, help="How often each subject is measured.")
@click.option("--share", default=1.0, show_default=True, help="Of the operations of each load.")
@click.option("--only", default=",".join(SECTIONS), show_default=True, help="Sections, separated by commas.")
@click.option("--case", default="", help="Of the section `net`, only what has this in its name.")
def main(*, quick: bool, rounds: int, share: float, only: str, case: str) -> None:
    """Measure the agent and other tools; print missed goals in red; write docs/performance.md.

    The page is written when all sections were measured, and not with --quick.  It takes root.
    """
    sections = only.split(",")
    if strangers := set(sections) - set(SECTIONS):
        raise click.ClickException(f"there is no section {', '.join(strangers)}; there is {', '.join(SECTIONS)}")
    rounds, share = (1, share / 20) if quick else (rounds, share)
    rows: list[Row] = []
    series: list[Series] = []
    with tempfile.TemporaryDirectory() as cache:
        for found in _measure(sections, rounds, share, case, Path(cache)):
            if isinstance(found, Row):
                click.echo(report.line(found))
                rows.append(found)
            else:
                click.echo(f"{found.title}: {found.points}")
                series.append(found)
    missed = sum(bool(row.misses) for row in rows)
    click.secho(f"{len(rows)} rows, {missed} of them missed", fg="red" if missed else "green")
    if not quick and set(sections) == set(SECTIONS) and not case:
        _write(rows, series, rounds)


def _measure(sections: list[str], rounds: int, share: float, case: str, cache: Path) -> Iterator[Row | Series]:
    """The shares of rounds and seconds are such that all of it takes less than 20 minutes."""
    peers = Peers(cache)
    with agent(cache) as ours:
        if "net" in sections:
            yield from net_cost.measure(ours, peers, min(rounds, 3), share, case)
        if "slowdown" in sections:
            with agent(cache, before=AS_A_SERVICE) as service:
                yield from slowdown.measure(service, ours, peers, rounds, share)
    if "daemon" in sections:
        yield from daemon.measure(peers, cache, min(rounds, 3), min(100, max(10, int(200 * share))))
    if "quantiles" in sections:
        yield from quantiles.measure(cache, share)
    if "scale" in sections:
        with agent(cache) as ours:
            yield from scale.measure(ours, 2 * share)


def _write(rows: list[Row], series: list[Series], rounds: int) -> None:
    (DOCS / "performance.md").write_text(report.render(rows, series, rounds))
    try:
        from bench.charts import draw  # noqa: PLC0415 - after everything is measured

        draw(series, DOCS / "performance")
    except ImportError as error:
        click.echo(f"no charts: {error}; pip install '.[bench]'")


if __name__ == "__main__":
    main()
