"""What a placement asks of the scheduler, and that the user's template still has the last word."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from tandem_operator.api import names
from tandem_operator.api.deployment import parse_deployment
from tandem_operator.config import RenderSettings
from tandem_operator.render.hardware import Hardware
from tandem_operator.render.objects import render
from tandem_operator.render.placement import LABEL_QUEUE, PoolPlacement

from tests.operator.builders import body, deployment, emulated_body
from tests.operator.pod_security import violations


def term(*values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": "nvidia.com/gpu.product", "operator": "In", "values": list(values)}]}


H100 = (term("NVIDIA-H100-80GB-HBM3"),)
H200 = (term("NVIDIA-H200"), {"matchExpressions": [{"key": "instance", "operator": "In", "values": ["p5en"]}]})
BOTH = PoolPlacement("nvidia.com/gpu", 4, (H200, H100))


def pod_of(infd: Any, role: str = "decode", **hardware: Any) -> dict[str, Any]:
    chosen = Hardware(**{"placements": {"prefill": BOTH, "decode": BOTH}, **hardware})
    objects = render(infd, "0123abcd", "image:1", RenderSettings(), hardware=chosen)
    found = next(o for o in objects if o["metadata"]["name"] == f"{infd.name}-{role}-0123abcd")
    template: dict[str, Any] = found["spec"]["template"]
    return template


def test_nodes_are_matched_by_exact_values_and_the_first_class_is_preferred() -> None:
    affinity = pod_of(deployment())["spec"]["affinity"]["nodeAffinity"]
    required = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert required == [*H200, *H100], "any of them will do"
    weights = {
        str(one["preference"]): one["weight"] for one in affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    }
    assert weights[str(H200[0])] == weights[str(H200[1])] == 100 > weights[str(H100[0])] >= 1
    assert {e["operator"] for t in required for e in t["matchExpressions"]} == {"In"}


def test_a_single_class_needs_no_preference() -> None:
    one = PoolPlacement("nvidia.com/gpu", 1, (H100,))
    affinity = pod_of(deployment(), placements={"decode": one})["spec"]["affinity"]["nodeAffinity"]
    assert list(affinity) == ["requiredDuringSchedulingIgnoredDuringExecution"]


def test_devices_are_requested_by_the_runtime_container_alone_beside_what_the_user_set() -> None:
    spec = pod_of(deployment(decode={"resources": {"limits": {"cpu": "2"}}}))["spec"]
    assert spec["containers"][0]["resources"] == {
        "limits": {"cpu": "2", "nvidia.com/gpu": "4"},
        "requests": {"cpu": "2", "nvidia.com/gpu": "4"},
    }
    assert "nvidia.com/gpu" not in spec["initContainers"][0]["resources"].get("limits", {})


def test_only_the_taint_of_the_resource_is_tolerated() -> None:
    keys = [item["key"] for item in pod_of(deployment())["spec"]["tolerations"]]
    assert keys == ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable", "nvidia.com/gpu"]


def test_the_scheduler_binds_and_pods_spread_when_they_can() -> None:
    spec = pod_of(deployment())["spec"]
    assert "nodeName" not in spec
    spread = spec["topologySpreadConstraints"]
    assert [one["whenUnsatisfiable"] for one in spread] == ["ScheduleAnyway"]
    assert spread[0]["labelSelector"]["matchLabels"]["tandem.dev/role"] == "decode"


def test_the_pools_want_one_zone_and_one_nvlink_clique_where_there_is_one() -> None:
    def keys(placement: PoolPlacement) -> list[str]:
        pod = pod_of(deployment(), placements={"decode": placement})
        near = pod["spec"]["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
        roles = {one["podAffinityTerm"]["labelSelector"]["matchLabels"]["tandem.dev/role"] for one in near}
        assert roles == {"prefill"}
        return [one["podAffinityTerm"]["topologyKey"] for one in near]

    assert keys(BOTH) == ["topology.kubernetes.io/zone"]
    rack = PoolPlacement("nvidia.com/gpu", 4, (H100,), shares_clique=True)
    assert keys(rack) == ["nvidia.com/gpu.clique", "topology.kubernetes.io/zone"]


def test_the_users_template_is_merged_over_the_placement() -> None:
    override = {
        "spec": {
            "tolerations": [{"key": "team", "operator": "Exists"}],
            "affinity": {"podAffinity": None},
            "topologySpreadConstraints": [{"topologyKey": "kubernetes.io/hostname", "maxSkew": 5}],
            "runtimeClassName": "nvidia",
        }
    }
    spec = pod_of(deployment(decode={"template": override}))["spec"]
    assert spec["tolerations"][0]["key"] == "team"
    assert "nvidia.com/gpu" in [item["key"] for item in spec["tolerations"]]
    assert list(spec["affinity"]) == ["nodeAffinity"]
    assert spec["topologySpreadConstraints"][0]["maxSkew"] == 5
    assert spec["runtimeClassName"] == "nvidia"


def test_without_a_placement_pods_are_what_they_were() -> None:
    spec = pod_of(deployment(), placements={})["spec"]
    assert "affinity" not in spec
    assert "topologySpreadConstraints" not in spec
    assert spec["containers"][0]["resources"] == {}


def test_a_placed_pod_is_still_restricted() -> None:
    assert list(violations(pod_of(deployment())["spec"])) == []


def test_the_queue_of_kueue_is_passed_on_to_the_pools_and_not_to_the_router() -> None:
    named = body()
    named["metadata"]["labels"] = {LABEL_QUEUE: "team-a", "other": "label"}
    objects = render(parse_deployment(named), "0123abcd", "image:1", RenderSettings())
    queues = {}
    for found in (one for one in objects if one["kind"] == "Deployment"):
        pod = found["spec"]["template"]
        queues[found["metadata"]["name"]] = tuple(o["metadata"]["labels"].get(LABEL_QUEUE) for o in (found, pod))
    assert queues == {
        "chat-prefill-0123abcd": ("team-a", "team-a"),
        "chat-decode-0123abcd": ("team-a", "team-a"),
        "chat-router": (None, None),
    }
    assert not any("other" in o["metadata"]["labels"] for o in objects)


def test_emulated_pods_take_the_speed_that_placement_predicts() -> None:
    infd = parse_deployment(emulated_body())
    chosen = Hardware(coefficients={"prefill": "{1}", "decode": "{2}"})
    objects = {o["metadata"]["name"]: o for o in render(infd, "0123abcd", "image:1", RenderSettings(), hardware=chosen)}
    assert objects[names.coefficients_name("fleet")]["data"] == {"prefill.json": "{1}", "decode.json": "{2}"}
    container = objects["fleet-decode-0123abcd"]["spec"]["template"]["spec"]["containers"][0]
    arguments = container["args"]
    assert arguments[arguments.index("--coefficients") + 1] == "/etc/tandem/coefficients/decode.json"
    assert {"name": "coefficients", "mountPath": "/etc/tandem/coefficients", "readOnly": True} in container[
        "volumeMounts"
    ]


def test_int8_weights_of_executor_torch_are_a_flag_of_both_pools_and_part_of_the_revision() -> None:
    plain, int8 = deployment(), deployment(model={"uri": "file:///models/tiny", "quantization": "Int8Dynamic"})
    assert int8.revision_inputs("image:1") == plain.revision_inputs("image:1") | {"quantization": "Int8Dynamic"}
    for infd, want in ((plain, []), (int8, ["int8-dynamic"])):
        objects = {o["metadata"]["name"]: o for o in render(infd, "0123abcd", "image:1", RenderSettings())}
        for role in ("prefill", "decode"):
            arguments = objects[f"chat-{role}-0123abcd"]["spec"]["template"]["spec"]["containers"][0]["args"]
            given = [after for flag, after in pairwise(arguments) if flag == "--quantization"]
            assert given == want


def test_a_quantisation_in_use_is_part_of_the_revision_and_none_is_not() -> None:
    infd = deployment()
    assert "quantization" not in infd.revision_inputs("image:1")
    assert infd.revision_inputs("image:1", "FP8")["quantization"] == "FP8"
