"""Model families, their configuration and weights, and the sample model."""
