"""Toybox, the embedded base model: its drawn world, its training stages and its judge."""
