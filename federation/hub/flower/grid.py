"""Flower's grid, polled when there is reason to, and models as Flower carries them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, Message
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import pull_objects
from flwr.supercore.run import Run
from flwr.superlink.grid import HttpGrid

from federation.arrays import Array, read_npy, write_npy
from federation.hub.flower.superlink import SuperLink

# objects arrive after the message that names them; Flower's own first pause is a whole second
_OBJECT_POLL_S, _OBJECT_SLOWEST_S, _OBJECT_PATIENCE_S = 0.02, 0.25, 180.0


class FastGrid(HttpGrid):
    """Flower's grid without its 3 s wait: `exchange` decides when to look, what to fetch, and whom to ask again."""

    def __init__(self, superlink: SuperLink, token: str, run: Run) -> None:
        super().__init__("superlink", token=token)
        self._client = superlink.runtime(token)
        self.set_run(run)
        self.exchange: Callable[[FastGrid, Iterable[Message]], list[Message]]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        return self.exchange(self, messages)

    def connected(self) -> dict[bytes, int]:
        """The Flower ids of the nodes that are online, by public key."""
        return {node.public_key: int(node.node_id) for node in self.get_nodes() if node.status == "online"}

    def replies(self, asked: Iterable[str]) -> list[tuple[str, str, ObjectTree]]:
        """(message asked, reply's id, its object tree) of every reply that is there; its objects may yet arrive."""
        response = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=asked))
        pairs = zip(response.messages_list, response.message_object_trees, strict=True)
        return [(proto.metadata.reply_to_message_id, proto.metadata.message_id, tree) for proto, tree in pairs]

    def fetch(self, message_id: str, tree: ObjectTree) -> dict[str, bytes]:
        """The bytes of a reply's objects by id, unread. Raises `ObjectPullError` when they do not arrive."""
        run_id = cast(Run, self._run).run_id
        contents: dict[str, bytes] = pull_objects(
            list(dict.fromkeys(node.object_id for node in iterate_object_tree(tree))),
            make_pull_object_fn_protobuf(self._runtime_client.PullObject, self.node, run_id),
            max_time=_OBJECT_PATIENCE_S,
            max_tries_per_object=None,
            initial_backoff=_OBJECT_POLL_S,
            backoff_cap=_OBJECT_SLOWEST_S,
        )
        self.forget(message_id)
        return contents

    def fetching(self, message_id: str, tree: ObjectTree) -> Fetching:
        """`fetch`, begun beside whatever the caller does."""
        return Fetching(lambda: self.fetch(message_id, tree))

    def forget(self, message_id: str) -> None:
        """Let the SuperLink delete a reply's objects."""
        run_id = cast(Run, self._run).run_id
        request = ConfirmMessageReceivedRequest(node=self.node, run_id=run_id, message_object_id=message_id)
        self._runtime_client.ConfirmMessageReceived(request)


class Fetching:
    """A reply's objects on their way. Who announces what never comes keeps nobody waiting but itself."""

    def __init__(self, fetch: Callable[[], dict[str, bytes]]) -> None:
        self._fetch = fetch
        self._contents: dict[str, bytes] = {}
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="reply", daemon=True)
        self._thread.start()

    @property
    def under_way(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> dict[str, bytes]:
        """The objects' bytes by id. Raises what `fetch` raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._contents

    def _run(self) -> None:
        try:
            self._contents = self._fetch()
        except Exception as error:  # noqa: BLE001 - carried over to whoever asks for the result
            self._error = error


def to_record(model: Mapping[str, Array]) -> ArrayRecord:
    """A model as Flower carries it, tensors in the model's order, the permit's."""
    arrays = {}
    for name, array in model.items():
        arrays[name] = FlowerArray(array.dtype.name, tuple(array.shape), "numpy.ndarray", write_npy(array))
    return ArrayRecord(arrays)


def to_tensors(record: ArrayRecord) -> dict[str, Array]:
    return {name: read_npy(array.data, array.dtype, tuple(array.shape)) for name, array in record.items()}
