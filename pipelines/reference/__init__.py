"""Drawing after reference pictures: one method a file."""
