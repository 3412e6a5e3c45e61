"""The command line: what it prints, and how it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tandem_operator.__main__ import parse_settings
from tandem_operator.api.crd import crd_text
from tandem_operator.cli.main import main
from tandem_operator.config import Settings

from tests.operator.builders import body

SAMPLES = Path(__file__).parents[3] / "e2e/samples"


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_render_prints_the_objects_of_a_sample_without_a_cluster(
    sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["render", "-f", str(sample), "--runtime-image", "image:9"]) == 0
    objects = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [o["kind"] for o in objects] == ["ConfigMap", *["Service"] * 3, *["Deployment"] * 3]
    assert objects[-1]["spec"]["template"]["spec"]["containers"][0]["image"] == "image:9"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (yaml.safe_dump(body(model={})), "spec.model.uri is required with runtime.executor Torch"),
        (yaml.safe_dump({"kind": "Pod"}), "holds a Pod that is no InferenceDeployment"),
        ("just text", "holds something that is no InferenceDeployment"),
        ("", "holds no InferenceDeployment"),
        ("a: [1", "is no YAML: while parsing a flow sequence"),
        ("kind: InferenceDeployment", "metadata.name is None; give lower-case letters"),
        ("{kind: InferenceDeployment, metadata: {name: 5}}", "metadata.name is 5; give"),
        ("{kind: InferenceDeployment, metadata: {name: Chat}}", "metadata.name is 'Chat'; give"),
        (yaml.safe_dump(body("a" * 47)), "metadata.name has 47 characters; at most 46"),
        ("{kind: InferenceDeployment, metadata: {name: x}, spec: 5}", "spec: 5 is no object with fields"),
        (yaml.safe_dump(body(prefill={"replcas": 2})), "spec.prefill.replcas: there is no such field"),
        (yaml.safe_dump(body(prefill={"replicas": 0})), "spec.prefill.replicas: Input should be greater than"),
        (yaml.safe_dump(body(runtime={"executor": "Jax"})), "spec.runtime.executor: Input should be 'Torch' or"),
        (yaml.safe_dump(body(model={"uri": "ftp://x"})), "model.uri 'ftp://x' is none of hf://"),
        (yaml.safe_dump(body(decode={"template": {"spec": {"containers": 5}}})), "spec.decode.template"),
    ],
)
def test_render_says_what_is_wrong_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, says: str
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(content)
    assert main(["render", "-f", str(path)]) == 1
    told = capsys.readouterr()
    assert says in told.err
    assert told.err.startswith("tandem render: ")
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_render_names_a_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, says in ((tmp_path / "missing", "No such file or directory"), (tmp_path, "Is a directory")):
        assert main(["render", "-f", str(path)]) == 1
        assert capsys.readouterr().err == f"tandem render: {path}: {says}\n"


def test_crd_prints_the_definition(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crd"]) == 0
    assert capsys.readouterr().out == crd_text()


def test_version_names_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("tandem 0.")


def test_flags_of_the_operator_become_settings() -> None:
    assert parse_settings([]) == Settings()
    given = parse_settings(["--default-runtime-image=x:1", "--namespace=a", "--namespace=b", "--log-level=DEBUG"])
    assert given.render.default_runtime_image == "x:1"
    assert given.namespaces == ("a", "b")
    assert given.log_level == "DEBUG"
