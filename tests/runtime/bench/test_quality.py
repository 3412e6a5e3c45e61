"""What fast modes cost: measured on the sample model as `tandem-runtime quality` does."""

from __future__ import annotations

from pathlib import Path

from tandem_runtime.bench.quality import MARGIN_TOLERANCE_NATS, measure
from tandem_runtime.models.make_model import make_model


def test_fast_modes_take_other_tokens_seldom_and_only_where_the_reference_hardly_prefers_its_own(
    tmp_path: Path,
) -> None:
    make_model(tmp_path / "model")
    reference, *fast = measure(tmp_path / "model", texts=4, tokens=48)
    assert reference.agreement == 1.0
    assert len(fast) == 5
    for row in fast:
        print(f"{row.name}: {row.agreement:.1%} of {row.places}, widest margin {row.widest_margin:.3f} nats")
        assert row.agreement > 0.95, row
        assert row.widest_margin < MARGIN_TOLERANCE_NATS, row
        assert abs(row.perplexity / reference.perplexity - 1) < 0.02, row
