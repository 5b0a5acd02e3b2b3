"""The Control and Runtime APIs of the hub's own SuperLink, over its Unix socket."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.runtime import RuntimeHttpClient

from federation.tls import TRUSTS_NOBODY
from mediator.errors import NotNow

C = TypeVar("C", RuntimeHttpClient, ControlHttpClient)

_TIMEOUT_S = 60.0
# HTTP wants a name; nobody looks it up
URL = "http://superlink"
# A Flower run needs an app bundle. Ours names no code: the ServerApp runs in this process, the nodes fetch none.
_BUNDLE = """\
[project]
name = "cloister"
version = "1.0.0"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "cloister"
[tool.flwr.app.components]
serverapp = "none:none"
clientapp = "none:none"
[tool.flwr.app.config]
"""


class SuperLinkAway(NotNow):
    """The hub's own SuperLink does not answer."""

    code = "superlink_away"


@contextmanager
def answering() -> Iterator[None]:
    """Turns what the SuperLink's HTTP says into `SuperLinkAway`."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise SuperLinkAway(f"the SuperLink answers with HTTP {error.response.status_code}") from error
    except httpx.HTTPError as error:
        raise SuperLinkAway(f"the SuperLink does not answer ({type(error).__name__})") from error


@dataclass(frozen=True)
class SuperLink:
    """Our SuperLink's socket, and the secret that lets its ServerApp tasks be taken."""

    socket: Path
    secret: bytes

    def healthy(self) -> bool:
        try:
            with self._over_socket(2.0) as client:
                return client.get(f"{URL}/health").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def enrol(self, keys: Iterable[bytes]) -> None:
        """Register the node keys (public keys, PEM) that are not registered yet.

        A revoked site's key stays: the ingress lets nobody use it, and Flower would never take the same key again.
        """
        with answering(), self._control() as client:
            known = {node.public_key for node in client.ListNodes(ListNodesRequest()).nodes_info}
            for key in sorted(set(keys) - known):
                client.RegisterNode(RegisterNodeRequest(public_key=key))

    def stop_runs(self) -> None:
        """End every Flower run that a hub before us left behind, so that nothing of it is handed out any more."""
        with answering(), self._control() as client:
            for run in client.ListRuns(ListRunsRequest()).run_dict.values():
                if run.status.status != "finished":
                    client.StopRun(StopRunRequest(run_id=run.run_id))

    def open_run(self) -> str:
        """Open a new Flower run and take its ServerApp task; returns the task's token. One caller at a time."""
        with answering(), self._control() as control:
            bundle = io.BytesIO()
            with zipfile.ZipFile(bundle, "w") as archive:
                archive.writestr(zipfile.ZipInfo("pyproject.toml"), _BUNDLE)
            run_id = control.StartRun(StartRunRequest(fab=Fab(content=bundle.getvalue()))).run_id
        executor = SuperExecAuthHttpInterceptor(
            master_secret=self.secret, protected_methods={"/flwr.proto.Runtime/AcquireTask"}
        )
        with answering(), self._runtime(executor) as client:
            task = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
        if task.task.run_id != run_id:
            raise SuperLinkAway("the SuperLink handed out another run's task")
        return str(task.token)

    def _control(self) -> ControlHttpClient:
        return self.plain(ControlHttpClient(URL, interceptors=[_version("flwr-cli")], verify=TRUSTS_NOBODY))

    def _runtime(self, *interceptors: Any) -> RuntimeHttpClient:
        version = _version("flwr-serverapp")
        return self.plain(RuntimeHttpClient(URL, interceptors=[version, *interceptors], verify=TRUSTS_NOBODY))

    def runtime(self, token: str) -> RuntimeHttpClient:
        return self._runtime(RuntimeTokenHttpInterceptor(token))

    def plain(self, client: C) -> C:
        """The client over our socket, without proxies out of the environment, Flower's endless retries and signals."""
        client._client.close()
        client._client = self._over_socket(_TIMEOUT_S)
        return client

    def _over_socket(self, timeout_s: float) -> httpx.Client:
        transport = httpx.HTTPTransport(uds=str(self.socket), verify=TRUSTS_NOBODY)
        return httpx.Client(transport=transport, timeout=timeout_s, trust_env=False)


def _version(component: str) -> RuntimeVersionHttpInterceptor:
    return RuntimeVersionHttpInterceptor(component_name=component)
