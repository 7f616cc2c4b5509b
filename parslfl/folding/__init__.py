"""From updates to the next global model: received, checked, weighed, added up, kept as files."""
