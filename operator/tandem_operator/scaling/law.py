"""The constants of the scaling law, each with its reason. Booleans switch a mechanism off, for ablations."""

from __future__ import annotations

import msgspec


class Law(msgspec.Struct, frozen=True, kw_only=True):
    """Defaults are the product; nothing here is for users to turn."""

    split_backlog: bool = True
    """Off: every waiting request counts as if it could still meet its deadline."""
    lead_quantile: bool = True
    """Off: no insurance for the growth of load while a pod starts."""
    count_convertible: bool = True
    """Off: idle decode capacity does not stand in for prefill pods in bursts."""
    calibrate: bool = True
    """Off: coefficients stay those of the settings."""
    use_prior: bool = True
    """Off: what is measured replaces the prior at once, however few the measurements."""
    couple: bool = True
    """Off: each pool is sized for what arrives, not for what the other one can send or take."""
    forecast: bool = True
    """Off: no look at yesterday."""
    expect_bursts: bool = True
    """Off: a burst that came again and again finds what an ordinary hold has left."""

    fresh_s: float = 20.0
    """Three scrapes of up to 5 s plus the delay of a slow metrics path; younger signals count as of now."""
    missing_s: float = 60.0
    """A source that has been silent for a minute is gone, not late."""
    bin_s: float = 2.0
    """Arrivals are kept in bins of this length: the period of a busy loop, and the TTFT slack of most classes."""
    fine_bins: int = 30
    """A minute in fine bins; what is older is kept in bins ten times as long."""
    coarse_bins: int = 18
    """Six minutes more: the slow rate, and the longest start-up that is common."""
    fast_s: float = 5.0
    """The shortest window in which a count of arrivals says something."""
    medium_s: float = 60.0
    slow_s: float = 300.0
    jump_sigmas: float = 5.0
    """The fast rate counts when it is this far above the medium one: counts have heavier tails than the normal
    distribution, and a look every 2 s makes thousands of windows a day."""
    doubt_sigmas: float = 2.0
    """In the first minute the rate is reckoned with this many deviations lower: seconds of arrivals prove no load."""

    startup_prior_s: float = 110.0
    """Start-up before one was measured, unless the coefficients tell a longer load: a 70B model on a prepared node."""
    startup_quantile_sigmas: float = 1.0
    """Mean plus this many deviations: five pods of six are there by then."""
    growth_quantile: float = 0.75
    """Growth of load within one start-up that is insured: one in four may see more; convertible decoders help there."""
    growth_prior: float = 1.03
    """Before growth was seen."""
    growth_step: float = 0.015
    """Of the quantile tracker, in units of the logarithm of growth, per comparison."""
    growth_max: float = 3.0
    """An insurance above this is no insurance but a second fleet."""

    prefill_miss_share: float = 0.5
    """Of the allowed misses, those that waiting for prefill may cause; the rest is decode's."""
    decode_miss_share: float = 0.5
    tpot_margin: float = 0.05
    """Decode pods are filled up to this far below the TPOT objective: steps vary."""
    decode_full: float = 0.9
    """Share of the KV pages that running sequences may hold: room for their growth and for what is in transfer."""
    link_full: float = 0.7
    """Share of the KV link's rate that may be used: transfers come in bursts."""
    ttft_spare_s: float = 0.05
    """Router, network and the first decode step, before a queue has begun."""

    late_drain_s: float = 600.0
    """Requests whose deadline has passed are worked off within this; what they miss cannot be won back."""
    drain_floor_s: float = 5.0
    """Shortest time in which a salvageable backlog is to be worked off: below this, noise would size the pool."""

    panic_ratio: float = 1.3
    """Fast demand over ready capacity at which waiting for certainty costs more than a pod."""
    panic_ticks: int = 1
    """Looks that must agree on it: the jump itself is five deviations already."""
    up_ticks: int = 5
    """Of the last decisions, this many of one more must ask for more before more is given: ten seconds of evidence are
    a tenth of a cold start, and half of the lulls and swells of a steady day are over by then."""
    stable_s: float = 60.0
    """After a panic nothing is removed for this, nor for a start-up, whichever is longer."""
    violation_over_idle: float = 0.6
    """Cost of missing objectives for want of a pod over cost of an idle pod, for the same time: the ski-rental hold is
    start-up x (1 + this)."""
    hold_floor_s: float = 60.0
    """Shortest hold before a removal: a decode pod needs about as long to drain."""
    regret_s: float = 900.0
    """A removal that is taken back within this was too early: the hold doubles."""
    regret_load: float = 1.3
    """... unless load has grown beyond this many times that of the removal: then it was right at its time."""
    regret_max: float = 8.0
    """The longest hold is this many times the first."""
    dwell_s: float = 60.0
    """A pool that was given pods of the other role gives none back for this: lengths that sway must not chase pods."""
    surplus: float = 0.15
    """A pod that would not be needed at this much more load goes after one hold; one that might, after `patience`."""
    patience: float = 3.0
    """Holds before a removal that noise of the load could take back: after so long, a lull is no chance."""
    patience_floor_s: float = 600.0
    """... and at least this: ten independent minutes, whose highest is two deviations above their mean."""
    shrink_tail: float = 0.5
    """The pool that remains after a removal must keep this share of the allowed tail, not all of it."""
    shrink_flexible: float = 0.7
    """... and with no more than this share of the convertible capacity that growth reckons with."""
    shrink_sigmas: float = 1.25
    """Removal reckons with load this many deviations of the measured rate above it."""

    convert_tokens: int = 512
    """Prompt tokens that a convertible decode pod adds to a step."""
    convert_worth: float = 0.6
    """Of the slack of decode pods, what is reckoned with: it is spread over pods and comes in chunks."""

    swap_gain: float = 0.1
    """Under a budget, GPUs change pools only for this much more of the load: the change itself costs a start-up."""

    calibration_iterations: int = 64
    """At most this many engine steps are learned from per decision: bounds the time of one decision."""
    busy_s: float = 2.0
    """Period of decisions while requests come."""
    idle_s: float = 15.0
    """Period of decisions while nothing moves."""
