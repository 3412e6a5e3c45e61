"""The one home of model and hardware formulas: facts in, bytes and seconds out. Pure."""
