"""Draws the measured costs, in colours that are readable on light and on dark pages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

from .server import PAGES, UNLIMITED
from .timing import Samples, Spread

FILE = Path(__file__).with_name("results.svg")

INK = "#768390"
OURS = "#2f81f7"
THEIRS = "#c06c2b"


def draw(samples: Samples, parts: Mapping[tuple[str, str], Spread]) -> None:
    mpl.use("svg")
    # No date and no random names, so that equal results give an equal file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "wsgi_throttle"})
    mpl.rcParams.update({"font.family": "sans-serif", "font.size": 11})
    for name in ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"):
        mpl.rcParams[name] = INK
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(4, 1, figsize=(8, 10), height_ratios=[6, 5, 4, 4])
    for axis, kind, title in (
        (axes[0], "Flask", "An admitted request, 2 limits: us above Flask"),
        (axes[1], "refused", "A refused request: us"),
    ):
        costs = {}
        for whose in ("ours", "Flask-Limiter"):
            for storage in ("memory", "shared", "Redis"):
                if (whose, storage) != ("Flask-Limiter", "shared"):
                    name = f"{whose}, {storage}"
                    costs[name] = samples.cost_us(f"{name}, {kind}")
        _bars(axis, title, costs, " us")
    for axis, page in zip(axes[2:], PAGES, strict=True):
        shares = {
            name.replace("wsgi_throttle", "ours"): Spread(*(100 * value for value in part))
            for (of, name), part in parts.items()
            if of == page and name != UNLIMITED
        }
        title = f"gunicorn, 2 workers, {page}: requests/s, % of those without a limiter"
        _bars(axis, title, shares, "%")
    figure.tight_layout()
    figure.savefig(FILE, transparent=True, metadata={"Date": None})


def _bars(axis: Any, title: str, values: Mapping[str, Spread], unit: str) -> None:
    """A bar for each value: as long as its median, with a line for the middle half of the
    rounds."""
    names = [name.replace("ours", "wsgi_throttle") for name in values]
    of = {"ours": OURS, "Flask-Limiter": THEIRS}
    colours = [of.get(name.partition(",")[0], INK) for name in values]
    spreads = list(values.values())
    medians = [spread.median for spread in spreads]
    errors = [
        [spread.median - spread.low for spread in spreads],
        [spread.high - spread.median for spread in spreads],
    ]
    axis.barh(names, medians, color=colours, height=0.6, xerr=errors, ecolor=INK)
    for index, spread in enumerate(spreads):
        text = f"{spread.median:.3g}{unit}"
        axis.annotate(text, (spread.high, index), (6, 0), textcoords="offset points", va="center")
    axis.margins(x=0.12)
    axis.invert_yaxis()
    axis.set_title(title, loc="left", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
