"""Models and their local training. Look names up in `parslfl.models.names`."""
