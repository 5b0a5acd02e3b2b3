"""A command run as another system user.

`subprocess` forks for that, and a fork of a process in which gRPC has threads may crash before it becomes the command;
setpriv(1) changes the user after the exec instead.
"""

from __future__ import annotations

from collections.abc import Sequence

NOBODY = 65534


def as_user(command: Sequence[str], uid: int = NOBODY, groups: Sequence[int] = ()) -> list[str]:
    """The command that runs `command` as `uid`, in the group of the same number and in `groups`."""
    more = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    return ["/usr/bin/setpriv", f"--reuid={uid}", f"--regid={uid}", more, "--", *command]
