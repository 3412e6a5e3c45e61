"""Decision records run again: the same record must give the same decision, byte for byte, or it is said where not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from tandem_operator.scaling.decision import RECORD_SCHEMA, Decision, Record
from tandem_operator.simulation.baselines.catalogue import BASELINES
from tandem_operator.simulation.contestants import with_fields
from tandem_operator.simulation.policy import ScalingPolicy
from tandem_operator.simulation.tandem import ABLATIONS, Tandem


def replayable(name: str) -> ScalingPolicy:
    """The policy of a record. Raises ValueError for those whose decisions are not in their records."""
    base, _, given = name.partition(":")
    if base == "tandem":
        return Tandem()
    if base in ABLATIONS:
        return ABLATIONS[base]
    if base in BASELINES:
        return with_fields(BASELINES[base], given, name) if given else BASELINES[base]
    raise ValueError(f"decisions of {name!r} cannot be replayed: it knows more than a record holds, or it is not known")


def read_records(lines: Iterator[bytes] | list[bytes]) -> Iterator[Record]:
    """JSON lines. Raises ValueError naming the line."""
    decoder = msgspec.json.Decoder(Record)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = decoder.decode(line)
        except msgspec.DecodeError as error:
            raise ValueError(f"line {number} is no decision record: {error}") from error
        if record.schema != RECORD_SCHEMA:
            raise ValueError(f"line {number} has schema {record.schema}; this program reads schema {RECORD_SCHEMA}")
        yield record


def decide_again(record: Record) -> Decision:
    """What the code of today decides. Raises ValueError when the state does not fit it."""
    policy = replayable(record.policy)
    kind = type(policy.initial(record.settings))
    try:
        state = msgspec.convert(record.state_before, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"the state at {record.time:.1f} s is no {kind.__name__} of this version: {error}") from error
    return policy.decide(record.settings, state, record.observation, record.time)


def differences(record: Record) -> list[str]:
    """One line per part that differs; empty when the decision is the same, byte for byte."""
    again = decide_again(record)
    pairs = (
        ("targets", record.targets, again.targets),
        ("explanation", record.explanation, again.explanation),
        ("state_after", record.state_after, again.state),
    )
    found: list[str] = []
    for name, before, now in pairs:
        if msgspec.json.encode(before) != msgspec.json.encode(now):
            found += _compare(name, msgspec.to_builtins(before), msgspec.to_builtins(now))
    return found


def _compare(path: str, before: Any, now: Any) -> list[str]:
    """Leaves that differ, by path."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        return [line for key in keys for line in _compare(f"{path}.{key}", before.get(key), now.get(key))]
    if isinstance(before, (list, tuple)) and isinstance(now, (list, tuple)) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [line for index, (a, b) in pairs for line in _compare(f"{path}[{index}]", a, b)]
    return [] if before == now else [f"{path}: recorded {_short(before)}, now {_short(now)}"]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
