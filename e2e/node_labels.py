"""Labels of GPU nodes as labellers and clouds write them: for fake nodes here, and for unit tests of recognition."""

from __future__ import annotations


def gfd(product: str, memory_mib: int, capability: str, family: str, **more: str) -> dict[str, str]:
    """What NVIDIA's GPU Feature Discovery writes; `more` is added."""
    major, minor = capability.split(".")
    return {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.memory": str(memory_mib),
        "nvidia.com/gpu.compute.major": major,
        "nvidia.com/gpu.compute.minor": minor,
        "nvidia.com/gpu.family": family,
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/mig.strategy": "single",
        **more,
    }


def amd(prefix: str, **labels: str) -> dict[str, str]:
    """What ROCm's node labeller writes, under amd.com or beta.amd.com."""
    return {f"{prefix}/gpu.{key.replace('_', '-')}": value for key, value in labels.items()}


def gke(accelerator: str, machine: str, count: int) -> dict[str, str]:
    """What GKE writes, where no labeller of NVIDIA runs."""
    return {
        "cloud.google.com/gke-accelerator": accelerator,
        "cloud.google.com/gke-accelerator-count": str(count),
        "cloud.google.com/gke-nodepool": accelerator,
        "node.kubernetes.io/instance-type": machine,
    }


def karpenter(name: str, machine: str, count: int, memory_mib: int) -> dict[str, str]:
    """What Karpenter writes on EKS."""
    return {
        "karpenter.k8s.aws/instance-gpu-manufacturer": "nvidia",
        "karpenter.k8s.aws/instance-gpu-name": name,
        "karpenter.k8s.aws/instance-gpu-count": str(count),
        "karpenter.k8s.aws/instance-gpu-memory": str(memory_mib),
        "karpenter.sh/capacity-type": "on-demand",
        "node.kubernetes.io/instance-type": machine,
    }
