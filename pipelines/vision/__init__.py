"""Networks that look at pictures: loaded once, cached."""
