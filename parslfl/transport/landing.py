"""The driver's end of `inline`: what came in a result is written out, so that no result holds it any more.

Parsl keeps results until Python's cycle collector runs, and those that are yet to be merged are in memory
all at once where a strategy falls behind. It is done in the thread that brings a site's results: the next
one is not unpickled before this one's bytes are gone.

Does not know: what the bytes mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from parslfl.errors import PayloadError
from parslfl.messages import Ref
from parslfl.protocols import Buffer
from parslfl.transport.file import File, no_room
from parslfl.transport.inline import Inline

#: Bytes up to which what came stays in its result: a future takes as much.
STAYS = 1 << 12


@dataclass(frozen=True)
class Landing:
    """`home`: where it is written. `names`: what of it is there; a reference to anything else, which a worker
    may have made, is read as `Inline` reads it."""

    home: File
    names: set[str] = field(default_factory=set, compare=False, repr=False)

    def keep(self, name: str, ref: Ref) -> Ref:
        """Where the bytes of `ref`, which came in a result, are from now on: in the file `name`, if they are
        many. The result loses them, whatever comes of it.

        Raises:
            PayloadError: they are not as many as announced, or cannot be stored.
        """
        if len(ref.data) <= STAYS:
            return ref
        try:
            return self._written(name, ref)
        except OSError as error:
            raise PayloadError(no_room(self.home.root, error)) from None
        finally:
            # Parsl's futures, the executor's and the app's, hold this very object, and nobody can take it
            # from them. It was made when the result was unpickled, so it is nobody else's: who looks at it
            # later finds a payload without its bytes, which every reader refuses.
            object.__setattr__(ref, "data", b"")

    def _written(self, name: str, ref: Ref) -> Ref:
        if ref.path:  # a worker puts nothing anywhere: who reads this refuses it
            return Ref(ref.size, ref.checksum, ref.path)
        kept = self.home.put(name, [Inline().get(ref)], ref.checksum)
        self.names.add(name)
        return kept

    def put(self, name: str, buffers: Sequence[Buffer], checksum: str) -> Ref:
        """What goes out rides in tasks."""
        return Inline().put(name, buffers, checksum)

    def get(self, ref: Ref) -> memoryview:
        return (self.home if ref.path in self.names else Inline()).get(ref)

    def drop(self, ref: Ref) -> None:
        if ref.path in self.names:
            self.names.discard(ref.path)
            self.home.drop(ref)

    def has(self, name: str) -> bool:
        return False
