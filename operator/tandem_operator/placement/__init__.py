"""Which hardware there is, which of it a model fits, and what to choose. Pure: values in, values with reasons out."""
