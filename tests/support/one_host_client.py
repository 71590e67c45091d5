"""A Dask client of one training host, whose agents end at once with a result, or never end."""

from collections.abc import Callable, Iterable
from typing import Any

from flows.cluster.training_agent import AgentResult

WORKER = "tcp://10.0.0.1:40001"


class OneHostClient:
    """The part of `distributed.Client` that `train_on_hosts` uses; functions for a worker run in this process."""

    def __init__(self, result: AgentResult | None) -> None:
        self.result = result
        self.submitted: list[AgentFuture] = []
        self.cancelled: list[AgentFuture] = []

    @property
    def scheduler(self) -> "OneHostClient":
        return self

    def identity(self, n_workers: int) -> dict[str, Any]:
        return {"workers": {WORKER: {"host": "10.0.0.1", "resources": {"GPU": 1}}}}

    def sync(self, function: Callable[..., Any], **options: Any) -> Any:
        return function(**options)

    def run(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> dict[str, Any]:
        return {WORKER: function(*arguments)}

    def submit(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> "AgentFuture":
        self.submitted.append(AgentFuture(self.result))
        return self.submitted[-1]

    def cancel(self, futures: Iterable["AgentFuture"], force: bool) -> None:
        self.cancelled.extend(futures)

    def subscribe_topic(self, topic: str, handler: Callable[[Any], None]) -> None:
        pass

    def unsubscribe_topic(self, topic: str) -> None:
        pass


class AgentFuture:
    """The future of an agent: finished if there is a result."""

    def __init__(self, agent_result: AgentResult | None) -> None:
        self.agent_result = agent_result
        self.status = "pending" if agent_result is None else "finished"

    def done(self) -> bool:
        return self.agent_result is not None

    def result(self) -> AgentResult | None:
        return self.agent_result
