"""`tandem simulate`: what it prints and writes, and how it refuses: a sentence, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tandem_operator.cli.main import main

SHORT = ["simulate", "--rate", "2", "--minutes", "0.5", "--lengths", "500/20"]


def test_a_run_prints_a_table_and_why_the_last_decision_was_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "--policy", "static:2:1", "--policy", "token-velocity", "--compare"]) == 0
    said = capsys.readouterr().out
    assert "2 requests/s of 500/20 tokens for 0.5 minutes" in said
    assert "static:2:1" in said
    assert "no other attains more for fewer GPU-hours:" in said


def test_json_holds_every_figure_of_every_policy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "--json", "--policy", "static:1:1"]) == 0
    (outcome,) = json.loads(capsys.readouterr().out)
    assert outcome["policy"] == "static:1:1"
    assert outcome["attainment"] == 1.0
    assert outcome["arrivals"] == outcome["completed"] + outcome["in_flight"]
    assert outcome["series"]["prefill_ready"][-1] == 1


def test_a_page_and_records_are_written_and_the_records_replay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    html, records = tmp_path / "page.html", tmp_path / "records.jsonl"
    assert main([*SHORT, "--html", str(html), "--record", str(records)]) == 0
    assert "<svg" in html.read_text()
    lines = records.read_text().splitlines()
    capsys.readouterr()
    assert main(["simulate", "--replay", str(records)]) == 0
    assert capsys.readouterr().out == f"{len(lines)} decisions run again, none differ\n"
    records.write_text("\n".join([*lines[:-1], lines[-1].replace('"targets":{"prefill":', '"targets":{"prefill":4')]))
    assert main(["simulate", "--replay", str(records)]) == 1
    said = capsys.readouterr().out
    assert "targets.prefill: recorded 4" in said
    assert f"{len(lines)} decisions run again, 1 differs" in said


def test_settings_of_a_file_change_the_fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("prefill: {replicas: 4}\nbudget_gpus: 20\n")
    assert main([*SHORT, "--json", "--settings", str(file)]) == 0
    (outcome,) = json.loads(capsys.readouterr().out)
    assert outcome["series"]["prefill_want"][-1] == 4


def test_a_trace_of_a_users_own_is_read_by_its_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(f"{at},900,20\n" for at in range(20)))
    assert main(["simulate", "--trace", str(file), "--scale", "2", "--json", "--start", "2:2"]) == 0
    (outcome,) = json.loads(capsys.readouterr().out)
    assert outcome["scenario"] == "trace.csv"
    assert 30 <= outcome["arrivals"] <= 40


def test_the_list_names_scenarios_and_policies(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--list"]) == 0
    said = capsys.readouterr().out
    assert "S6-metricloss" in said
    assert "hybrid-regression-kalman" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["S99"], "S99"),
        (["S1", "--rate", "3"], "one load at a time: scenario and rate were given"),
        (["--rate", "0"], "--rate is 0; give a number above 0"),
        (["--rate", "nan"], "--rate is nan; give a number above 0"),
        (["--rate", "1", "--minutes", "0"], "--minutes is 0; give a number above 0"),
        (["S1", "--minutes", "5"], "--minutes changes nothing of a named scenario; it goes with --trace or --rate"),
        (["--rate", "1", "--quick"], "--quick changes nothing of --rate; it goes with a named scenario"),
        (["--rate", "1", "--lengths", "500"], "--lengths is '500'; write two whole numbers above 0, as in 3/2"),
        (["--rate", "1", "--start", "0:1"], "--start is '0:1'; write two whole numbers above 0"),
        (["--rate", "1", "--startup", "-1"], "--startup is -1; give 0 or more seconds"),
        (["--rate", "1", "--policy", "best"], "no policy is named 'best'"),
        (["--trace", "absent.csv"], "absent.csv"),
        (["--trace", "x_clients_y.csv"], "x_clients_y.csv cannot be read"),
        (["--rate", "1", "--settings", "absent.yaml"], "absent.yaml: No such file or directory"),
        (["--replay", "absent.jsonl"], "absent.jsonl: No such file or directory"),
        (["--rate", "1", "--compare", "--record", "x"], "--record takes the decisions of one policy"),
        (["--rate", "1", "--minutes", "0.1", "--html", "absent/page.html"], "absent/page.html: No such file"),
    ],
)
def test_wrong_input_gets_a_sentence(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", *arguments]) == 1
    said = capsys.readouterr().err
    assert says in said
    assert said.startswith("tandem simulate: ")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a: [1", "is no YAML"),
        ("5", "holds no fields; write for instance"),
        ("prefil: {}", "the settings has no field 'prefil'; it has prefill, decode"),
        ("prefill: {replica: 1}", "prefill has no field 'replica'; it has coefficients, replicas"),
        ("prefill: {max_replicas: many}", "Expected `int`, got `str` - at `$.prefill.max_replicas`"),
        ("\udc80", "is no text file"),
        ("objectives: []", "objectives is empty"),
        ("objectives: [{tpot_s: 0}]", "objectives[0].tpot_s is 0; give seconds above 0"),
        ("objectives: [{attainment: 99}]", "objectives[0].attainment is 99; it is a share"),
        ("prefill: {max_replicas: -3}", "prefill.max_replicas is -3; give 1 or more"),
        ("decode: {min_replicas: 5, max_replicas: 2}", "decode.max_replicas is 2; give 5 or more"),
        ("prefill: {replicas: 0}", "prefill.replicas is 0; a fixed pool has 1 or more"),
        ("budget_gpus: -1", "budget_gpus is -1; give 0 or more"),
        ("min_ratio: .nan", "min_ratio is nan"),
        ("min_ratio: 3\nmax_ratio: 2", "min_ratio 3 is above max_ratio 2"),
        ("decode: {coefficients: {decode: {phi0_s: 0, phi1_s: 0}}}", "decode.coefficients.decode makes steps free"),
    ],
)
def test_wrong_settings_are_refused_by_field(
    content: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_bytes(content.encode(errors="surrogateescape"))
    assert main([*SHORT, "--settings", str(file)]) == 1
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) == 1


def test_an_empty_or_broken_record_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text("")
    assert main(["simulate", "--replay", str(file)]) == 1
    assert "holds no decision records; --record FILE writes some" in capsys.readouterr().err
    file.write_text("{")
    assert main(["simulate", "--replay", str(file)]) == 1
    assert "line 1 is no decision record" in capsys.readouterr().err


def test_a_record_whose_settings_make_no_sense_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = tmp_path / "records.jsonl"
    assert main(["simulate", "--rate", "1", "--minutes", "0.1", "--record", str(records)]) == 0
    record = json.loads(records.read_text().splitlines()[0])
    record["settings"]["objectives"] = []
    records.write_text(json.dumps(record))
    capsys.readouterr()
    assert main(["simulate", "--replay", str(records)]) == 1
    assert "settings of the record at 0.0 s: objectives is empty" in capsys.readouterr().err
