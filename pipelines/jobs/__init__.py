"""Jobs as data, and the runners that carry them out."""
