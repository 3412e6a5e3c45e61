"""The seams between router, pods and operator: names, messages, files. Pure; the operator may import it."""
