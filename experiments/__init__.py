"""Experiments: readable scripts over the library, one command each."""
