"""Draws the series, as SVG that is the same for the same numbers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bench.scale import Series

LOGARITHMIC = 30
"""From this ratio of the largest x to the smallest on."""


def draw(series: Iterable[Series], directory: Path) -> None:
    """NAME.svg for each.  Raises ImportError where matplotlib is missing: pip install '.[bench]'"""
    import matplotlib as mpl  # noqa: PLC0415 - measuring goes without it

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "chainbench-agent"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    directory.mkdir(parents=True, exist_ok=True)
    for one in series:
        figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
        xs, ys = zip(*one.points, strict=True)
        axes.plot(xs, ys, marker="o")
        if max(xs) >= LOGARITHMIC * min(xs):
            axes.set_xscale("log")
            if max(ys) >= LOGARITHMIC * min(ys) > 0:
                axes.set_yscale("log")
        if axes.get_yscale() == "linear":
            axes.set_ylim(bottom=0)
        axes.set(title=one.title, xlabel=one.x, ylabel=one.y)
        axes.set_xticks(xs, [f"{x:,.0f}" if x >= 10 else f"{x:.3g}" for x in xs])
        axes.minorticks_off()
        axes.grid(visible=True, alpha=0.3)
        figure.savefig(directory / f"{one.name}.svg", metadata={"Date": None})
        plt.close(figure)
