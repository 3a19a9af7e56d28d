"""The loaded base model: families, devices, and the doors through which a method may reach into it."""
