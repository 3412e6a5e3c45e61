"""The seam at which whatever scales plugs into the simulated fleet: the law, a rival's formula, an oracle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from tandem_operator.scaling.decision import Decision
    from tandem_operator.scaling.observation import Observation
    from tandem_operator.scaling.settings import Settings

Discipline = Literal["deadline", "fifo"]


class ScalingPolicy(Protocol):
    """Pure as the law is: the state goes in and a new one comes out; what it sees is a scraper's Observation."""

    @property
    def name(self) -> str:
        """In tables; a rival's formula is named by the formula."""

    @property
    def period_s(self) -> float:
        """Seconds between two decisions."""

    @property
    def discipline(self) -> Discipline:
        """Order of the router's queue."""

    @property
    def convertible(self) -> bool:
        """Routers let decode pods with slack compute prompts."""

    def settings(self, given: Settings) -> Settings:
        """What it decides with; records hold it, so that they alone give the decision again."""

    def initial(self, settings: Settings) -> Any:
        """State that knows nothing."""

    def decide(self, settings: Settings, state: Any, observation: Observation, now: float) -> Decision:
        """Targets for both pools."""
