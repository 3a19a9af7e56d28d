"""Claims about methods, one a file, each with its effect measured on the embedded base."""
