"""Changing a given picture: one method a file."""
