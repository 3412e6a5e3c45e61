"""Run inside the image, or with its site-packages as arguments: fails when the slim torch is not a whole CPU torch."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Raise what is wrong."""
    sys.path[:0] = sys.argv[1:]
    import torch
    from safetensors.torch import load_file, save_file
    from torch.nn import functional

    torch.manual_seed(0)
    left, right = torch.randn(4, 8), torch.randn(8, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad((left @ right).sum(), right)
    assert torch.allclose(gradient, left.sum(0)[:, None].expand(8, 4), atol=1e-5), "autograd is wrong"

    query, key, value = torch.randn(3, 1, 2, 5, 8)
    weights = torch.softmax(query @ key.transpose(-1, -2) / 8**0.5, dim=-1)
    fused = functional.scaled_dot_product_attention(query, key, value)
    assert torch.allclose(fused, weights @ value, atol=1e-5), "scaled_dot_product_attention is wrong"

    layer = torch.nn.Linear(8, 3).to(torch.bfloat16)
    assert layer(left.bfloat16()).shape == (4, 3), "a bfloat16 linear layer is wrong"
    assert torch.linalg.svdvals(left).shape == (4,), "LAPACK is missing"
    assert torch.from_numpy(left.numpy()).equal(left), "the bridge to numpy is missing"

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_file({"left": left}, path)
        assert load_file(path)["left"].equal(left), "safetensors read something else than was written"

    if torch.version.cuda and not torch.cuda.is_available():
        assert torch.cuda.device_count() == 0, "devices without a driver"
        try:
            left.cuda()
        except (RuntimeError, AssertionError):
            pass
        else:
            raise AssertionError("a tensor moved to a GPU that is not there")
    print(f"torch {torch.__version__} works on CPU")


if __name__ == "__main__":
    main()
