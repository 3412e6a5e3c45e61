"""The contract: spec, status, conditions, names, and the CRD that is generated from them. No I/O."""
