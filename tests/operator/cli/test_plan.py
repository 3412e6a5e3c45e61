"""`tandem plan`: what it prints, and that wrong input is a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tandem_operator.api.deployment import parse_deployment
from tandem_operator.cli import plan_table
from tandem_operator.cli.main import main

from tests.operator.builders import body
from tests.operator.performance import public_models
from tests.operator.performance.public_models import PublicModel

MODELS: dict[str, PublicModel] = next(
    value for value in vars(public_models).values() if isinstance(value, dict) and "Llama-3.1-8B" in value
)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name in ("Llama-3.1-8B", "Llama-3.1-70B", "DeepSeek-V3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(MODELS[name].config))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main(["plan", *map(str, arguments)])
    told = capsys.readouterr()
    return code, told.out, told.err


FLEET = ("--hardware", "h100-sxm,l40s,a100-sxm4-80gb", "--nodes", "h100-sxm=4x8,l40s=10x4")


def test_the_table_shows_candidates_reasons_and_the_choice(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(
        capsys, "--model", models / "Llama-3.1-70B", *FLEET, "--load", "5x2048/256", "--max-context", "16384"
    )
    assert (code, err) == (0, "")
    assert "Llama-3.1-70B: 70.6 B parameters, weights 131.4 GiB (16 bit), KV 320 KiB per token" in out
    assert "h100-sxm 4 x 8; l40s 10 x 4; as many nodes as wanted of a100-sxm4-80gb" in out
    for part in (
        "Prefill, cheapest first",
        "Decode, cheapest first",
        "134+5+18 of 288",
        "bandwidth",
        "per million tokens",
    ):
        assert part in out
    assert "TPOT 213 ms for a single sequence" in out, "why l40s is out"


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_terminal(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(plan_table, "PIPED_WIDTH", width)
    _, out, _ = run(capsys, "--model", models / "Llama-3.1-70B", *FLEET, "--quantization", "Auto")
    assert max(len(line) for line in out.splitlines()) <= width
    assert "…" not in out, "nothing is cut off"


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_a_ready_manifest_is_printed(models: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    code, out, err = run(
        capsys, "--model", models / "Llama-3.1-8B", *FLEET, "-o", form,
        "--uri", "hf://a/b", "--name", "chat",
    )  # fmt: skip
    assert (code, err) == (0, "")
    infd = parse_deployment(yaml.safe_load(out), strict=True)
    assert (infd.name, infd.spec.model.uri) == ("chat", "hf://a/b")
    assert infd.spec.prefill.gpus == infd.spec.decode.gpus == 1
    assert infd.spec.prefill.hardware_classes
    assert infd.spec.slo[0].ttft.base == "2s"


def test_a_plan_that_only_emulation_can_run_is_printed_as_one_that_the_api_server_takes(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "--model", models / "Llama-3.1-70B", "--hardware", "h100-sxm", "-o", "yaml")
    assert code == 0
    spec = yaml.safe_load(out)["spec"]
    assert spec["runtime"] == {"executor": "Emulated"}
    assert "uri" not in spec["model"]
    assert spec["model"]["config"]["num_hidden_layers"] == 80
    assert spec["decode"]["tensorParallel"] == spec["decode"]["gpus"] > 1
    assert "arithmetic so far" in err
    parse_deployment(yaml.safe_load(out), strict=True)


def test_a_manifest_that_is_given_keeps_what_it_says(
    models: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = body(
        model={"config": MODELS["Llama-3.1-8B"].config},
        runtime={"executor": "Emulated"},
        slo=[{"class": "fast", "ttft": {"base": "300ms", "perThousandTokens": "50ms"}, "tpot": "20ms"}],
        decode={"hardwareClasses": ["h100-sxm"], "replicas": 3, "gpus": 2},
    )
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(given))
    code, out, err = run(capsys, "-f", tmp_path / "x.yaml", *FLEET, "--load", "5x2048/256", "-o", "yaml")
    assert code == 0, err
    spec = yaml.safe_load(out)["spec"]
    assert spec["slo"] == given["spec"]["slo"]
    assert spec["decode"] == {"hardwareClasses": ["h100-sxm"], "replicas": 3, "gpus": 2, "tensorParallel": 2}


def test_what_cannot_work_ends_with_the_arithmetic_and_code_3(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--model", models / "DeepSeek-V3", "--hardware", "h100-sxm")
    assert code == 3
    assert "a replica needs 732 GiB (weights 671 + KV 11 + overhead 50) but 8 x h100-sxm offer 573 GiB" in out
    code, out, err = run(capsys, "--model", models / "DeepSeek-V3", "--hardware", "h100-sxm", "-o", "yaml")
    assert (code, out) == (3, "")
    assert "set maxContextTokens below the model's 163,840, or add nodes of a larger class" in err


def test_a_plan_that_todays_engine_cannot_run_says_so(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "--model", models / "Llama-3.1-70B", "--hardware", "h100-sxm")
    assert "arithmetic so far" in out
    code, out, _ = run(capsys, "--model", models / "Llama-3.1-70B", "--hardware", "h100-sxm", "--executor", "Torch")
    assert code == 3
    assert "1 x h100-sxm offer" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "nope"], "nope: No such file or directory"),
        (["--hardware", "h100"], "there is no hardware class 'h100'; did you mean h100-sxm"),
        (["--hardware", "zzz"], "there is no hardware class 'zzz'; known are t4, "),
        (["--nodes", "h100-sxm=4"], "give nodes x devices, such as h100-sxm=4x8"),
        (["--nodes", "h100=4x8"], "there is no hardware class 'h100'"),
        (["--nodes", "h100-sxm"], "'h100-sxm' is no KEY=VALUE"),
        (["--load", "5"], "give requests per second x prompt / answer tokens"),
        (["--load", "0x5/5"], "give requests per second x prompt / answer tokens"),
        (["--slo", "ttft=2"], "give a duration with its unit, such as 2s or 50ms"),
        (["--slo", "ttft=0s"], "give a duration with its unit"),
        (["--slo", "speed=2s"], "speed=2s is not understood; give ttft=2s,tpot=50ms"),
        (["--slo", "attainment=100"], "give attainment=50..99.9 (percent)"),
        (["--prefill", "gpus=0"], "gpus=0 is not understood"),
        (["--network", "-1"], "--network is -1; give Gbit/s above 0"),
        (["--max-context", "1"], "give at least 16 tokens"),
        (["--classes", "nope.yaml"], "nope.yaml: No such file or directory"),
        (["-f", "nope.yaml"], "nope.yaml: No such file or directory"),
    ],
)
def test_wrong_input_is_a_sentence(
    models: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    given: list[Any] = [] if "--model" in arguments else ["--model", models / "Llama-3.1-8B"]
    code, out, err = run(capsys, *given, *arguments)
    assert (code, out) == (1, "")
    assert says in err
    assert err.startswith("tandem plan: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[1]", "holds no JSON object"),
        ("{", "is no JSON"),
        ('{"weight_map": {}}', "is an index of weights; give the model's config.json"),
        ("{}", "config.json"),
    ],
)
def test_a_config_that_is_none_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, says: str
) -> None:
    (tmp_path / "config.json").write_text(content)
    code, _, err = run(capsys, "--model", tmp_path)
    assert code == 1
    assert says in err
    assert err.count("\n") == 1


def test_classes_of_ones_own_are_planned_with(models: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    own = {
        "apiVersion": "tandem.dev/v1alpha1", "kind": "HardwareClass", "metadata": {"name": "acme"},
        "spec": {
            "memory": "90Gi", "memoryBandwidth": "3000G", "flops": {"bf16": "900T"}, "devicesPerNode": 4,
            "interconnect": {"kind": "NVLink", "bandwidth": "300G", "domain": 4}, "pricePerHour": "1.5",
        },
    }  # fmt: skip
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    code, out, err = run(
        capsys, "--model", models / "Llama-3.1-8B", "--classes", tmp_path / "own.yaml", "--hardware", "acme"
    )
    assert code == 0, err
    assert "1 pod of acme TP1" in out


def test_without_a_tty_the_table_is_plain_text(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "--model", models / "Llama-3.1-8B", *FLEET)
    assert "\x1b[" not in out
