"""What robust strategies are for: 4 of 20 clients send lies, on real HighThroughputExecutor workers.

    python benchmarks/byzantine.py [STRATEGY ...]

Digits, softmax, 20 clients, all of them in each of 30 rounds, 2 epochs, lr 0.05, seed 0; iid, and
Dirichlet with alpha 1 (`--skewed`). Test accuracy in percent after the last round, without liars and with
updates turned round and 5 times as long, or 100 times as long.

Does not know: attacks that adapt to the strategy; those are stronger.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from hostile_model import Hostile
from rich.console import Console
from rich.table import Table

from parslfl.experiment import Experiment
from parslfl.orchestrator import rounds
from parslfl.seeding import derive
from parslfl.sites import Federation, Site
from parslfl_executors.local import Local

HERE = Path(__file__).resolve().parent
CLIENTS, LIARS, ROUNDS, SEED = 20, (3, 8, 13, 18), 30, 0
ATTACKS = {"no liars": 1.0, "turned, x 5": -5.0, "x 100": 100.0}
STRATEGIES = (
    "fedavg",
    "median",
    "trimmed:cut=0.2",
    "krum:hostile=4",
    "krum:hostile=4,keep=12",
    "geomedian",
    "medianclip",
    "clip:norm=0.2",
)


def accuracy(strategy: str, factor: float, partition: str) -> float:
    """Percent after the last round."""
    seeds = frozenset(derive(SEED, "train", r, client) for r in range(ROUNDS) for client in LIARS)
    executor = Local(workers=2, worker_init=f"export PYTHONPATH={HERE}")
    federation = Federation(name="lies", sites=(Site(name="here", clients=CLIENTS, executor=executor),))
    experiment = Experiment.model_validate(
        {
            "dataset": "digits",
            "partition": partition,
            "model": Hostile(factor, seeds),
            "strategy": strategy,
            "rounds": ROUNDS,
            "per_round": CLIENTS,
            "epochs": 2,
            "eval_every": 0,
            "seed": SEED,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        *_, last = rounds(federation, experiment, Path(folder, "run"))
    return 100 * (last.accuracy or 0.0)


def main() -> None:
    skewed = "--skewed" in sys.argv
    chosen = [word for word in sys.argv[1:] if word != "--skewed"] or STRATEGIES
    partition = "dirichlet:alpha=1" if skewed else "iid"
    table = Table("strategy", *ATTACKS, title=f"{len(LIARS)} of {CLIENTS} clients lie, {partition}")
    for strategy in chosen:
        table.add_row(strategy, *(f"{accuracy(strategy, f, partition):.1f}" for f in ATTACKS.values()))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
