"""Every policy by name: ours, its ablations, rivals' formulas with fields set by hand, fixed sizes, oracles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Final

from tandem_operator.simulation.baselines.catalogue import BASELINES, tuned
from tandem_operator.simulation.baselines.formula import Formula
from tandem_operator.simulation.baselines.static import Static
from tandem_operator.simulation.oracles.clairvoyant import Clairvoyant
from tandem_operator.simulation.oracles.schedule import static_mean, static_peak
from tandem_operator.simulation.policy import ScalingPolicy
from tandem_operator.simulation.scenario import Scenario
from tandem_operator.simulation.tandem import ABLATIONS, Tandem

ORACLES: Final = ("oracle-clairvoyant", "oracle-startup", "oracle-causal", "oracle-causal-fifo")
STATICS: Final = ("static-peak", "static-mean")


def names() -> tuple[str, ...]:
    """All that `contestant` takes, ours first."""
    return ("tandem", *BASELINES, *STATICS, *ORACLES, *ABLATIONS)


def contestant(name: str, scenario: Scenario, best: Callable[[], Clairvoyant]) -> ScalingPolicy:
    """`name`, or `name:field=value,...` for a rival's formula, or static:P:D. `best` is asked when O1 is needed.

    Raises ValueError that says what there is instead.
    """
    base, _, given = name.partition(":")
    if base == "static" and given:
        return _static(name, given)
    if base in BASELINES:
        return with_fields(BASELINES[base], given, name) if given else BASELINES[base]
    if given:
        raise ValueError(f"{base} takes no settings in its name; rivals' formulas do, as in hpa-utilisation:target=0.5")
    if base == "tandem":
        return Tandem(convertible=scenario.settings.convertible_decode)
    if base in ABLATIONS:
        return ABLATIONS[base]
    if base not in (*STATICS, *ORACLES):
        raise ValueError(f"no policy is named {base!r}; there are {', '.join(names())}, and static:P:D")
    found = best()
    made: dict[str, Callable[[], ScalingPolicy]] = {
        "static-peak": lambda: static_peak(found.schedule),
        "static-mean": lambda: static_mean(found.schedule),
        "oracle-clairvoyant": lambda: found.schedule,
        "oracle-startup": lambda: found.with_startup(scenario),
        "oracle-causal": lambda: found.causal(deadline=True),
        "oracle-causal-fifo": lambda: found.causal(deadline=False),
    }
    return made[base]()


def with_fields(formula: Formula, given: str, name: str) -> Formula:
    """`field=value,...` with values of the field's own type. Raises ValueError naming the fields."""
    known = {field.name: field for field in fields(formula) if field.name != "name"}
    point: dict[str, object] = {}
    for part in given.split(","):
        key, equals, text = part.partition("=")
        if key in known and not equals:
            raise ValueError(f"{key} has no value; write {key}={getattr(formula, key)}")
        if key not in known:
            simple = [one for one in known if isinstance(getattr(formula, one), (float, int, str, bool))]
            raise ValueError(f"{formula.name} has no field {key!r}; it has {', '.join(simple)}, as in {simple[0]}=1")
        point[key] = _value(getattr(formula, key), text, key)
    return replace(tuned(formula, point), name=name)


def _value(before: Any, text: str, key: str) -> object:
    """Of the type that the field has."""
    if isinstance(before, bool):
        if text not in ("true", "false"):
            raise ValueError(f"{key} is true or false, not {text!r}")
        return text == "true"
    if isinstance(before, str):
        return text
    if not isinstance(before, (int, float)):
        raise ValueError(f"{key} is a group of values that a command line cannot set")
    try:
        return type(before)(text)
    except ValueError:
        raise ValueError(f"{key} is a number, not {text!r}") from None


def _static(name: str, given: str) -> Static:
    parts = given.split(":")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ValueError(f"{name!r} is no fixed size; write static:P:D, static:12:9 for instance")
    return Static(name=name, prefill=int(parts[0]), decode=int(parts[1]))
