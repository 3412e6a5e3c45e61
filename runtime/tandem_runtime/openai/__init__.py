"""The OpenAI front as one library, mounted by `router` and by `both`. No torch, no engine."""
