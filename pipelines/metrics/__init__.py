"""Readouts: what came of it, one measure a file."""
