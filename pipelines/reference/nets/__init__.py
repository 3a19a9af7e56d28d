"""The networks of reference methods, and the door through which their tokens reach the base."""
