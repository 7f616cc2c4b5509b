"""A few thousand of the mutated payloads of benchmarks/fuzz_payloads.py, in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def test_mutated_payloads_are_refused_or_harmless(repository: Path) -> None:
    command = [
        sys.executable,
        str(repository / "benchmarks" / "fuzz_payloads.py"),
        "--count",
        "4000",
        "--seed",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-2000:]
    said = re.search(r"4,000 mutated payloads .* ([\d,]+) refused, ([\d,]+) taken", done.stdout)
    assert said
    refused, taken = (int(number.replace(",", "")) for number in said.groups())
    assert refused + taken == 4000
    assert refused > 2000
    assert taken > 100
