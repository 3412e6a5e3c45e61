"""The other routers: how each is installed and started. Each gets an environment of its own below the cache."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

INSTALL_SECONDS: Final = 900


class PeerMissing(Exception):
    """It cannot be installed here; the message says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """`command` gets its environment's bin folder, a scratch folder, two ports and the URLs of the pods.

    Policies are the cheapest that each has, round robin, and logs are off: what is compared is the data plane.
    """

    name: str
    requirement: str
    command: Callable[[Path, Path, int, int, list[str]], list[str]]
    kind: str


def _sglang(bin_folder: Path, scratch: Path, port: int, metrics_port: int, pods: list[str]) -> list[str]:
    return [
        *(f"{bin_folder}/python", "-m", "sglang_router.launch_router", "--host", "127.0.0.1", "--port", str(port)),
        *("--worker-urls", *pods, "--policy", "round_robin", "--log-level", "error"),
        *("--max-concurrent-requests", "10000", "--prometheus-port", str(metrics_port)),
    ]


def _vllm(bin_folder: Path, scratch: Path, port: int, metrics_port: int, pods: list[str]) -> list[str]:
    return [
        *(f"{bin_folder}/vllm-router", "--host", "127.0.0.1", "--port", str(port), "--worker-urls", *pods),
        *("--policy", "round_robin", "--log-level", "error"),
        *("--max-concurrent-requests", "10000", "--prometheus-port", str(metrics_port)),
    ]


def _litellm(bin_folder: Path, scratch: Path, port: int, metrics_port: int, pods: list[str]) -> list[str]:
    entry = "- {{model_name: chat, litellm_params: {{model: hosted_vllm/chat, api_base: {url}/v1, api_key: none}}}}\n"
    config = scratch / "litellm.yaml"
    settings = "general_settings: {dangerously_permit_weak_or_unset_master_key: true}\n"  # else it does not start
    config.write_text("model_list:\n" + "".join(entry.format(url=url) for url in pods) + settings)
    return [
        *(f"{bin_folder}/litellm", "--config", str(config), "--host", "127.0.0.1", "--port", str(port)),
        *("--num_workers", "1", "--telemetry", "False"),
    ]


PEERS: Final = {
    peer.name: peer
    for peer in (
        Peer("sglang-router", "sglang-router", _sglang, "Rust"),
        Peer("vllm-router", "vllm-router", _vllm, "Rust"),
        Peer("litellm", "litellm[proxy]", _litellm, "Python"),
    )
}


def install(peer: Peer) -> Path:
    """The bin folder of its environment, made if it is not there. Raises PeerMissing."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tandem"
    folder, uv = cache / "peers" / peer.name, str(cache / "tools" / "bin" / "uv")
    done = folder / ".installed"
    if not done.exists():
        for command in (
            [uv, "venv", "--quiet", "--allow-existing", "--python", "3.11", str(folder)],
            [uv, "pip", "install", "--quiet", "--python", f"{folder}/bin/python", peer.requirement],
        ):
            try:
                subprocess.run(command, check=True, timeout=INSTALL_SECONDS, capture_output=True, text=True)
            except (OSError, subprocess.SubprocessError) as error:
                said = getattr(error, "stderr", "") or str(error)
                raise PeerMissing(f"{peer.requirement}: {str(said).strip().splitlines()[-1]}") from error
        done.touch()
    return folder / "bin"


def version(peer: Peer, bin_folder: Path) -> str:
    """What is installed."""
    name = peer.requirement.partition("[")[0]
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    return subprocess.run([f"{bin_folder}/python", "-c", code], capture_output=True, text=True).stdout.strip()
