"""Training: the methods that teach a concept, and what every training shares."""

ENGINE = ("trainer", "checkpoint", "watch")
"""Modules that are no methods; a list of methods must not import torch with them."""
