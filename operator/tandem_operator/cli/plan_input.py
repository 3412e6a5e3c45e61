"""What `tandem plan` is given, read into a problem; whatever is wrong becomes one sentence."""

from __future__ import annotations

import argparse
import difflib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import yaml
from tandem_runtime.contracts.durations import parse_duration

from tandem_operator.api import hardware_class as hardware_api
from tandem_operator.api import names
from tandem_operator.api.deployment import InferenceDeployment, parse_deployment
from tandem_operator.api.hardware_class import HardwareClass, parse_hardware_class
from tandem_operator.performance.config_fields import ConfigError
from tandem_operator.performance.config_reader import read_shape
from tandem_operator.performance.shape import ModelShape
from tandem_operator.placement.catalogue import bundled
from tandem_operator.placement.choose import survey
from tandem_operator.placement.offers import counted_offer, unlimited_offer
from tandem_operator.placement.problem import TORCH_ENGINE, Engine, Load, Objective, Offer, Problem, Wish
from tandem_operator.placement.question import EMULATED_ENGINE, problem_of

INDEX_NAME = "model.safetensors.index.json"


class WrongInput(ValueError):
    """One sentence for the person at the terminal."""


@dataclass(frozen=True)
class Manifest:
    """A deployment as written, and parsed."""

    body: dict[str, Any]
    infd: InferenceDeployment


@dataclass(frozen=True)
class Fleet:
    """What there is to choose from, and what a reader should know about it."""

    offers: tuple[Offer, ...]
    notes: tuple[str, ...] = field(default=())


def read_manifest(path: str) -> Manifest:
    """The first InferenceDeployment of the file."""
    for body in _documents(path):
        if isinstance(body, dict) and body.get("kind") == names.KIND:
            try:
                return Manifest(body, parse_deployment(body, strict=True))
            except ValueError as error:
                raise WrongInput(f"{path}: {error}") from error
    raise WrongInput(f"{path} holds no {names.KIND}; e2e/samples has some")


def config_of(path: str) -> dict[str, Any]:
    """config.json as it stands in the file."""
    return _json(_config_file(path))


def _config_file(path: str) -> Path:
    return Path(path) / "config.json" if Path(path).is_dir() else Path(path)


def read_model(path: str) -> ModelShape:
    """A config.json or the folder that holds it; an index of safetensors beside it tells the exact size."""
    file = _config_file(path)
    config, index = _json(file), file.parent / INDEX_NAME
    if "weight_map" in config:
        raise WrongInput(f"{file} is an index of weights; give the model's config.json, the index is found beside it")
    try:
        return read_shape(config, _json(index) if index.exists() else None, name=_model_name(file, config))
    except ConfigError as error:
        raise WrongInput(f"{file}: {error}") from error


def read_fleet(options: argparse.Namespace) -> Fleet:
    """Bundled classes and those of --classes; as many nodes as --nodes says, without it as many as one could want."""
    known = {**bundled(), **_own_classes(options.classes)}
    counted = {name: _nodes(name, text, known) for name, text in _pairs(options.nodes, "--nodes").items()}
    wanted = [part for part in options.hardware.split(",") if part] if options.hardware else list(counted)
    notes: list[str] = []
    if not wanted:
        wanted = [name for name, one in known.items() if one.spec.price_per_hour]
        left = len(known) - len(wanted)
        notes.append(
            f"all {len(wanted)} classes with a price; {left} without one are left out: name them in --hardware"
        )
    for name in (*wanted, *counted):
        _class(name, known)
    try:
        offers = tuple(
            counted_offer(known[name], counted[name]) if name in counted else unlimited_offer(known[name])
            for name in dict.fromkeys((*wanted, *counted))
        )
    except ValueError as error:
        raise WrongInput(str(error)) from error
    unpriced = [offer.name for offer in offers if offer.hardware.price_per_hour is None]
    if unpriced:
        how = (
            "devices are counted instead"
            if len(unpriced) == len(offers)
            else "taken as dear as the dearest of its speed"
        )
        notes.append(f"no price is known of {', '.join(unpriced)}: {how}")
    return Fleet(offers, tuple(notes))


def read_cluster(source: Manifest | None) -> Fleet:
    """Nodes and classes of the cluster of $KUBECONFIG."""
    from tandem_operator.cli.plan_cluster import ClusterUnread, cluster_fleet  # the client takes a second to import

    try:
        offers, notes = cluster_fleet(source.infd if source else None)
    except ClusterUnread as error:
        raise WrongInput(str(error)) from error
    return Fleet(offers, notes)


def read_problem(options: argparse.Namespace, source: Manifest | None, fleet: Fleet) -> Problem:
    """Flags go before the manifest."""
    load, shape = _load(options.load), _shape(options, source)
    offers = fleet.offers if options.network is None else _with_network(fleet.offers, options.network)
    if source:
        problem = problem_of(source.infd.spec, shape, offers, load)
    else:
        problem = Problem(shape=shape, offers=offers, load=load)
    changes: dict[str, Any] = {}
    if source and load.requests_per_s:  # replicas follow the load, except where they are written down
        for role in names.POOL_ROLES:
            fixed = (source.body["spec"].get(role) or {}).get("replicas")
            changes[role] = msgspec.structs.replace(getattr(problem, role), replicas=fixed)
    if options.slo:
        changes["objective"] = _objective(options.slo, problem.objective)
    if options.max_context is not None:
        if options.max_context < 16:
            raise WrongInput(f"--max-context is {options.max_context}; give at least 16 tokens")
        changes["max_context_tokens"] = options.max_context
    if options.quantization:
        changes["quantization"] = options.quantization
    if options.executor or not source:
        engines = {"Torch": TORCH_ENGINE, "Emulated": EMULATED_ENGINE}
        changes["engine"] = engines.get(options.executor, Engine())
    for role in names.POOL_ROLES:
        if text := getattr(options, role):
            changes[role] = _wish(role, text)
    return msgspec.structs.replace(problem, **changes)


def for_a_manifest(problem: Problem) -> Problem:
    """Of any engine, those of this version: Torch if it can do it, else Emulated."""
    if problem.engine != Engine():
        return problem
    real = msgspec.structs.replace(problem, engine=TORCH_ENGINE)
    return real if survey(real).taken else msgspec.structs.replace(problem, engine=EMULATED_ENGINE)


def _with_network(offers: tuple[Offer, ...], gbits: float) -> tuple[Offer, ...]:
    if gbits <= 0:
        raise WrongInput(f"--network is {gbits:g}; give Gbit/s above 0, such as 400")
    change = msgspec.structs.replace
    rate = gbits * 1e9 / 8
    return tuple(change(one, hardware=change(one.hardware, network_bytes_per_s=rate)) for one in offers)


def _shape(options: argparse.Namespace, source: Manifest | None) -> ModelShape:
    if options.model:
        return read_model(options.model)
    if source and source.infd.spec.model.config:
        try:
            return read_shape(source.infd.spec.model.config, name=source.infd.model_name)
        except ConfigError as error:
            raise WrongInput(f"spec.model.config: {error}") from error
    where = f" ({source.infd.spec.model.uri})" if source and source.infd.spec.model.uri else ""
    raise WrongInput(f"the model{where} is not known: give its config.json with --model")


def _model_name(file: Path, config: dict[str, Any]) -> str:
    folder = file.resolve().parent.name
    return str(config.get("_name_or_path") or (folder if file.name == "config.json" else file.stem))


def _documents(path: str) -> list[Any]:
    try:
        return list(yaml.safe_load_all(Path(path).read_text()))
    except OSError as error:
        raise WrongInput(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise WrongInput(f"{path} is no YAML: {' '.join(str(error).split())}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise WrongInput(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise WrongInput(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise WrongInput(f"{path} holds no JSON object; give the model's config.json")
    return content


def _own_classes(path: str | None) -> dict[str, HardwareClass]:
    if not path:
        return {}
    try:
        found = [
            parse_hardware_class(body, strict=True)
            for body in _documents(path)
            if isinstance(body, dict) and body.get("kind") == hardware_api.KIND
        ]
    except ValueError as error:
        raise WrongInput(f"{path}: {error}") from error
    if not found:
        raise WrongInput(f"{path} holds no {hardware_api.KIND}")
    return {one.name: one for one in found}


def _class(name: str, known: dict[str, HardwareClass]) -> HardwareClass:
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
    raise WrongInput(f"there is no hardware class {name!r}; {hint}")


def _pairs(text: str, flag: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, separator, value = part.partition("=")
        if not separator or not value:
            raise WrongInput(f"{flag}: {part!r} is no KEY=VALUE")
        pairs[key.strip()] = value.strip()
    return pairs


def _nodes(name: str, text: str, known: dict[str, HardwareClass]) -> tuple[tuple[int, int], ...]:
    _class(name, known)
    groups = []
    for part in text.split("+"):
        found = re.fullmatch(r"(\d+)x(\d+)", part)
        if not found or int(found[2]) < 1:
            raise WrongInput(f"--nodes: {name}={text}: give nodes x devices, such as {name}=4x8 or {name}=4x8+2x4")
        groups.append((int(found[2]), int(found[1])))
    return tuple(groups)


def _load(text: str) -> Load:
    if not text:
        return Load()
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)x)?(\d+)/(\d+)", text)
    if not found or not int(found[2]) or not int(found[3]) or (found[1] and not float(found[1])):
        raise WrongInput(f"--load is {text!r}; give requests per second x prompt / answer tokens, such as 5x2048/256")
    rate = float(found[1]) if found[1] else None
    return Load(requests_per_s=rate, prompt_tokens=int(found[2]), output_tokens=int(found[3]))


def _objective(text: str, default: Objective) -> Objective:
    values: dict[str, float] = {}
    for key, value in _pairs(text, "--slo").items():
        if key in ("ttft", "tpot"):
            values[f"{key}_s"] = _seconds(f"--slo: {key}", value)
        elif key == "attainment" and re.fullmatch(r"\d{2}(\.\d+)?", value) and 50 <= float(value) < 100:
            values["attainment"] = float(value) / 100
        else:
            wanted = "attainment=50..99.9 (percent)" if key == "attainment" else "ttft=2s,tpot=50ms,attainment=99"
            raise WrongInput(f"--slo: {key}={value} is not understood; give {wanted}")
    return msgspec.structs.replace(default, **values)


def _seconds(where: str, text: str) -> float:
    try:
        seconds = parse_duration(text)
    except argparse.ArgumentTypeError:
        seconds = 0.0
    if seconds <= 0 or text.replace(".", "").isdigit():
        raise WrongInput(f"{where} is {text!r}; give a duration with its unit, such as 2s or 50ms")
    return seconds


def _wish(role: str, text: str) -> Wish:
    values: dict[str, Any] = {}
    fields = {"gpus": "gpus", "tp": "tensor_parallel", "replicas": "replicas"}
    for key, value in _pairs(text, f"--{role}").items():
        if key == "class":
            values["hardware_classes"] = tuple(value.split("+"))
        elif key in fields and value.isdigit() and int(value) > 0:
            values[fields[key]] = int(value)
        else:
            _refuse_wish(role, key, value)
    return Wish(**values)


def _refuse_wish(role: str, key: str, value: str) -> NoReturn:
    raise WrongInput(f"--{role}: {key}={value} is not understood; give class=h100-sxm+h200-sxm,gpus=2,tp=2,replicas=3")
