"""KV hand-off over TCP: a prefill pod pushes pages into the pages that a decode pod granted."""
