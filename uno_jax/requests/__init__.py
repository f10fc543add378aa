"""Deletion requests over time, and the ledger that records them."""

from uno_jax.requests.ledger import append_to_ledger, read_ledger
from uno_jax.requests.sequence import Request, unlearn_requests

__all__ = ["Request", "append_to_ledger", "read_ledger", "unlearn_requests"]
