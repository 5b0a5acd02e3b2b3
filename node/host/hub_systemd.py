"""A hub as services of the system: the same words as a node's, from the hub's own table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from federation.hub.config import HubConfig
from federation.hub.processes import PROCESSES, HubProcess
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
from node.host.service_units import Network, ServiceUnit, check_shown, target

TARGET = "cloister-hub.target"
# ports that only root may bind, and whoever has this one right of root's
_ROOTS_PORTS = 1024
_BIND = "CAP_NET_BIND_SERVICE"


@dataclass(frozen=True)
class HubMachine:
    """What of this machine the units are made for, and the hub's system user."""

    python: Path
    config_file: Path
    user: str


def units(config: HubConfig, machine: HubMachine, processes: Sequence[HubProcess] = PROCESSES) -> Installed:
    """Everything that the system needs for this hub. Raises `UsageFault` where it could not run as a service."""
    check_shown("the Python of the installation", machine.python, "install below /opt, and say where: --python FILE")
    check_shown("the configuration", machine.config_file, "move it to /etc/cloister/hub.toml")
    check_shown("the state folder", config.state_dir, "choose a state_dir below /var/lib/cloister")
    names = tuple(process.unit for process in processes)
    texts = {process.unit: _service(config, machine, process).text() for process in processes}
    texts[TARGET] = target("Cloister hub", names)
    root = config.state_dir
    logs = "".join(log_rules(str(root / log), machine.user) for process in processes for log in process.logs)
    users = user_line(machine.user, "Cloister hub")
    passing = (
        "# the hub's state folder, made once; what is there keeps its owner\n"
        f"d {root} :0700 :{machine.user} :{machine.user}\n"
    )
    return Installed(
        target=TARGET,
        units=names,
        files=(
            *(SystemFile(UNITS / name, text) for name, text in texts.items()),
            *system_files("hub", users, passing, logs),
        ),
        users=tuple(SystemUser(process.name, machine.user, ()) for process in processes),
        folders=tuple(_folders(root, machine.user, processes)),
        firewall=tuple(
            FirewallRow(process.name, "in", "tcp", config.ingress.listen, config.ingress.port, "nodes, mutual TLS")
            for process in processes
            if process.listens
        ),
    )


def _service(config: HubConfig, machine: HubMachine, process: HubProcess) -> ServiceUnit:
    port = config.ingress.port
    rights = (_BIND,) if process.listens and port < _ROOTS_PORTS else ()
    command = (str(machine.python), "-P", "-m", "node.cli", "hub", *process.words, "--config", str(machine.config_file))
    return ServiceUnit(
        description=f"Cloister hub, {process.name}",
        command=command,
        user=machine.user,
        environment=(("LANG", "C.UTF-8"), ("HOME", str(config.state_dir))),
        unit=(f"PartOf={TARGET}", "After=network-online.target", f"RequiresMountsFor={config.state_dir}"),
        network=Network(addresses=None, listens=port) if process.listens else Network(),
        writable=(config.state_dir,),
        capabilities=rights,
        ambient=rights,
        own_users=not rights,
        memory_bytes=process.memory_bytes,
        tasks=process.tasks,
        files=process.files,
        watchdog_s=process.watchdog_s,
        start_s=process.start_s,
        stop_s=process.stop_s,
        restart_s=process.restart_s,
    )


def _folders(root: Path, user: str, processes: Sequence[HubProcess]) -> Iterator[SystemFolder]:
    yield SystemFolder(root, user, user, "0700")
    for process in processes:
        for name in process.folders:
            yield SystemFolder(root / name, user, user, "0700")
