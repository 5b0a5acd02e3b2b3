"""The example configurations load, and show every section there is."""

from __future__ import annotations

from pathlib import Path

from federation.hub.config import HubConfig
from federation.hub.config import load_config as load_hub
from node.host.config import NodeConfig, load_config

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"


def test_the_nodes_example_loads_and_shows_every_section() -> None:
    text = (DEPLOY / "node.example.toml").read_text("utf-8")
    assert load_config(DEPLOY / "node.example.toml").site == "example-hospital"
    sections = {name for name, field in NodeConfig.model_fields.items() if hasattr(field.annotation, "model_fields")}
    assert all(f"[{name}]" in text for name in sections)


def test_the_hubs_example_loads_and_shows_every_section() -> None:
    text = (DEPLOY / "hub.example.toml").read_text("utf-8")
    assert load_hub(DEPLOY / "hub.example.toml").name == "example-hub"
    sections = {name for name, field in HubConfig.model_fields.items() if hasattr(field.annotation, "model_fields")}
    assert all(f"[{name}]" in text for name in sections)
