"""The run directory, the only state of a run: its journal, its records, its list."""
