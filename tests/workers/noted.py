"""A transport that notes what is read, for tests that count readers in several processes.

Does not know: who reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from parslfl.messages import Ref
from parslfl.transport.file import File


@dataclass(frozen=True)
class Noted(File):
    """Files; each reading is a line in `log`."""

    log: str = ""

    def get(self, ref: Ref) -> memoryview:
        with Path(self.log).open("a") as stream:
            stream.write(f"{ref.path}\n")
        return super().get(ref)
