"""Every setting of the operator with its default and its reason; flags set the few that differ per install."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RenderSettings:
    """What goes into the objects of every deployment."""

    default_runtime_image: str = "tandem-runtime:0.1.0"
    """Image of pods whose spec names none; the chart passes the one of its release."""

    image_pull_policy: str = "IfNotPresent"
    """Tags are versions: pulling again brings nothing new and needs the registry at every restart."""

    termination_grace_seconds: int = 120
    """Upper bound for answers in flight to finish or to move; an idle pod is gone in a second."""

    router_grace_seconds: int = 620
    """A router cannot move its clients, so it gets what a request may take (600 s), the linger and the margin."""

    router_linger_seconds: int = 5
    """A router goes on accepting this long before its SIGTERM: kube-proxies still send it new connections until they
    have heard that it leaves. Model pods need none: routers hear from the pod itself that it drains."""

    drain_margin_seconds: int = 10
    """The runtime ends its drain this long before it would be killed, to close its connections in order."""

    startup_period_seconds: int = 2
    """How soon a pod that has loaded its model is noticed."""

    startup_limit_seconds: int = 3600
    """Large checkpoints from slow storage take tens of minutes; a kill in the middle starts over."""

    readiness_period_seconds: int = 2
    readiness_failures: int = 3
    """6 s: longer than a garbage collection or a long step, shorter than a client's patience."""

    liveness_period_seconds: int = 10
    liveness_failures: int = 6
    """One minute without an answer from the health port: the process hangs."""

    probe_timeout_seconds: int = 5
    """A busy node answers late; that is no reason to restart a model."""

    node_loss_seconds: int = 30
    """Pods of a dead node are replaced after half a minute: longer than a kubelet's restart."""

    user_id: int = 65532
    """The `nonroot` user of our images."""


@dataclass(frozen=True)
class LoopSettings:
    """Pace of the reconcile loop."""

    workers: int = 4
    """Keys worked on at the same time; each waits for the API server nearly all its time."""

    resync_seconds: float = 600.0
    """Every key is looked at this often even when no event came: a lost event costs minutes, not for ever."""

    resync_jitter: float = 0.1
    """+-10 %, so that thousands of keys do not come together."""

    backoff_base_seconds: float = 1.0
    backoff_limit_seconds: float = 300.0
    """Transient errors: 1 s, 2 s, 4 s ... 5 min, each with +-25 % jitter."""

    backoff_jitter: float = 0.25

    progress_seconds: float = 15.0
    """Look again while pods start: their events come anyway, this covers a missed one."""

    collect_seconds: float = 2.0
    """Look again while Kubernetes collects the children of a deleted namesake, a matter of seconds."""

    conflict_seconds: float = 1.0
    """Look again when somebody wrote between read and repair."""

    stuck_seconds: float = 360.0
    """A run that takes longer than this makes /healthz fail: the loop hangs. Requests end after 30 s each."""

    override_visible_seconds: float = 300.0
    """How long ReplicasOverridden stays True after a repair: long enough to be seen by a person and by a scrape."""


@dataclass(frozen=True)
class LeaseSettings:
    """Leader election by a coordination.k8s.io Lease; Kubernetes' own defaults."""

    name: str = "tandem-operator"
    duration_seconds: float = 15.0
    renew_deadline_seconds: float = 10.0
    retry_seconds: float = 2.0


@dataclass(frozen=True)
class InventorySettings:
    """Nodes, their devices, and what pods hold of them."""

    enabled: bool = True
    """Off where the operator may not read nodes: nothing is placed by hardware class then."""

    hardware_classes_file: str = ""
    """Classes to install, as the chart writes them; empty: those in the cluster are left as they are."""

    patience_seconds: float = 15.0
    """A deployment that needs devices waits this long for the first list of nodes; then it is placed without."""

    settle_seconds: float = 1.0
    """Changes are told on at this pace: a rollout of many pods is one change, and plans still follow in seconds."""

    report_seconds: float = 5.0
    """Status of hardware classes is written at most this often; metrics are exact whenever they are read."""

    watch_seconds: int = 240
    """A watch is renewed after this long, and one that is silent for longer is dead."""

    retry_seconds: float = 2.0
    retry_limit_seconds: float = 60.0
    """After an error of the API server: 2 s, 4 s ... 1 min, then all is listed anew."""

    nudge_seconds: float = 30.0
    """A device that no class claims is told about when it is still there after this long: labels and device plugins
    take a moment to come when a node is new."""


@dataclass(frozen=True)
class AdmissionSettings:
    """The validating webhook, which every instance serves."""

    name: str = ""
    """Of its Service and of the Secret with its certificate, both in the operator's namespace; empty: not served."""

    port: int = 9443

    def configuration(self, namespace: str) -> str:
        """Name of the ValidatingWebhookConfiguration; it is cluster-wide, so the operator's namespace is part of it."""
        return f"{namespace}-{self.name}"


@dataclass(frozen=True)
class Settings:
    """All of it."""

    render: RenderSettings = RenderSettings()
    loop: LoopSettings = LoopSettings()
    lease: LeaseSettings = LeaseSettings()
    inventory: InventorySettings = InventorySettings()
    admission: AdmissionSettings = AdmissionSettings()
    namespaces: tuple[str, ...] = ()
    """Watched namespaces; empty: all."""

    scope_check_seconds: float = 30.0
    """How soon it is noticed that a watched namespace came, went, or lost our rights in it."""

    telemetry_port: int = 8080
    shutdown_seconds: float = 15.0
    """For the watch streams to end; the Lease has been given back by then. Half of the pod's grace period."""

    log_level: str = "INFO"
