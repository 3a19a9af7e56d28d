"""Trained weights in and out of a base: the stack, file formats, merging."""
