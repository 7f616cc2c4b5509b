"""Who trains in a round and how much: pure functions of what is known before it starts."""
