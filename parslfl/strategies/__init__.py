"""How updates become the next global model. Look names up in `parslfl.strategies.names`."""
