"""Brings a model folder from hf://, http(s)://, pvc:// or file:// to a local folder: resumable, verified, atomic."""
