"""``Metrics``: what a server counts and measures, for Prometheus."""

from __future__ import annotations

import os
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from revgen.serve.engine import Engine

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The variable with the directory in which several processes collect their numbers."""
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """The metrics of one application."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self.registry = registry = CollectorRegistry()
        self.engines = engines
        self.requests = Counter("revgen_requests", "Requests by path and status", ["path", "status"], registry=registry)
        self.seconds = self._histogram("revgen_request_seconds", "Time from a request to the end of its response")
        self.first_token = self._histogram("revgen_first_token_seconds", "Time from a request to its first token")
        self.prompt_tokens = Counter("revgen_prompt_tokens", "Tokens of prompts", ["model"], registry=registry)
        self.generated_tokens = Counter("revgen_generated_tokens", "Generated tokens", ["model"], registry=registry)
        self.running = self._gauge("revgen_running_requests", "Requests whose texts are generated")
        self.waiting = self._gauge("revgen_waiting_requests", "Requests in the queue")

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, buckets=SECONDS, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, ["model"], registry=self.registry, multiprocess_mode="livesum")

    def count_tokens(self, model: str, usage: Mapping[str, int]) -> None:
        """Add the tokens of a completion, as its usage reports them."""
        self.prompt_tokens.labels(model).inc(usage["prompt_tokens"])
        self.generated_tokens.labels(model).inc(usage["completion_tokens"])

    def render(self) -> bytes:
        """Return all metrics in Prometheus's text format, of all processes of the server."""
        for name, engine in self.engines.items():
            self.running.labels(name).set(engine.num_running)
            self.waiting.labels(name).set(engine.num_waiting)
        if DIRECTORY not in os.environ:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
