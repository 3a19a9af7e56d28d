"""Training: the methods that teach a concept, and what every training shares."""
