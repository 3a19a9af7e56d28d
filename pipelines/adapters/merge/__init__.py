"""Several adapters as one: each method a file."""
