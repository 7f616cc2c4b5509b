"""What the planner chose for clients, in a table and in a few words.

Does not know: how it chooses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from parslfl.report.text import percent
from parslfl.reports import Choice

#: Clients named for each choice.
_NAMED = 6


def choices_table(round: int, choices: Sequence[Choice]) -> Table:
    """One line for each site, codec and share of the model of this round, with the first client's reason."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"round {round + 1}")
    table.add_column("codec", overflow="fold", ratio=3)
    table.add_column("units")
    table.add_column("clients", overflow="fold", ratio=1)
    table.add_column("why (the first)", overflow="fold", ratio=4)
    groups: dict[tuple[str, str, float], list[Choice]] = {}
    for choice in choices:
        groups.setdefault((choice.client.site, choice.codec, choice.keep), []).append(choice)
    for (site, codec, keep), alike in groups.items():
        table.add_row(Text(site), Text(codec), percent(keep), _who(alike), Text(alike[0].why))
    return table


def in_words(choices: Sequence[Choice]) -> str:
    """`3 x raw, 1 x int8 at 50 %`."""
    kinds = Counter(
        short(choice.codec) + (f" at {100 * choice.keep:.0f} %" if choice.keep < 1 else "")
        for choice in choices
    )
    return ", ".join(f"{count} x {kind}" for kind, count in kinds.items())


def short(spec: str) -> str:
    """A codec in a word: `lowrank 15 %+int4` for `lowrank:ratio=0.15+quantize:bits=4+zstd:level=0`."""
    found = []
    for stage in spec.split("+"):
        name, _, rest = stage.partition(":")
        fields = dict(pair.partition("=")[::2] for pair in rest.split(","))
        if name == "quantize":
            found.append(f"int{fields.get('bits', 8)}")
        elif "ratio" in fields:
            found.append(f"{name} {100 * float(fields['ratio']):g} %")
        elif name != "zstd":
            found.append(name)
    return "+".join(found) or spec


def _who(choices: Sequence[Choice]) -> Text:
    text = " ".join(str(choice.client.index) for choice in choices[:_NAMED])
    rest = len(choices) - _NAMED
    return Text(f"{text} and {rest} more" if rest > 0 else text)
