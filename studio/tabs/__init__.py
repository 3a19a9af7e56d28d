"""The five tabs: layout and wiring, nothing else."""
