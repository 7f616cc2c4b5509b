"""Federated learning as Parsl workflows, for hybrid HPC and cloud.

Nothing is imported here, so that a worker pays only for what it uses. Start from
`parslfl.orchestrator.rounds`, `parslfl.sites.Federation` and `parslfl.experiment.Experiment`.
"""

__version__ = "0.1.0"
