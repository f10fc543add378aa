"""Benchmarks of compiled step times."""
