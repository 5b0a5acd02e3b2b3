"""A node as services of the system: a unit for each process of the table, one that guards them, and what they need.

All of it is text made from the configuration and `node.host.processes`; nothing here asks who exists or writes a file,
so that it can be made before the users and the state folder are there.

1. Each process sees of the state folder its own rooms to write, what others leave for it to read, and nothing else.
   The state folder is writable as one mount: core links files from one room into another, which no two mounts allow.
2. Who has no business with the network has none: no interface but a loopback of its own. The link may speak to the
   hub's addresses and to those that resolve its name.
3. No secret is in a unit, and none on a command line. A key in the state folder is not handed over by
   `LoadCredential=`: the service manager would open it as root by a path in a folder of the process's own
   (`node.host.state`, 1 and 3).
   The database's secret lies in the hospital's own folder, and is.
"""

from __future__ import annotations

import grp
import ipaddress
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mediator.errors import IntegrityBroken, UsageFault
from mediator.roles import Role
from node.host.config import DATABASE, NodeConfig
from node.host.installed import (
    UNITS,
    FirewallRow,
    Installed,
    SystemFile,
    SystemFolder,
    SystemUser,
    log_rules,
    system_files,
    user_line,
)
from node.host.processes import PROCESSES, Process, Room
from node.host.service_units import Network, ServiceUnit, check_named, check_shown, target
from node.host.state import SHARED_MODE
from node.host.supervisor import environment

TARGET = "cloister-node.target"
GUARD = "cloister-guard.service"
# what a service that must not be started again by itself ends with: usage, refused, integrity, not now
_NOT_AGAIN = (2, 3, 4, 5)
# as root, of all that root may: give folders and files to the node's users, and act with their rights
_GUARDS = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_SETUID", "CAP_SETGID")
# they are there or not; whichever is there starts before the broker and ends after it
_ENGINES = "docker.service docker.socket podman.service podman.socket containerd.service"
_DNS = 53
_NOBODY = "192.0.2.1"  # RFC 5737

Resolve = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class Machine:
    """What of this machine the units are made for. `python` runs the services, `config_file` is what they are given.

    `hub`: the hub's addresses where its name is not to be asked for; `resolvers`: who is asked for names; `kept`: whom
    the link's unit that is there lets it reach, for a time in which nobody knows the hub's name.
    """

    python: Path
    config_file: Path
    resolve: Resolve
    hub: tuple[str, ...] = ()
    resolvers: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def units(config: NodeConfig, machine: Machine, processes: Sequence[Process] = PROCESSES) -> Installed:
    """Everything that the system needs for this node. Raises `UsageFault` where it could not run as services."""
    _check(config, machine)
    addresses, warnings = _hub_addresses(config, machine)
    services = {process.unit: _service(config, machine, process, addresses, processes) for process in processes}
    listed = (GUARD, *services)
    texts = {GUARD: _guard(config, machine, tuple(services)).text()}
    texts |= {name: service.text() for name, service in services.items()}
    texts[TARGET] = target("Cloister node", listed)
    passing = "".join(f"r! {config.paths.root / socket}\n" for each in processes for socket in each.sockets)
    return Installed(
        target=TARGET,
        units=listed,
        files=(
            *(SystemFile(UNITS / name, text) for name, text in texts.items()),
            *system_files(
                "node",
                "".join(_user_lines(config, processes)),
                f"# sockets that a power cut left behind\n{passing}",
                log_rules(f"{config.paths.logs}/*.log", "root"),
            ),
        ),
        users=tuple(SystemUser(each.name, _user(config, each), _groups(config, each, processes)) for each in processes),
        folders=tuple(_folders(config, processes)),
        firewall=tuple(_firewall(config, machine, processes)),
        warnings=warnings,
    )


def _check(config: NodeConfig, machine: Machine) -> None:
    if not config.users.separate:
        raise UsageFault(
            "services need a system user for each process", hint="name them in [users], as the example does"
        )
    check_shown("the Python of the installation", machine.python, "install below /opt, and say where: --python FILE")
    check_shown("the configuration", machine.config_file, "move it to /etc/cloister/node.toml")
    check_shown("the state folder", config.paths.root, "choose a state_dir below /var/lib/cloister")
    for what, path in _named(config):
        check_named(what, path, "give it another name, or a link to it that has one")
    for root in config.intake.source_roots:
        if root.is_relative_to("/tmp") or root.is_relative_to("/var/tmp"):  # noqa: S108 - named, to be refused
            raise UsageFault(f"intake sees nothing of {root}: its /tmp is its own", hint="bring data in from elsewhere")


def _named(config: NodeConfig) -> Iterator[tuple[str, Path]]:
    """What the hospital named as it liked, and units name too."""
    yield from (("the source folder", root) for root in config.intake.source_roots)
    if config.engine.path is not None:
        yield "the engine's socket", config.engine.path
    yield from (
        ("the database's secret", path) for process in PROCESSES for _name, path in _credentials(config, process)
    )


def _command(machine: Machine, *words: str) -> tuple[str, ...]:
    # -P: the folder that it happens to stand in is no place to import from
    return (str(machine.python), "-P", "-m", "node.cli", "node", *words, "--config", str(machine.config_file))


def _service(
    config: NodeConfig, machine: Machine, process: Process, hub: tuple[str, ...], processes: Sequence[Process]
) -> ServiceUnit:
    root, first = config.paths.root, [each for each in processes if each.outlives and each is not process]
    after = " ".join([GUARD, *(each.unit for each in first)] if not process.outlives else [GUARD])
    unit = [f"BindsTo={GUARD}", f"PartOf={TARGET}", f"After={after}"]
    if process.reach == "engine":
        unit += _engine_first(config.engine.path)
    if process.reach == "hub":
        unit.append("After=network-online.target nss-lookup.target")
    hidden, read_only = _walls(process, processes)
    sources = config.intake.source_roots if process.reach == "sources" else ()
    socket = config.engine.path if process.reach == "engine" else None
    opened = (*sources, *(() if socket is None else (_kept_by_user(socket),)))
    return ServiceUnit(
        description=f"Cloister node, {process.name}",
        command=_command(machine, "process", process.name),
        user=_user(config, process),
        groups=_groups(config, process, processes),
        environment=tuple(environment(config, process).items()),
        unit=(*unit, f"RequiresMountsFor={root}"),
        network=_network(config, process, hub, machine),
        writable=(root, *(root / path for path in _within_run(process))),
        read_only=(*(root / path for path in read_only), *sources),
        hidden=tuple(root / path for path in hidden),
        shown=tuple(
            path for path in opened if any(path.is_relative_to(home) for home in ("/home", "/root", "/run/user"))
        ),
        credentials=tuple(_credentials(config, process)),
        shares=process.shares,
        reads_system=process.reads_system,
        never_again_after=(IntegrityBroken.exit_code,) if process.records_changes else (),
        memory_bytes=process.memory_bytes + process.memory_per_worker_bytes * config.intake.workers,
        tasks=process.tasks,
        watchdog_s=process.watchdog_s,
        start_s=process.start_s,
        stop_s=process.stop_s,
        restart_s=process.restart_s,
    )


def _engine_first(socket: Path | None) -> Iterator[str]:
    """What is up before the broker: the engines, and the services of the user whose own engine it asks (a rootless
    one). Where those are started anew, so is the broker: the socket is another file then."""
    yield f"After={_ENGINES}"
    if socket is not None and (user := _engine_user(socket)) is not None:
        yield from (f"{setting}=user@{user}.service" for setting in ("Wants", "After", "PartOf"))


def _engine_user(socket: Path) -> int | None:
    """Whose services keep a socket, by the place where systemd has them keep it."""
    parts = socket.parts
    return int(parts[3]) if parts[:3] == ("/", "run", "user") and len(parts) > 4 and parts[3].isdecimal() else None


def _kept_by_user(socket: Path) -> Path:
    """What the broker is shown of a socket: the folder that is its engine's alone (Podman's `podman/`), in which the
    engine may make it anew, or itself."""
    return socket.parent if _engine_user(socket) is not None and len(socket.parts) > 5 else socket


def _guard(config: NodeConfig, machine: Machine, services: tuple[str, ...]) -> ServiceUnit:
    """As root, and without a network: it looks at the state folder, and ends the others by ending."""
    return ServiceUnit(
        description="Cloister node, the guard of its state folder",
        command=_command(machine, "guard"),
        user=None,
        # started again after a defect, it takes the processes with it
        unit=(f"Wants={' '.join(services)}", f"PartOf={TARGET}", f"RequiresMountsFor={config.paths.root}"),
        writable=(config.paths.root,),
        capabilities=_GUARDS,
        changes_users=True,
        restart="on-failure",
        never_again_after=_NOT_AGAIN,
        memory_bytes=512 << 20,
        watchdog_s=60,
        start_s=600,
    )


def _walls(process: Process, processes: Sequence[Process]) -> tuple[list[str], list[str]]:
    """What of the state folder a process does not see at all, and what it may only read. (1)"""
    hidden, read_only = ["logs", "supervisor"], []
    if not process.writes_run:
        read_only.append("run")
    for other in processes:
        if other is process:
            continue
        for room in _outermost(other.rooms):
            if room.path in process.fills or room.path.startswith("run/"):
                continue
            (read_only if room.path in process.reads else hidden).append(room.path)
    return hidden, read_only


def _outermost(rooms: Iterable[Room]) -> Iterator[Room]:
    listed = list(rooms)
    for room in listed:
        if not any(room.path.startswith(f"{other.path}/") for other in listed):
            yield room


def _within_run(process: Process) -> Iterator[str]:
    return (room.path for room in process.rooms if room.path.startswith("run/"))


def _network(config: NodeConfig, process: Process, hub: tuple[str, ...], machine: Machine) -> Network:
    """(2)"""
    if process.reach == "hub":
        asked = () if _is_address(config.hub.host) else machine.resolvers
        return Network(addresses=(*hub, *asked) or (_NOBODY,))
    if process.reach == "engine" and config.engine.path is None:
        return Network(addresses=None)
    return Network()


def _credentials(config: NodeConfig, process: Process) -> Iterator[tuple[str, Path]]:
    """(3)"""
    if process.records_changes and config.database is not None:
        path = Path(config.database.removeprefix("file:"))
        if not path.is_relative_to(config.paths.root):
            yield DATABASE, path


def _hub_addresses(config: NodeConfig, machine: Machine) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The hub's addresses as of now, and what to say where there are none."""
    host = config.hub.host
    if machine.hub:
        return machine.hub, ()
    if _is_address(host):
        return (host,), ()
    # sorted: a name server turns its list round at every answer, and that is no other unit
    if found := tuple(sorted(set(machine.resolve(host)))):
        return found, ()
    if kept := tuple(sorted(set(machine.kept) - {*machine.resolvers, _NOBODY})):
        return kept, (
            f"{host} is not known here now, so the link's unit keeps the addresses it had ({', '.join(kept)}): write "
            "the units again once it is, or name its address with --hub-address",
        )
    return (), (
        f"{host} is not known here now, so the link's unit lets it reach nobody: write the units again once it is, "
        "or name its address with --hub-address",
    )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _user(config: NodeConfig, process: Process) -> str:
    user = config.users.user_of(process)
    return process.default_user if user is None else str(user)


def _groups(config: NodeConfig, process: Process, processes: Sequence[Process]) -> tuple[str, ...]:
    """By name where there is one: who has which number is known when the users are made."""
    users = {each.name: _user(config, each) for each in processes}
    groups = [users[other] for other in process.groups_of]
    if process.serves_staff:
        groups += [str(group) for group in _staff(config).values()]
    if process.gives_jobs:
        groups.append(str(config.users.job_gid if config.engine.job_group is None else config.engine.job_group))
    if process.reach == "engine" and config.engine.path is not None:
        groups += _group_of(config.engine.path)
    return tuple(dict.fromkeys(groups))


def _staff(config: NodeConfig) -> dict[str, str | int]:
    named = {role.value: getattr(config.staff, role.value) for role in Role}
    return {role: group for role, group in named.items() if group is not None}


def _group_of(socket: Path) -> list[str]:
    try:
        return [str(os.stat(socket).st_gid)]
    except OSError:
        return []


def _numbers(config: NodeConfig) -> Iterator[tuple[str, int]]:
    """Groups that are known by number, and what they are called where nobody has named them: a unit that is given a
    number without a name does not start."""
    yield from ((role.replace("_", "-"), group) for role, group in _staff(config).items() if isinstance(group, int))
    if config.engine.path is not None:
        yield from (("engine", int(group)) for group in _group_of(config.engine.path))
    if config.engine.job_group is not None:
        yield "job-outside", config.engine.job_group


def _is_named(group: int) -> bool:
    try:
        grp.getgrgid(group)
    except KeyError:
        return False
    return True


def _user_lines(config: NodeConfig, processes: Sequence[Process]) -> Iterator[str]:
    for process in processes:
        user = config.users.user_of(process)
        if isinstance(user, str):
            yield user_line(user, f"Cloister node, {process.name}")
    yield from (f"g {group} -\n" for group in _staff(config).values() if isinstance(group, str))
    yield from (f"g cloister-{name} {group}\n" for name, group in _numbers(config) if not _is_named(group))
    # nobody else is given the numbers of jobs
    yield f"g cloister-job {config.users.job_gid}\n"
    yield f'u cloister-job {config.users.job_uid}:{config.users.job_gid} "Cloister jobs" - -\n'


def _folders(config: NodeConfig, processes: Sequence[Process]) -> Iterator[SystemFolder]:
    users = {process.name: _user(config, process) for process in processes}
    for process in processes:
        for room in process.rooms:
            mode = room.mode or (SHARED_MODE if room.reader else 0o700)
            group = users[room.reader or process.name]
            yield SystemFolder(config.paths.root / room.path, users[process.name], group, f"{mode:04o}")


def _firewall(config: NodeConfig, machine: Machine, processes: Sequence[Process]) -> Iterator[FirewallRow]:
    """Nothing comes in: no row of a node's is inbound."""
    for process in processes:
        if process.reach != "hub":
            continue
        yield FirewallRow(process.name, "out", "tcp", config.hub.host, config.hub.port, "the hub, mutual TLS")
        if not _is_address(config.hub.host):
            for resolver in machine.resolvers:
                for protocol in ("udp", "tcp"):
                    yield FirewallRow(process.name, "out", protocol, resolver, _DNS, "the hub's name")
