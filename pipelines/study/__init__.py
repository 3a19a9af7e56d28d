"""Experiments about the program itself: benchmarks against peers, on the same work in the same run."""
