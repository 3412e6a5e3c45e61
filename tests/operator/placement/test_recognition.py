"""Nodes by their true labels: what each is, and why what is not whole, not certain or not known is not taken."""

from __future__ import annotations

import pytest
import yaml
from tandem_operator.api.hardware_class import node_selector_terms, parse_hardware_class
from tandem_operator.placement.catalogue import bundled, manifest
from tandem_operator.placement.labels import capability, is_device, whole_product
from tandem_operator.placement.recognition import Recognition, Recognizer
from tandem_operator.placement.template import template

from e2e.node_labels import amd, gfd
from tests.operator.placement.nodes import A100, B200, GB200, H100, L4

TYPE = "node.kubernetes.io/instance-type"
GKE = "cloud.google.com/gke-accelerator"
BUNDLED = Recognizer(bundled().values())
MIXED = {"nvidia.com/mig.strategy": "mixed"}


def ask(
    labels: dict[str, str], devices: int = 8, resource: str = "nvidia.com/gpu", by: Recognizer = BUNDLED
) -> Recognition:
    (answer,) = by.recognize(labels, {resource: devices, "cpu": 96, "vpc.amazonaws.com/efa": 32})
    return answer


@pytest.mark.parametrize(
    ("labels", "resource", "want"),
    [
        (H100, "nvidia.com/gpu", "h100-sxm"),
        (A100, "nvidia.com/gpu", "a100-sxm4-80gb"),
        (gfd("A100-SXM4-40GB", 40536, "8.0", "ampere"), "nvidia.com/gpu", "a100-sxm4-40gb"),
        (L4, "nvidia.com/gpu", "l4"),
        (gfd("Tesla-T4", 15360, "7.5", "turing"), "nvidia.com/gpu", "t4"),
        (B200, "nvidia.com/gpu", "b200-sxm"),
        (GB200, "nvidia.com/gpu", "gb200"),
        (gfd("NVIDIA-B300-SXM6-AC", 275040, "10.3", "blackwell"), "nvidia.com/gpu", "b300-sxm"),
        (gfd("NVIDIA-H100-NVL", 95830, "9.0", "hopper"), "nvidia.com/gpu", "h100-nvl"),
        (gfd("NVIDIA-GH200-480GB", 97871, "9.0", "hopper"), "nvidia.com/gpu", "gh200"),
        ({GKE: "nvidia-h100-mega-80gb"}, "nvidia.com/gpu", "h100-sxm"),
        ({GKE: "nvidia-l4"}, "nvidia.com/gpu", "l4"),
        ({"cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice"}, "google.com/tpu", "tpu-v6e"),
        ({"cloud.google.com/gke-tpu-accelerator": "tpu7x"}, "google.com/tpu", "tpu-v7x"),
        ({"karpenter.k8s.aws/instance-gpu-name": "h200"}, "nvidia.com/gpu", "h200-sxm"),
        ({"eks.amazonaws.com/instance-gpu-name": "l40s"}, "nvidia.com/gpu", "l40s"),
        (
            {"kubernetes.azure.com/accelerator": "nvidia", TYPE: "Standard_ND96amsr_A100_v4"},
            "nvidia.com/gpu",
            "a100-sxm4-80gb",
        ),
        (amd("amd.com", device_id="74a1", vram="192G", family="AI"), "amd.com/gpu", "mi300x"),
        (amd("beta.amd.com", product_name="AMD_Instinct_MI325_OAM", vram="256G"), "amd.com/gpu", "mi325x"),
        (amd("amd.com", product_name="AMD_Instinct_MI355_OAM"), "amd.com/gpu", "mi355x"),
        (amd("amd.com", device_id="74a5", compute_memory_partition="spx_nps1"), "amd.com/gpu", "mi325x"),
        ({"feature.node.kubernetes.io/pci-1200_1da3_1060.present": "true"}, "habana.ai/gaudi", "gaudi3"),
        ({"tandem.dev/hardware-class": "gaudi2"}, "habana.ai/gaudi", "gaudi2"),
        ({TYPE: "inf2.48xlarge"}, "aws.amazon.com/neuron", "inferentia2"),
        ({TYPE: "trn2.48xlarge"}, "aws.amazon.com/neuron", "trainium2"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value.values()), ""),
)  # fmt: skip
def test_a_node_is_known_by_the_labels_that_it_really_has(labels: dict[str, str], resource: str, want: str) -> None:
    answer = ask(labels, resource=resource)
    assert (answer.verdict, answer.hardware_class, answer.devices) == ("Recognized", want, 8), answer.reason


def test_ome_622_an_h100_is_not_taken_for_an_a100_of_the_same_memory() -> None:
    assert ask(H100).hardware_class == "h100-sxm"
    lying = ask({**H100, "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"})
    assert lying.verdict == "Contradicted"
    assert "compute capability 9.0 where the class has 8.0" in lying.reason
    assert "family hopper where the class is ampere" in lying.reason


def test_ome_compares_compute_capability_as_text_so_that_10_0_is_less_than_9_0_we_compare_numbers() -> None:
    blackwell = capability(B200)
    assert blackwell == (10, 0)
    assert blackwell > (9, 0)
    assert "10.0" < "9.0", "which is how Blackwell fails a constraint of at least 9.0"
    assert ask({**B200, "nvidia.com/gpu.compute.major": "010"}).hardware_class == "b200-sxm"


def test_kaito_reads_cuda_compute_major_where_gfd_writes_gpu_compute_major() -> None:
    invented = {key.replace("gpu.compute", "cuda.compute"): value for key, value in A100.items()}
    assert capability(invented) is None
    assert capability(A100) == (8, 0)


def test_wva_looks_for_amd_gpu_product_where_rocm_writes_product_name() -> None:
    assert ask(amd("amd.com", product="AMD_Instinct_MI300X_OAM"), resource="amd.com/gpu").verdict == "Unknown"
    for prefix in ("amd.com", "beta.amd.com"):
        labels = amd(prefix, product_name="AMD_Instinct_MI300X_OAM")
        assert ask(labels, resource="amd.com/gpu").hardware_class == "mi300x"


def test_the_invented_product_of_several_projects_tests_is_no_class() -> None:
    answer = ask(gfd("NVIDIA-H100-SXM5-80GB", 81559, "9.0", "hopper"))
    assert answer.verdict == "Unknown"
    assert "NVIDIA-H100-SXM5-80GB" in answer.reason


def test_an_a10g_has_half_the_arithmetic_of_an_a10_and_is_another_class() -> None:
    assert ask(gfd("NVIDIA-A10G", 23028, "8.6", "ampere")).hardware_class == "a10g"
    assert ask(gfd("NVIDIA-A10", 23028, "8.6", "ampere")).hardware_class == "a10"


def test_a_v100_of_gke_has_16_gb_and_is_not_taken_for_one_of_32() -> None:
    assert ask({GKE: "nvidia-tesla-v100"}).verdict == "Unknown"


def test_a_twin_with_another_memory_is_not_taken_and_the_numbers_are_told() -> None:
    answer = ask(gfd("NVIDIA-GH200-480GB", 147500, "9.0", "hopper"))
    assert answer.verdict == "Contradicted"
    assert "147500 Mi where the class has 97871 Mi" in answer.reason
    assert "tandem.dev/hardware-class" in answer.reason


@pytest.mark.parametrize(
    ("percent", "verdict"), [(-9, "Recognized"), (9, "Recognized"), (11, "Contradicted"), (-11, "Contradicted")]
)
def test_drivers_keep_a_few_percent_of_memory_and_that_is_no_contradiction(percent: int, verdict: str) -> None:
    labels = {**H100, "nvidia.com/gpu.memory": str(81559 * (100 + percent) // 100)}
    assert ask(labels).verdict == verdict


@pytest.mark.parametrize(
    ("labels", "verdict"),
    [
        (gfd("NVIDIA-A100-SXM4-80GB-SHARED", 81920, "8.0", "ampere"), "Shared"),
        ({**A100, "nvidia.com/gpu.replicas": "4"}, "Shared"),
        ({**A100, "nvidia.com/gpu.sharing-strategy": "mps"}, "Shared"),
        (gfd("NVIDIA-A100-SXM4-80GB-MIG-3g.40gb", 40192, "8.0", "ampere"), "Partitioned"),
        (gfd("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb-SHARED", 9728, "8.0", "ampere"), "Shared"),
        (
            {GKE: "nvidia-a100-80gb", "cloud.google.com/gke-gpu-partition-size": "1g.10gb"},
            "Partitioned",
        ),
    ],
    ids=["suffix", "replicas", "mps", "mig", "shared-mig", "gke-partition"],
)  # fmt: skip
def test_devices_that_are_shared_or_partitioned_are_not_taken_for_whole_ones(
    labels: dict[str, str], verdict: str
) -> None:
    answer = ask(labels)
    assert (answer.verdict, answer.hardware_class) == (verdict, "a100-sxm4-80gb")
    assert "a HardwareClass with the memory of the part" in answer.reason


def test_cdna_in_partitions_is_not_taken_for_whole_devices() -> None:
    labels = amd("amd.com", device_id="74a1", compute_memory_partition="cpx_nps4")
    assert ask(labels, 64, "amd.com/gpu").verdict == "Partitioned"


def test_a_class_that_names_the_slice_is_asking_for_it() -> None:
    slice_class = dict(bundled()) | {
        "a100-half": parse_hardware_class(
            {
                "metadata": {"name": "a100-half"},
                "spec": {
                    "match": [{"label": "nvidia.com/gpu.product", "values": ["NVIDIA-A100-SXM4-80GB-MIG-3g.40gb"]}],
                    "memory": "40192Mi",
                    "memoryBandwidth": "1000G",
                    "flops": {"bf16": "133T"},
                    "interconnect": {"bandwidth": "32G"},
                },
            }
        )
    }
    answer = ask(gfd("NVIDIA-A100-SXM4-80GB-MIG-3g.40gb", 40192, "8.0", "ampere"), by=Recognizer(slice_class.values()))
    assert (answer.verdict, answer.hardware_class) == ("Recognized", "a100-half")


def test_mig_slices_beside_whole_devices_are_told_apart_by_their_resource() -> None:
    answers = BUNDLED.recognize({**A100, **MIXED}, {"nvidia.com/gpu": 6, "nvidia.com/mig-1g.10gb": 14})
    found = {answer.resource: (answer.verdict, answer.devices) for answer in answers}
    assert found == {"nvidia.com/gpu": ("Recognized", 6), "nvidia.com/mig-1g.10gb": ("Partitioned", 14)}


def test_an_instance_type_says_nothing_where_the_driver_spoke() -> None:
    labels = gfd("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", 9984, "9.0", "hopper")
    assert ask({**labels, TYPE: "p5.48xlarge"}).verdict == "Partitioned"
    assert ask({TYPE: "p5.48xlarge"}).hardware_class == "h100-sxm"


def test_a_node_labelled_by_hand_is_what_its_owner_says() -> None:
    assert ask({**H100, "tandem.dev/hardware-class": "h100-pcie"}).hardware_class == "h100-pcie"


def test_a_node_without_devices_is_nothing_and_one_whose_plugin_starts_has_none_yet() -> None:
    assert BUNDLED.recognize({"kubernetes.io/arch": "amd64"}, {"cpu": 64}) == ()
    (starting,) = BUNDLED.recognize(H100, {"cpu": 64})
    assert (starting.hardware_class, starting.devices) == ("h100-sxm", 0)


@pytest.mark.parametrize("resource", ["aws.amazon.com/neuroncore", "amd.com/nic", "nvidia.com/hostdev", "cpu"])
def test_what_is_no_accelerator_is_not_reported_as_an_unknown_one(resource: str) -> None:
    assert not is_device(resource)


@pytest.mark.parametrize(
    ("product", "whole"),
    [
        ("NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-80GB-HBM3"),
        ("NVIDIA-H100-80GB-HBM3-SHARED", "NVIDIA-H100-80GB-HBM3"),
        ("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", "NVIDIA-H100-80GB-HBM3"),
        ("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb.me", "NVIDIA-H100-80GB-HBM3"),
        ("NVIDIA-H100-80GB-HBM3-MIG-2g.20gb-SHARED", "NVIDIA-H100-80GB-HBM3"),
    ],
)
def test_suffixes_are_stripped(product: str, whole: str) -> None:
    assert whole_product(product) == whole


def test_an_unknown_gpu_gets_a_template_with_all_that_its_node_says() -> None:
    labels = gfd("NVIDIA-H20", 97871, "9.0", "hopper")
    assert ask(labels).verdict == "Unknown"
    text = template(labels, "nvidia.com/gpu", 8)
    assert len(text) < 900, "it must fit an Event beside its sentence"
    body = yaml.safe_load(text)
    assert body["metadata"]["name"] == "h20"
    filled = parse_hardware_class(body, strict=True)
    assert (filled.spec.memory, filled.spec.devices_per_node) == ("97871Mi", 8)
    assert filled.spec.limits.compute_capability == "9.0"
    assert ask(labels, by=Recognizer([filled])).hardware_class == "h20"


def test_a_device_that_says_nothing_of_itself_gets_a_template_for_the_label_set_by_hand() -> None:
    body = yaml.safe_load(template({}, "habana.ai/gaudi", 8))
    assert body["spec"]["match"][0]["label"] == "tandem.dev/hardware-class"
    assert parse_hardware_class(body, strict=True).spec.resource_name == "habana.ai/gaudi"


def holds(term: dict[str, list[dict[str, object]]], labels: dict[str, str]) -> bool:
    """What the scheduler does with a nodeSelectorTerm."""
    return all(
        labels.get(str(one["key"])) in one["values"] if one["operator"] == "In" else one["key"] not in labels  # type: ignore[operator]
        for one in term["matchExpressions"]
    )


@pytest.mark.parametrize("labels", [
    H100, A100, L4, GB200, {GKE: "nvidia-l4"},
    {GKE: "nvidia-l4", "cloud.google.com/gke-gpu-sharing-strategy": "time-sharing"},
    gfd("NVIDIA-A100-SXM4-80GB-SHARED", 81920, "8.0", "ampere"),
    {**gfd("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", 9984, "9.0", "hopper"), TYPE: "p5.48xlarge"},
    {TYPE: "p5.48xlarge", "karpenter.k8s.aws/instance-gpu-name": "h100"},
    {**H100, "tandem.dev/hardware-class": "h100-pcie"},
])  # fmt: skip
def test_the_scheduler_is_asked_for_just_the_nodes_that_are_recognised(labels: dict[str, str]) -> None:
    want = ask(labels)
    for name, source in bundled().items():
        if source.spec.resource_name == "nvidia.com/gpu":
            lets = any(holds(term, labels) for term in node_selector_terms(source))
            assert lets == (want.recognized and want.hardware_class == name), name


def test_every_value_that_reaches_the_scheduler_is_exact() -> None:
    for name in bundled():
        for term in node_selector_terms(bundled()[name]):
            first, *others = term["matchExpressions"]
            assert first["operator"] == "In"
            assert not any("*" in value for value in first["values"])
            assert {one["operator"] for one in others} <= {"DoesNotExist"}


def test_classes_that_claim_the_same_node_are_ranked_by_how_telling_the_label_is_then_by_name() -> None:
    entry = {**manifest("x", {})["spec"], "memory": "80Gi", "memoryBandwidth": "1T", "flops": {"bf16": "1T"}}
    entry["interconnect"] = {"bandwidth": "1G"}
    by_type = {"label": TYPE, "values": ["p5.48xlarge"]}
    one = parse_hardware_class(
        {"metadata": {"name": "a"}, "spec": {**entry, "match": [{"label": "x", "values": ["y"]}, by_type]}}
    )
    two = parse_hardware_class({"metadata": {"name": "b"}, "spec": {**entry, "match": [by_type]}})
    labels = {TYPE: "p5.48xlarge"}
    assert ask(labels, by=Recognizer([one, two])).hardware_class == "b"
    assert ask({**labels, "x": "y"}, by=Recognizer([one, two])).hardware_class == "a"
