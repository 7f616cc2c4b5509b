"""Where work runs: each resource manager as a frozen configuration that builds its Parsl executor.

Knows nothing of federated learning.
"""
