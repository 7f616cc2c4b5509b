"""A site's round as one MPI job: the worker that starts it, its ranks, and their team."""
