"""The stages of the recipe, one file each: what is trained, on which batches, and what is written."""
