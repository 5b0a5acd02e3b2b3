"""A node's one configuration file: strict TOML, read once, frozen, its fingerprint logged.

An unknown key is refused by name. Secrets are references (`file:/path`), never values. This is the only module of the
node that may look at the environment, and it has no need to.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta, tzinfo
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from mediator import canonical
from mediator.capacity import Calendar, Capacity, Closed, Gpu, SiteSchedule
from mediator.errors import Malformed, UsageFault
from mediator.grammar import UNKNOWN, check_digest, check_gpu, check_identifier, check_person
from mediator.signatures import KeyRing, VerifyKey
from mediator.types import Resources
from node.host.accounts import Account, account, group_id
from node.host.paths import MAX_SOCKET_BYTES, StatePaths
from node.host.processes import PROCESSES, Process
from node.host.reach import hub_url

# a configuration is a page; this is a hundred
_MAX_BYTES = 1 << 20
# what the secret of `database` is called where the service manager hands it over
DATABASE = "database"
_HOUR = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


def _identifier(text: str) -> str:
    check_identifier(text, "a site")
    return text


def _person(text: str) -> str:
    check_person(text, "a person")
    if text == UNKNOWN:
        raise ValueError(f"nobody is called {UNKNOWN}: it stands for who is not known")
    return text


def _digest(text: str) -> str:
    check_digest(text, "an image")
    return text


def _public_key(text: str) -> str:
    try:
        return VerifyKey.from_text(text).text
    except Malformed as error:
        raise ValueError(error.message) from None


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError("a path here is absolute and holds no ..")
    return path


def _state_dir(path: Path) -> Path:
    """A node whose sockets cannot be bound would be made, checked and then started again for ever."""
    longest = max(len(os.fsencode(socket)) for socket in StatePaths(path).sockets)
    if over := max(0, longest - MAX_SOCKET_BYTES):
        room = len(os.fsencode(path)) - over
        raise ValueError(f"too long for the sockets below it: at most {room} bytes")
    return path


def _gpu(text: str) -> str:
    check_gpu(text)
    return text


def _clock(text: str) -> str:
    if not _HOUR.fullmatch(text):
        raise ValueError("a time of day is HH:MM")
    return text


def _zone(name: str) -> tzinfo:
    """A time zone by its IANA name. UTC needs no table of zones on the machine."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("time_zone is not an IANA time zone that this machine knows (the package tzdata)") from None


def _reference(text: str) -> str:
    if not text.startswith("file:/"):
        raise ValueError("a secret is a reference (file:/path), never a value")
    return text


PublicKeys = tuple[Annotated[str, AfterValidator(_public_key)], ...]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Digest = Annotated[str, AfterValidator(_digest)]
SecretReference = Annotated[str, AfterValidator(_reference)]
Port = Annotated[int, Field(ge=1, le=65535)]
User = str | int | None


Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: tuple[Day, ...] = get_args(Day)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)


class HubAddressConfig(Section):
    """The one host and port the link may reach. `server_name` is what the hub's certificate says."""

    host: str = Field(min_length=1, max_length=253)
    port: Port
    server_name: str | None = None

    @property
    def name(self) -> str:
        return self.server_name or self.host

    @property
    def url(self) -> str:
        return hub_url(self.host, self.port)


class TrustConfig(Section):
    """Public keys (64 hexadecimal digits) by purpose. An empty list trusts nobody; several let keys rotate."""

    committee: PublicKeys = ()
    stewards: PublicKeys = ()
    hub: PublicKeys = ()
    witnesses: PublicKeys = ()

    def ring(self, purpose: Literal["committee", "stewards", "hub", "witnesses"]) -> KeyRing:
        return KeyRing(VerifyKey.from_text(text) for text in getattr(self, purpose))


class UsersConfig(Section):
    """The system users (name or number) of the four processes; all or none. None: the current user runs them all.

    A process that the table has beside these four runs as the user of its name there (`cloister-NAME`). A job runs
    under `job_uid` and `job_gid`, which are no one else's.
    """

    core: User = None
    intake: User = None
    broker: User = None
    link: User = None
    job_uid: int = Field(default=65532, ge=1, le=(1 << 31) - 1)
    job_gid: int = Field(default=65532, ge=1, le=(1 << 31) - 1)

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        named = [user for user in (self.core, self.intake, self.broker, self.link) if user is not None]
        if named and len(set(named)) != 4:
            raise ValueError("core, intake, broker and link are four different users, or none is set")
        return self

    @property
    def separate(self) -> bool:
        return self.core is not None

    def user_of(self, process: Process) -> User:
        """The name or number of a process's system user; None where the current user runs all."""
        if not self.separate:
            return None
        user: User = getattr(self, process.name, None)
        return process.default_user if user is None else user

    def accounts(self, processes: Sequence[Process] = PROCESSES) -> Mapping[str, Account]:
        """uid and gid of each process. Raises `UsageFault` for an unknown user, or one that two processes share."""
        found = {process.name: account(self.user_of(process)) for process in processes}
        numbers = [entry.uid for entry in found.values()]
        if self.separate and (len({*numbers, self.job_uid}) != len(processes) + 1 or 0 in numbers):
            *others, last = found
            raise UsageFault(
                "two processes of the node share a user, or one is root",
                hint=f"give {', '.join(others)}, {last} and jobs a user each ([users])",
            )
        return found


class PersonConfig(Section):
    """A person, by a name of the hospital's own and the key they sign with."""

    subject: Annotated[str, AfterValidator(_person)]
    public_key: Annotated[str, AfterValidator(_public_key)]


class StaffConfig(Section):
    """The system group (name or number) whose members act in a role. None: root alone, besides core's own user.

    `persons` are known by what they sign, in whatever role: the audit log then names them. It gives nobody a role.
    """

    it_admin: User = None
    data_steward: User = None
    auditor: User = None
    persons: tuple[PersonConfig, ...] = ()

    @model_validator(mode="after")
    def _one_name_a_key(self) -> Self:
        if len({person.public_key for person in self.persons}) != len(self.persons):
            raise ValueError("two persons have the same key")
        return self

    def groups(self) -> Mapping[str, int | None]:
        """The group id of each role."""
        names = {"it_admin": self.it_admin, "data_steward": self.data_steward, "auditor": self.auditor}
        return {role: None if name is None else group_id(name) for role, name in names.items()}


class EngineConfig(Section):
    """The container engine that the broker drives. `runtime` None is the engine's own; `sentinel` is our keeper.

    `job_group` is the number that a job's group has outside its container, where the engine counts otherwise
    (`userns-remap`, rootless); None: the same as inside.
    """

    socket: str = "unix:///var/run/docker.sock"
    runtime: str | None = None
    job_group: int | None = Field(default=None, ge=1, le=(1 << 32) - 2)
    sentinel: Digest

    @property
    def path(self) -> Path | None:
        """The engine's Unix socket; None where the engine is reached in another way."""
        return Path(self.socket.removeprefix("unix://")) if self.socket.startswith("unix://") else None


class LimitsConfig(Section):
    """The most one container may ask for here, and how long things stay.

    `keep_log_s` is how long the log of a job that failed stays with the engine; `max_revocation_age_s` is how old the
    committee's newest list may be before everything stops.
    """

    cpus: float = Field(default=2.0, gt=0)
    memory_bytes: int = Field(default=8 << 30, gt=0)
    pids: int = Field(default=512, gt=0)
    wall_time_s: int = Field(default=4 * 3600, gt=0)
    tmp_bytes: int = Field(default=1 << 30, gt=0)
    out_bytes: int = Field(default=4 << 30, gt=0)
    out_files: int = Field(default=256, gt=0)
    gpus: int = Field(default=0, ge=0)
    idle_s: int = Field(default=900, gt=0)
    keep_log_s: int = Field(default=3600, ge=0, le=86_400)
    max_revocation_age_s: int = Field(default=86_400, ge=60, le=7 * 86_400)

    @property
    def ceiling(self) -> Resources:
        names = ("cpus", "memory_bytes", "pids", "wall_time_s", "tmp_bytes", "out_bytes", "out_files", "gpus")
        return Resources(**{name: getattr(self, name) for name in names})

    @property
    def max_revocation_age(self) -> timedelta:
        return timedelta(seconds=self.max_revocation_age_s)


class GpuEntry(Section):
    """One GPU, or one slice of it (MIG), as `nvidia-smi -L` names it, and its memory."""

    id: Annotated[str, AfterValidator(_gpu)]
    memory_bytes: int = Field(gt=0)


class ClosedHours(Section):
    """Hours in which nothing computes, from `start` to `end` (HH:MM) on the days they begin; every day by default."""

    start: Annotated[str, AfterValidator(_clock)]
    end: Annotated[str, AfterValidator(_clock)]
    days: tuple[Day, ...] = _DAYS

    @property
    def value(self) -> Closed:
        weekdays = frozenset(_DAYS.index(day) for day in self.days)
        return Closed(time.fromisoformat(self.start), time.fromisoformat(self.end), weekdays)


class ScheduleConfig(Section):
    """The queue: what the site lends, when, and how long a project keeps it while another waits.

    `quantum_s`: who has waited so long may ask who has computed so long. `grace_s`: the time for a checkpoint.
    """

    gpus: tuple[GpuEntry, ...] = ()
    slots_per_gpu: int = Field(default=1, ge=1, le=64)
    concurrent_jobs: int = Field(default=4, ge=1, le=256)
    time_zone: str = "UTC"
    closed: tuple[ClosedHours, ...] = ()
    quantum_s: int = Field(default=3600, ge=1)
    grace_s: int = Field(default=60, ge=1, le=3600)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if len({gpu.id for gpu in self.gpus}) != len(self.gpus):
            raise ValueError("a GPU is named twice")
        if self.calendar.opens(datetime(2026, 1, 1, tzinfo=UTC)) is None:
            raise ValueError("the closed hours leave no hour of the week open")
        return self

    @property
    def calendar(self) -> Calendar:
        return Calendar(tuple(hours.value for hours in self.closed), _zone(self.time_zone))

    @property
    def site(self) -> SiteSchedule:
        """The section as the queue takes it."""
        gpus = tuple(Gpu(gpu.id, gpu.memory_bytes) for gpu in self.gpus)
        return SiteSchedule(
            Capacity(gpus, self.slots_per_gpu, self.concurrent_jobs),
            self.calendar,
            timedelta(seconds=self.quantum_s),
            timedelta(seconds=self.grace_s),
        )


class IntakeConfig(Section):
    """Folders that identified data may be taken from, nothing outside them. Empty: nothing is taken in.

    Without `read_pixel_text` no pixels are looked at, and only slices that say they carry no text stay. `workers`: how
    many processes de-identify, each with up to 0.3 GB and, while it reads text, a reader of 0.6 GB.
    """

    source_roots: tuple[AbsolutePath, ...] = ()
    read_pixel_text: bool = True
    workers: int = Field(default=1, ge=1, le=64)


class ImagesConfig(Section):
    """Registries (host, or host:port) that images may be fetched from by digest. Empty: none, only archives."""

    registries: tuple[Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?$")], ...] = ()


class AirlockConfig(Section):
    """Who lets files of analyses out, and how long one may wait. Nobody named: nothing leaves.

    `threshold` (patients behind a number) and `reviewers` (persons to agree) are floors under what a permit says.
    """

    persons: tuple[PersonConfig, ...] = ()
    threshold: int = Field(default=10, ge=2)
    reviewers: Literal[1, 2] = 1
    remind_s: int = Field(default=2 * 86_400, ge=1)
    expire_s: int = Field(default=14 * 86_400, ge=1)

    @model_validator(mode="after")
    def _one_name_a_key(self) -> Self:
        if len({person.public_key for person in self.persons}) != len(self.persons):
            raise ValueError("two reviewers have the same key")
        return self


class PrivacyConfig(Section):
    """The most epsilon, at `delta`, that all permits together may spend on one dataset. 0: no permit with a privacy
    budget runs here."""

    epsilon_total: float = Field(default=10.0, ge=0, le=1e6)
    delta: float = Field(default=1e-6, gt=0, lt=1)


class AuditConfig(Section):
    """How often a checkpoint is signed, when there is anything new to sign."""

    checkpoint_interval_s: int = Field(default=300, ge=1, le=86_400)


class LoggingConfig(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class NodeConfig(Section):
    """Everything an operator decides about a node."""

    site: Annotated[str, AfterValidator(_identifier)]
    state_dir: Annotated[AbsolutePath, AfterValidator(_state_dir)]
    database: SecretReference | None = Field(default=None, repr=False)
    hub: HubAddressConfig
    trust: TrustConfig = TrustConfig()
    users: UsersConfig = UsersConfig()
    staff: StaffConfig = StaffConfig()
    engine: EngineConfig
    limits: LimitsConfig = LimitsConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    intake: IntakeConfig = IntakeConfig()
    images: ImagesConfig = ImagesConfig()
    airlock: AirlockConfig = AirlockConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    audit: AuditConfig = AuditConfig()
    logging: LoggingConfig = LoggingConfig()

    @cached_property
    def paths(self) -> StatePaths:
        return StatePaths(self.state_dir)

    @property
    def hub_url(self) -> str:
        return self.hub.url

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the configuration's canonical JSON: two nodes with the same one are set up alike."""
        return hashlib.sha256(canonical.dumps(self.model_dump(mode="json"))).hexdigest()

    @model_validator(mode="after")
    def _a_key_names_one_person(self) -> Self:
        """A record's name is worth what it distinguishes: one key has one name, and one name one key."""
        named = {(each.public_key, each.subject) for each in (*self.staff.persons, *self.airlock.persons)}
        for what, listed in (("key", [key for key, _ in named]), ("name", [name for _, name in named])):
            if len(set(listed)) != len(listed):
                raise ValueError(f"[staff] persons and [airlock] persons: one {what} stands for two")
        return self

    @model_validator(mode="after")
    def _gpus_are_named(self) -> Self:
        if self.limits.gpus > len(self.schedule.gpus):
            raise ValueError("limits.gpus is more than [[schedule.gpus]] names")
        return self

    @property
    def ceiling(self) -> Resources:
        """The most one container may ask for here: as much memory of each GPU as its largest slot has, and no more
        CPUs than there are, which no engine could give."""
        slots = [gpu.memory_bytes // self.schedule.slots_per_gpu for gpu in self.schedule.gpus]
        cpus = min(self.limits.cpus, float(os.cpu_count() or 1))
        return replace(self.limits.ceiling, cpus=cpus, gpu_memory_bytes=max(slots, default=0))

    @property
    def job_group(self) -> int | None:
        """The group whose jobs may read what they are shown; None where core is no member and cannot give it."""
        gid = self.users.job_gid if self.engine.job_group is None else self.engine.job_group
        can = self.users.separate or os.geteuid() == 0 or gid in os.getgroups()
        return gid if can else None

    def database_url(self) -> str:
        """The database's URL: a file in the state folder, unless a reference says where another one is written."""
        if self.database is None:
            return f"sqlite:///{self.paths.database}"
        handed_over = credential(DATABASE)
        return read_secret(self.database) if handed_over is None else handed_over


def load_config(path: Path) -> NodeConfig:
    """The configuration in `path`. Raises `UsageFault` with the key, the file and what is wrong, on one line."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UsageFault(f"cannot read {path}: {error.strerror}", hint="say where it is: --config FILE") from None
    if len(raw) > _MAX_BYTES:
        raise UsageFault(f"{path} is larger than {_MAX_BYTES} bytes")
    try:
        plain = tomllib.loads(raw.decode("utf-8"))
        # through JSON, where lists become tuples and texts become paths without giving up strict types
        return NodeConfig.model_validate_json(json.dumps(plain, allow_nan=False, default=str))
    except ValidationError as error:
        raise _fault(path, error) from None
    except (ValueError, RecursionError) as error:
        where = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "not UTF-8, or a number is not finite"
        raise UsageFault(f"{path} is not a configuration: {where}") from None


def credential(name: str) -> str | None:
    """What the service manager has read for this process (`LoadCredential=`), in a folder that it alone may read."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder is None or not (path := Path(folder) / name).is_file():
        return None
    return path.read_text(encoding="utf-8").strip()


def read_secret(reference: str) -> str:
    """The one line in the file that `file:/path` names; only its owner may be able to read it."""
    path = Path(reference.removeprefix("file:"))
    try:
        if path.stat().st_mode & 0o077:
            raise UsageFault(f"{path} can be reached by others than its owner", hint=f"chmod 600 {path}")
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UsageFault(f"cannot read the secret {path}: {error.strerror}") from None


def _fault(path: Path, error: ValidationError) -> UsageFault:
    first = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = get_close_matches(str(first["loc"][-1]), _siblings(first["loc"]), 1)
        hint = f"did you mean {near[0]}?" if near else "remove it, or look for its name in the documentation"
        return UsageFault(f"{path}: unknown key {key}", hint=hint)
    if first["type"] == "missing":
        return UsageFault(f"{path}: the key {key} is missing")
    reason = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return UsageFault(f"{path}: {key}: {reason[:1].lower()}{reason[1:]}")


def _siblings(where: tuple[int | str, ...]) -> list[str]:
    """The keys known in the section that `where` points into."""
    section: type[BaseModel] = NodeConfig
    for part in where[:-1]:
        kind: Any = section.model_fields[str(part)].annotation
        if not (isinstance(kind, type) and issubclass(kind, Section)):
            return []
        section = kind
    return list(section.model_fields)
