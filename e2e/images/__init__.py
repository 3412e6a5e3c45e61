"""Container images without Docker: the contents of the Dockerfiles as OCI archives, layer by layer."""
