"""How bytes get from one process to another: bytes -> `Ref` -> bytes."""
