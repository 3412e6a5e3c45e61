"""Who can be put into a scenario by name, and decisions run again from their records."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from tandem_operator.scaling.decision import Record
from tandem_operator.scaling.law import Law
from tandem_operator.scaling.replay import replay
from tandem_operator.simulation.arrivals import Steps
from tandem_operator.simulation.contestants import contestant, names
from tandem_operator.simulation.lengths import CHAT
from tandem_operator.simulation.oracles.clairvoyant import Clairvoyant
from tandem_operator.simulation.oracles.fluid import Need
from tandem_operator.simulation.oracles.schedule import Schedule, sizes_of
from tandem_operator.simulation.outcome import Outcome
from tandem_operator.simulation.pinned import fleet, settings
from tandem_operator.simulation.replay import differences, read_records
from tandem_operator.simulation.run import simulate
from tandem_operator.simulation.scenario import Scenario
from tandem_operator.simulation.tandem import ABLATIONS, SWITCHES, Tandem
from tandem_operator.simulation.workload import Synthetic

SHORT = Scenario("short", "", Synthetic(Steps(((0.0, 2.0), (30.0, 6.0))), CHAT, 50.0), settings(), fleet())
ORACLE = Clairvoyant(
    Schedule(name="oracle-clairvoyant", sizes=sizes_of([Need(1.5, 0.5), Need(2.5, 1.0)])),
    Outcome(scenario="short", policy="oracle-clairvoyant", seed=0, seconds=120.0),
    present=sizes_of([Need(1.5, 0.5)]),
)


def found(name: str) -> object:
    return contestant(name, SHORT, lambda: ORACLE)


def recorded(name: str) -> list[Record]:
    records: list[Record] = []
    simulate(SHORT, contestant(name, SHORT, lambda: ORACLE), 0, record=records.append)
    lines = [msgspec.json.encode(record) for record in records]
    return list(read_records(lines))


def test_every_name_is_somebody_and_the_name_is_kept() -> None:
    for name in names():
        policy = contestant(name, SHORT, lambda: ORACLE)
        assert policy.name == name
        assert policy.period_s > 0


def test_fields_of_a_formula_are_set_after_a_colon() -> None:
    changed = found("hpa-utilisation:target=0.5,discipline=deadline")
    assert (changed.target, changed.discipline) == (0.5, "deadline")  # type: ignore[attr-defined]
    assert found("static:7:4").decode == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nobody", "no policy is named 'nobody'; there are tandem,"),
        ("tandem:period_s=1", "tandem takes no settings in its name"),
        ("hpa-utilisation:goal=1", "has no field 'goal'; it has period_s"),
        ("hpa-utilisation:target", "target has no value; write target=0.7"),
        ("hpa-utilisation:target=much", "target is a number, not 'much'"),
        ("hpa-utilisation:convertible=1", "convertible is true or false, not '1'"),
        ("saturation:limits=1", "limits is a group of values"),
        ("static:0:3", "is no fixed size; write static:P:D"),
    ],
)
def test_a_wrong_name_is_refused_with_what_there_is(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        found(name)


def test_an_ablation_lacks_exactly_what_its_name_says() -> None:
    off = [switch for one in ABLATIONS.values() for switch in one.off]
    assert sorted(off) == sorted(SWITCHES)
    assert ABLATIONS["tandem-no-deadline"].discipline == "fifo"
    seen: list[Law] = []
    simulate(SHORT, ABLATIONS["tandem-no-split"], 0, record=lambda record: seen.append(record.settings.law))
    assert seen
    assert not any(law.split_backlog for law in seen), "a record holds the settings that were in force"


@pytest.mark.parametrize("name", ["tandem", "tandem-no-lead", "hybrid-regression", "hpa-utilisation:target=0.5"])
def test_a_recorded_decision_is_the_same_when_it_is_run_again(name: str) -> None:
    records = recorded(name)
    assert len(records) >= 4
    assert [line for record in records for line in differences(record)] == []


def test_a_replay_says_which_part_differs() -> None:
    record = recorded("tandem")[-1]
    changed = msgspec.structs.replace(record, targets=msgspec.structs.replace(record.targets, prefill=60))
    assert differences(changed) == [f"targets.prefill: recorded 60, now {record.targets.prefill}"]


def test_a_replay_refuses_what_it_cannot_run() -> None:
    record = recorded("tandem")[0]
    with pytest.raises(ValueError, match="decisions of 'oracle-causal' cannot be replayed"):
        differences(msgspec.structs.replace(record, policy="oracle-causal"))
    with pytest.raises(ValueError, match=r"the state at 0\.0 s is no State of this version"):
        differences(msgspec.structs.replace(record, state_before={"panics": "many"}))
    with pytest.raises(ValueError, match="line 2 is no decision record"):
        list(read_records([b"\n", b"{}"]))
    with pytest.raises(ValueError, match="line 1 has schema 9"):
        list(read_records([msgspec.json.encode(msgspec.structs.replace(record, schema=9))]))


def test_a_user_who_wants_no_convertible_pods_gets_none() -> None:
    plain = replace(SHORT, settings=msgspec.structs.replace(SHORT.settings, convertible_decode=False))
    assert contestant("tandem", plain, lambda: ORACLE) == Tandem(convertible=False)


def test_the_record_of_an_ablation_alone_gives_its_decision_again() -> None:
    record = recorded("tandem-no-lead")[-1]
    assert not record.settings.law.lead_quantile
    again = replay(record)
    assert msgspec.json.encode(again) == msgspec.json.encode(record)
