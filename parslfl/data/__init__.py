"""Data sets and how they are split among clients. Look names up in `parslfl.data.names`."""
