"""How predictions of named branches are combined at every step: one method a file."""
