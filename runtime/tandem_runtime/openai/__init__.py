"""The OpenAI front as one library, mounted by `router` and by `both`: schemas, streaming, errors. No torch, no engine."""
