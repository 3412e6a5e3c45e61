"""What is rendered: the seams of the brief, Pod Security, and laws that hold for every spec."""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_operator.api import names
from tandem_operator.api.deployment import InferenceDeployment, parse_deployment
from tandem_operator.config import RenderSettings
from tandem_operator.render.network import token_secret
from tandem_operator.render.objects import render
from tandem_operator.render.pods import InvalidTemplate
from tandem_runtime.__main__ import COMMANDS
from tandem_runtime.contracts.classes import read_classes
from tandem_runtime.contracts.endpoints import read_endpoints
from tandem_runtime.contracts.flags import parse_speculation

from tests.operator.builders import body, deployment, emulated_body
from tests.operator.pod_security import violations

URIS = ["file:///models/tiny", "hf://org/repo@main", "https://host/folder/", "pvc://claim/a/b"]

specs = st.fixed_dictionaries(
    {},
    optional={
        "prefill": st.fixed_dictionaries({"replicas": st.integers(1, 50)}),
        "decode": st.fixed_dictionaries(
            {"resources": st.fixed_dictionaries({"limits": st.fixed_dictionaries({"cpu": st.sampled_from(["1", 2])})})}
        ),
        "router": st.fixed_dictionaries({"waitForPods": st.sampled_from(["1s", "2m", "1h30m"])}),
    },
)
models = st.fixed_dictionaries(
    {"uri": st.sampled_from(URIS)}, optional={"maxContextTokens": st.integers(16, 4096), "name": st.just("org/model")}
)


def all_objects(infd: InferenceDeployment, revision: str = "0123abcd") -> list[dict[str, Any]]:
    return render(infd, revision, "image:1", RenderSettings())


def by_name(infd: InferenceDeployment) -> dict[str, dict[str, Any]]:
    return {f"{o['kind']}/{o['metadata']['name']}": o for o in all_objects(infd)}


def pods(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [o["spec"]["template"]["spec"] for o in objects if o["kind"] == "Deployment"]


def parse_command_line(arguments: list[str]) -> argparse.Namespace:
    """With the runtime's own parser, which exits at a flag or value that it does not take."""
    parser = argparse.ArgumentParser()
    role = parser.add_subparsers(dest="role").add_parser(arguments[0])
    importlib.import_module(COMMANDS[arguments[0]].module).add_arguments(role)
    return parser.parse_args(arguments)


def options(arguments: list[str]) -> dict[str, str]:
    return {flag: value for flag, value in itertools.pairwise(arguments) if flag.startswith("--")}


def test_the_children_are_those_of_the_contract() -> None:
    assert list(by_name(deployment())) == [
        "ConfigMap/chat-endpoints",
        "Service/chat",
        "Service/chat-prefill",
        "Service/chat-decode",
        "Deployment/chat-prefill-0123abcd",
        "Deployment/chat-decode-0123abcd",
        "Deployment/chat-router",
    ]


@settings(max_examples=25, deadline=None)
@given(specs, models)
def test_every_rendered_pod_is_restricted_and_every_flag_is_documented(
    spec: dict[str, Any], model: dict[str, Any]
) -> None:
    for pod in pods(all_objects(deployment(**spec, model=model))):
        assert list(violations(pod)) == []
        assert pod["automountServiceAccountToken"] is False
        for container in [*pod["containers"], *pod["initContainers"]]:
            assert container["command"] == ["tandem-runtime"]
            assert parse_command_line(container["args"]).role == container["args"][0]


@settings(max_examples=25, deadline=None)
@given(specs, models, specs, models)
def test_selectors_never_change_and_select_the_pods(
    one: dict[str, Any], model: dict[str, Any], other: dict[str, Any], other_model: dict[str, Any]
) -> None:
    before = by_name(deployment(**one, model=model))
    after = by_name(deployment(**other, model=other_model))
    for name, rendered in before.items():
        if "selector" not in rendered.get("spec", {}):
            continue
        assert rendered["spec"]["selector"] == after[name]["spec"]["selector"]
    for role in names.ROLES:
        service = before["Service/chat" if role == "router" else f"Service/chat-{role}"]
        workload = before[
            f"Deployment/{names.router_name('chat')}" if role == "router" else f"Deployment/chat-{role}-0123abcd"
        ]
        labels = workload["spec"]["template"]["metadata"]["labels"].items()
        assert service["spec"]["selector"].items() <= labels
        assert workload["spec"]["selector"]["matchLabels"].items() <= labels


@settings(max_examples=30, deadline=None)
@given(specs, models)
def test_rendering_twice_gives_the_same_and_plain_json(spec: dict[str, Any], model: dict[str, Any]) -> None:
    infd = deployment(**spec, model=model)
    assert all_objects(infd) == all_objects(infd)
    assert json.loads(json.dumps(all_objects(infd))) == all_objects(infd)


def test_every_child_belongs_to_its_deployment_and_is_collected_with_it() -> None:
    for rendered in [*all_objects(deployment()), token_secret(deployment(), "t", "p")]:
        (owner,) = rendered["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("uid-of-chat", True, False)
        assert rendered["metadata"]["labels"]["tandem.dev/deployment"] == "chat"


def test_a_prefill_pod_gets_the_command_line_of_the_contract() -> None:
    pod = by_name(deployment())["Deployment/chat-prefill-0123abcd"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["args"] == [
        "prefill", "--model", "/models/tiny", "--executor", "torch", "--pod-name", "$(POD_NAME)",
        "--address", "$(POD_IP)",
        "--revision", "0123abcd", "--token-file", "/etc/tandem/token/token",
        "--internal-port", "8001", "--kv-port", "8002", "--metrics-port", "9090",
        "--drain-timeout", "110s", "--prefill-peer", "chat-prefill:8002",
    ]  # fmt: skip
    ports = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
    assert ports == {"internal": 8001, "kv": 8002, "metrics": 9090}


def test_a_decode_pod_knows_where_prefill_pods_are_found() -> None:
    pod = by_name(deployment())["Deployment/chat-decode-0123abcd"]["spec"]["template"]["spec"]
    assert options(pod["containers"][0]["args"])["--prefill-peer"] == "chat-prefill:8002"


def test_speculation_is_a_flag_of_decode_pods_and_starts_no_new_revision() -> None:
    plain, asked = deployment(), deployment(runtime={"speculation": {}})
    assert plain.revision_inputs("image") == asked.revision_inputs("image")
    for infd, want in (
        (plain, None),
        (asked, "ngram:7"),
        (deployment(runtime={"speculation": {"method": "NGram", "draftTokens": 12}}), "ngram:12"),
    ):
        made = by_name(infd)
        prefill, decode = (
            options(made[f"Deployment/chat-{role}-0123abcd"]["spec"]["template"]["spec"]["containers"][0]["args"])
            for role in ("prefill", "decode")
        )
        assert decode.get("--speculate") == want
        assert "--speculate" not in prefill, "it never decodes"
        if want:
            assert parse_speculation(want) == int(want.partition(":")[2])


@pytest.mark.parametrize("wrong", [{"draftTokens": 0}, {"draftTokens": 32}, {"method": "Draft"}])
def test_speculation_that_no_pod_would_take_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="speculation"):
        deployment(runtime={"speculation": wrong})


def test_an_emulated_deployment_has_no_model_folder_and_nothing_to_fetch() -> None:
    for pod in pods(all_objects(parse_deployment(emulated_body()))):
        assert "initContainers" not in pod
        assert "--model" not in pod["containers"][0]["args"]
    decode = by_name(parse_deployment(emulated_body()))["Deployment/fleet-decode-0123abcd"]
    given = options(decode["spec"]["template"]["spec"]["containers"][0]["args"])
    assert (given["--executor"], given["--coefficients"]) == ("emulated", "laptop")


@pytest.mark.parametrize(
    ("uri", "path", "fetched", "volume"),
    [
        ("file:///models/tiny", "/models/tiny", "file:///models/tiny", None),
        ("hf://org/repo", "/models-cache/model", "hf://org/repo", "emptyDir"),
        ("https://host/f/", "/models-cache/model", "https://host/f/", "emptyDir"),
        ("pvc://claim/a/b/", "/models-claim/a/b", "file:///models-claim/a/b", "persistentVolumeClaim"),
        ("pvc://claim", "/models-claim", "file:///models-claim", "persistentVolumeClaim"),
    ],
)
def test_the_model_is_brought_or_mounted_read_only(uri: str, path: str, fetched: str, volume: str | None) -> None:
    objects = by_name(deployment(model={"uri": uri}))
    for name in ("Deployment/chat-decode-0123abcd", "Deployment/chat-router"):
        pod = objects[name]["spec"]["template"]["spec"]
        main, fetch = pod["containers"][0], pod["initContainers"][0]
        assert options(main["args"])["--model"] == path
        assert fetch["args"][:2] == ["fetch", fetched]
        assert ("--only" in fetch["args"]) is (name == "Deployment/chat-router")
        kinds = [kind for v in pod["volumes"] if v["name"].startswith("models") for kind in v if kind != "name"]
        assert kinds == ([volume] if volume else [])
        assert all(m["readOnly"] for m in main["volumeMounts"] if m["name"].startswith("models"))


def test_threads_follow_the_cpu_limit() -> None:
    limited = deployment(decode={"resources": {"limits": {"cpu": "1500m"}}})
    env = {e["name"]: e for e in pods(all_objects(limited))[1]["containers"][0]["env"]}
    assert env["OMP_NUM_THREADS"]["valueFrom"]["resourceFieldRef"] == {"resource": "limits.cpu", "divisor": "1"}
    assert "OMP_NUM_THREADS" not in {e["name"] for e in pods(all_objects(limited))[0]["containers"][0]["env"]}


def test_the_endpoint_file_is_one_that_routers_read(tmp_path: Any) -> None:
    content = by_name(deployment())["ConfigMap/chat-endpoints"]["data"]["endpoints.json"]
    (tmp_path / "endpoints.json").write_text(content)
    read = read_endpoints(tmp_path / "endpoints.json")
    assert [(s.service, s.role) for s in read.services] == [("chat-prefill", "prefill"), ("chat-decode", "decode")]


def test_routers_know_how_many_they_are_before_a_pod_tells_them(tmp_path: Any) -> None:
    content = by_name(deployment(router={"replicas": 3}))["ConfigMap/chat-endpoints"]["data"]["endpoints.json"]
    (tmp_path / "endpoints.json").write_text(content)
    assert read_endpoints(tmp_path / "endpoints.json").routers == 3


def test_only_routers_get_the_api_keys_and_start_without_the_secret_to_say_what_is_missing() -> None:
    keyed = all_objects(deployment(router={"apiKeysSecret": {"name": "client-keys"}}))
    assert "Secret" not in {each["kind"] for each in keyed}, "it is the user's, and nobody else has to read it"
    for pod in pods(keyed):
        main = pod["containers"][0]
        mounts = {m["name"]: m for m in main["volumeMounts"]}
        volumes = {v["name"]: v for v in pod["volumes"]}
        if "router" not in main["args"]:
            assert "keys" not in mounts
            assert "keys" not in volumes
            continue
        assert options(main["args"])["--api-keys"] == mounts["keys"]["mountPath"]
        assert mounts["keys"]["readOnly"]
        assert volumes["keys"]["secret"] == {"secretName": "client-keys", "defaultMode": 0o440, "optional": True}
    open_router = by_name(deployment())["Deployment/chat-router"]["spec"]["template"]["spec"]["containers"][0]
    assert "--api-keys" not in open_router["args"]


def test_pool_services_publish_pods_that_are_not_ready_yet_of_every_revision() -> None:
    spec = by_name(deployment())["Service/chat-prefill"]["spec"]
    assert (spec["clusterIP"], spec["publishNotReadyAddresses"]) == ("None", True)
    assert spec["selector"] == {"tandem.dev/deployment": "chat", "tandem.dev/role": "prefill"}


def test_other_routers_find_the_model_pods_by_their_label() -> None:
    objects = by_name(deployment())
    labels = objects["Deployment/chat-prefill-0123abcd"]["spec"]["template"]["metadata"]["labels"]
    assert labels["llm-d.ai/role"] == "prefill"
    assert "llm-d.ai/role" not in objects["Deployment/chat-router"]["spec"]["template"]["metadata"]["labels"]


def test_a_model_pod_starts_when_it_is_ready_and_a_router_when_it_runs() -> None:
    objects = by_name(parse_deployment(body()))
    for name, path in (("Deployment/chat-decode-0123abcd", "/readyz"), ("Deployment/chat-router", "/healthz")):
        container = objects[name]["spec"]["template"]["spec"]["containers"][0]
        assert container["startupProbe"]["httpGet"]["path"] == path
        assert container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"] >= 1800


def test_the_drain_ends_before_the_grace_period() -> None:
    objects = by_name(deployment(decode={"template": {"spec": {"terminationGracePeriodSeconds": 600}}}))
    for name, want in (("decode-0123abcd", "590s"), ("prefill-0123abcd", "110s"), ("router", "605s")):
        arguments = objects[f"Deployment/chat-{name}"]["spec"]["template"]["spec"]["containers"][0]["args"]
        assert options(arguments)["--drain-timeout"] == want


@pytest.mark.parametrize("grace", [None, 0, 1, 2, 7, 30, 3600])
def test_a_router_takes_new_connections_until_everybody_knows_that_it_leaves(grace: int | None) -> None:
    spec = {} if grace is None else {"terminationGracePeriodSeconds": grace}
    objects = by_name(deployment(router={"template": {"spec": spec}}))
    pod = objects["Deployment/chat-router"]["spec"]["template"]["spec"]
    container, whole = pod["containers"][0], pod["terminationGracePeriodSeconds"]
    linger = container.get("lifecycle", {"preStop": {"sleep": {"seconds": 0}}})["preStop"]["sleep"]["seconds"]
    drain = int(options(container["args"])["--drain-timeout"].rstrip("s"))
    assert linger == min(5, whole // 2)
    assert ("lifecycle" in container) is (linger > 0), "the API server refuses a sleep of 0 s"
    assert linger + drain <= max(whole, 1)
    assert not any("lifecycle" in pod["containers"][0] for pod in pods(list(objects.values()))[:2])


@pytest.mark.parametrize("grace", ["soon", -1, 1.5])
def test_a_grace_period_that_is_no_number_of_seconds_is_refused_by_its_path(grace: object) -> None:
    with pytest.raises(InvalidTemplate, match=r"spec\.decode\.template\.spec\.terminationGracePeriodSeconds is "):
        all_objects(deployment(decode={"template": {"spec": {"terminationGracePeriodSeconds": grace}}}))


SLO = [
    {"class": "chat", "ttft": {"base": "800ms", "perThousandTokens": "60ms"}, "tpot": "50ms", "priority": 10},
    {"class": "batch", "ttft": {"base": "1m"}, "tpot": "1s", "attainmentPercent": 90},
]


def test_routers_read_the_classes_of_the_spec_and_the_first_is_the_default(tmp_path: Path) -> None:
    objects = by_name(parse_deployment(body(slo=SLO)))
    file = tmp_path / "classes.json"
    file.write_text(objects["ConfigMap/chat-endpoints"]["data"]["classes.json"])
    classes = read_classes(file)
    assert [each.name for each in classes.all] == ["chat", "batch"]
    chat, batch = classes.all
    assert (chat.ttft_bound_s(2000), chat.tpot_s, chat.attainment, chat.priority) == (0.92, 0.05, 0.99, 10)
    assert (batch.ttft_bound_s(2000), batch.tpot_s, batch.attainment, batch.priority) == (60, 1, 0.9, 0)
    router = pods([objects["Deployment/chat-router"]])[0]["containers"][0]
    read = parse_command_line(router["args"])
    assert str(read.classes) == "/etc/tandem/endpoints/classes.json"


def test_an_edited_objective_restarts_no_pod() -> None:
    before, after = (by_name(parse_deployment(body(slo=slo))) for slo in (SLO, [SLO[0] | {"tpot": "40ms"}]))
    assert before["ConfigMap/chat-endpoints"] != after["ConfigMap/chat-endpoints"]
    assert before["Deployment/chat-router"] == after["Deployment/chat-router"]
