"""The engine of Likeness Studio: methods, models and the jobs that run them."""
