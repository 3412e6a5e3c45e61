"""The bundled runtime of Tandem: router, prefill and decode roles and their engine."""
