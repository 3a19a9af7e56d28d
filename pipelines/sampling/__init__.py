"""The one loop that turns noise into pictures, and what stands around it."""
