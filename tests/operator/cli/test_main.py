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


def test_render_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.yaml"
    for content, says in ((body(model={}), "spec.model.uri is required"), ({"kind": "Pod"}, "no InferenceDeployment")):
        path.write_text(yaml.safe_dump(content))
        assert main(["render", "-f", str(path)]) == 1
        assert says in capsys.readouterr().err
    assert main(["render", "-f", str(tmp_path / "missing")]) == 1


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
