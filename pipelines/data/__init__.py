"""Photos and captions on their way to a training."""
