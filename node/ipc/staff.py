"""Everything hospital staff may ask core, on a socket for each role: who may what is `mediator.roles`."""

from __future__ import annotations

from node.ipc import airlock, audit, datasets, deid_keys, documents, images, imports, jobs, node
from node.ipc.verb import verbs_in

STAFF = verbs_in(airlock, audit, datasets, deid_keys, documents, images, imports, jobs, node)
