"""The undocumented parts of flwr 1.42.0 that the two adapters rest on. A new flwr fails here first, by name."""

from __future__ import annotations

import importlib
import inspect
from importlib.metadata import version

import httpx
import numpy as np
import pytest

SURFACE = {
    "flwr.app": "Array ArrayRecord ConfigRecord Context Error Message Metadata MetricRecord RecordDict",
    "flwr.app.message": "make_message",
    "flwr.common.constant": "ErrorCode SUPERLINK_NODE_ID",
    "flwr.common.serde": "context_from_proto message_to_proto run_from_proto",
    "flwr.common.serde_utils": "metadata_from_proto metadata_to_proto",
    "flwr.proto.recorddict_pb2": "ConfigRecord MetricRecord",
    "flwr.serverapp": "Grid ServerApp",
    "flwr.serverapp.strategy": "FedAvg",
    "flwr.supercore.constant": "HEAD_BODY_DIVIDER HEAD_VALUE_DIVIDER TaskType",
    "flwr.supercore.control.control_http_client": "ControlHttpClient",
    "flwr.supercore.heartbeat": "HeartbeatSender",
    "flwr.supercore.inflatable.inflatable_object": "get_all_nested_objects iterate_object_tree",
    "flwr.supercore.inflatable.inflatable_protobuf_utils": "make_pull_object_fn_protobuf",
    "flwr.supercore.inflatable.inflatable_utils": "ObjectPullError pull_objects",
    "flwr.supercore.interceptors": (
        "RuntimeTokenHttpInterceptor RuntimeVersionHttpInterceptor SuperExecAuthHttpInterceptor"
    ),
    "flwr.supercore.primitives.asymmetric": "public_key_to_bytes",
    "flwr.supercore.run": "Run",
    "flwr.supercore.runtime": "RuntimeHttpClient",
    "flwr.supercore.http_logging": "get_uvicorn_log_config",
    "flwr.superlink.grid": "HttpGrid",
    "flwr.superlink.main": "create_app",
    "flwr.supernode.fleet_http_client": "FleetHttpClient",
    "flwr.supernode.node_auth_http_interceptor": "NodeAuthHttpInterceptor",
}


def test_the_version_is_the_pinned_one() -> None:
    assert version("flwr") == "1.42.0"


@pytest.mark.parametrize("module", SURFACE)
def test_every_name_is_there(module: str) -> None:
    found = importlib.import_module(module)
    assert not [name for name in SURFACE[module].split() if not hasattr(found, name)]


def test_the_http_clients_keep_one_replaceable_httpx_client() -> None:
    from flwr.supernode.fleet_http_client import FleetHttpClient

    client = FleetHttpClient("https://localhost:1", interceptors=[], verify=False)
    assert type(client._client) is httpx.Client
    client.close()
    assert "timeout" in inspect.signature(FleetHttpClient._unary_unary).parameters


def test_the_superlink_begins_as_our_program_begins_it() -> None:
    from federation.hub.flower.superlink_program import flower_superlink

    assert callable(flower_superlink._parse_superlink_lifespan_config)
    assert callable(flower_superlink.SuperLinkLifespan) and flower_superlink.console_handler
    source = inspect.getsource(flower_superlink._run_superlink_http_api)
    assert "create_app(lifespan_config, SuperLinkLifespan)" in source and "uvicorn.run(" in source


def test_fedavg_calls_what_we_override() -> None:
    from flwr.serverapp.strategy import FedAvg

    names = ("configure_train", "configure_evaluate", "aggregate_train", "aggregate_evaluate", "start")
    assert all(callable(getattr(FedAvg, name)) for name in names)
    source = inspect.getsource(FedAvg.start)
    assert all(part in source for part in ("send_and_receive", "evaluate_fn(0, initial_arrays)", "aggregate_train"))


def test_the_error_code_of_an_ended_run() -> None:
    from flwr.supercore.error import ApiErrorCode

    from federation.client.flower import _RUN_OVER

    assert ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED == _RUN_OVER


def test_an_outer_message_is_byte_for_byte_flowers_own() -> None:
    from flwr.app import ArrayRecord, Metadata, MetricRecord, RecordDict
    from flwr.app.message import make_message

    from federation.client.flower import outer_message

    records = RecordDict({"model": ArrayRecord([np.zeros(3)]), "metrics": MetricRecord({"loss": 0.5})})
    metadata = Metadata(7, "", 2, 1, "ab" * 32, "1", 1.8e9, 60.0, "train", 3, None)
    metadata.delivered_at = ""
    message = make_message(metadata=metadata, content=records)
    assert outer_message(metadata, records.object_id) == message.deflate()
