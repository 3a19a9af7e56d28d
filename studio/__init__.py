"""The face of Likeness Studio: the command line, and what turns clicks into jobs."""
