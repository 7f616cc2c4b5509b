"""A sweep's runs as curves: accuracy against bytes sent, or against rounds, mean over seeds.

Does not know: what the settings mean.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from sweep_runs import Outcome
from sweep_scores import by_setting


def draw(found: Sequence[Outcome], path: Path, *, against_bytes: bool) -> None:
    """Write an SVG with a panel for each column of its table; equal numbers give an equal file."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    places = list(dict.fromkeys(one.run.setting.place for one in found))
    figure = Figure(figsize=(5 * len(places) + 4, 5), layout="constrained")
    panels = figure.subplots(1, len(places), squeeze=False, sharey=True)[0]
    for panel, place in zip(panels, places, strict=True):
        chosen = [one for one in found if one.run.setting.place == place]
        for number, (setting, mine) in enumerate(by_setting(chosen).items()):
            x, y = curve(mine, against_bytes=against_bytes)
            style = ("-", "--", ":")[number // 10]  # there are ten colours
            panel.plot(x, y, style, color=f"C{number % 10}", label=setting.name)
        panel.set_title(place)
        panel.set_xlabel("MB up (log scale)" if against_bytes else "rounds")
        panel.set_xscale("log" if against_bytes else "linear")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy, %")
    lines, names = panels[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside right upper", fontsize="small")
    with mpl.rc_context({"svg.hashsalt": "sweep"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def curve(mine: Sequence[Outcome], *, against_bytes: bool) -> tuple[list[float], list[float]]:
    """(x, accuracy in percent) at each evaluation that all of `mine` have, means over them."""
    points = list(zip(*(one.scored() for one in mine), strict=False))
    x = [statistics.mean(sent / 1e6 if against_bytes else done for done, sent, _ in at) for at in points]
    return x, [statistics.mean(percent for _, _, percent in at) for at in points]
