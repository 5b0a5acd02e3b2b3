"""What each key of a node's configuration means: the words of its example and of `cloister config explain`."""

from __future__ import annotations

from collections.abc import Mapping

WORDS: Mapping[str, str] = {
    "site": "This hospital's name in permits: a-z, 0-9, dot, dash, underscore.",
    "state_dir": "Everything the node keeps. Sockets lie in it: keep the path short.",
    "database": (
        "Where the URL of another database than the file in the state folder is written, readable by core alone "
        "(mode 0600)."
    ),
    "hub.host": "The one host that the link may reach.",
    "hub.port": "The one port there.",
    "hub.server_name": "What the hub's certificate calls it, where that is another name than `host`.",
    "trust.committee": "Whose permits and revocation lists count.",
    "trust.stewards": "Whose acceptances count: this hospital's own people.",
    "trust.hub": "The hub's instruction key, as `cloister hub init` printed it.",
    "trust.witnesses": "The hub's witness key, as `cloister hub init` printed it.",
    "users.core": "Who keeps the database and the log, and reads datasets.",
    "users.intake": "Who reads the source folders and de-identifies.",
    "users.broker": "Who drives the container engine.",
    "users.link": "Who speaks with the hub.",
    "users.job_uid": "Jobs run as this user's number, which nobody else has.",
    "users.job_gid": "Jobs run in this group's number, which nobody else has.",
    "staff.it_admin": "Who runs the node.",
    "staff.data_steward": "Who brings data in, accepts permits and reviews files.",
    "staff.auditor": "Who reads the audit log.",
    "staff.persons": "Persons whom the audit log names when they sign what they ask (--key). It gives nobody a role.",
    "engine.socket": "The socket of the container engine that the broker drives (Docker or Podman).",
    "engine.sentinel": "The digest of the sentinel image: `deploy/lib/images.sh cloister-sentinel` prints it.",
    "engine.runtime": "Another runtime than the engine's own, gVisor say; GPUs need none here, and gVisor gives none.",
    "engine.job_group": (
        "What job_gid is outside a container, where the engine counts otherwise: `cloister check` says it."
    ),
    "limits.cpus": "Processors; never more than this machine has, whatever stands here.",
    "limits.memory_bytes": "Memory.",
    "limits.pids": "Processes and threads.",
    "limits.wall_time_s": "Seconds for one task.",
    "limits.tmp_bytes": "Its /tmp, which is memory.",
    "limits.out_bytes": "Its /out.",
    "limits.out_files": "Files in its /out.",
    "limits.gpus": "GPUs; each must be named in [[schedule.gpus]].",
    "limits.idle_s": "A warm container that serves nothing this long is ended.",
    "limits.keep_log_s": (
        "What a job printed that failed by itself stays with the engine so long, for `cloister node job logs`."
    ),
    "limits.max_revocation_age_s": (
        "The committee's newest revocation list may be this old; then every task is refused."
    ),
    "schedule.concurrent_jobs": "So many containers compute at once, on machines with and without GPUs.",
    "schedule.slots_per_gpu": (
        "So many share one GPU. Nothing separates their memory: above 1, list slices that the driver separates "
        "(MIG) instead."
    ),
    "schedule.time_zone": "The closed hours below are by this IANA time zone.",
    "schedule.quantum_s": (
        "A job that waited so long may have a project over its share make room, once that has computed as long."
    ),
    "schedule.grace_s": "Who makes room has so long to write a checkpoint; then its container is stopped.",
    "schedule.gpus.id": "A GPU, or a slice of one, as `nvidia-smi -L` names it (GPU-… or MIG-…).",
    "schedule.gpus.memory_bytes": 'What a job can have of it: of an H100 "80GB" 78 GiB (`nvidia-smi` counts more).',
    "schedule.closed.start": "From when nothing computes; jobs are asked for a checkpoint and wait.",
    "schedule.closed.end": "Until when.",
    "schedule.closed.days": "The days on which such hours begin; all of them where none is named.",
    "intake.source_roots": "Folders that identified data may be taken from; nothing outside them.",
    "intake.read_pixel_text": (
        "Every image is looked at for text in its pixels, and text is blacked out: some hundredth of a second of "
        "processor time a slice, a second or more of ultrasound, radiographs, …. With false those are excluded, and "
        "slices too unless they say BurnedInAnnotation NO."
    ),
    "intake.workers": (
        "Processes that de-identify: each takes up to 0.3 GB, and up to 1 GB more while it reads text. One is "
        "enough for two processors."
    ),
    "images.registries": (
        "Registries that images may be fetched from, by digest. Without one, images come in as archives only."
    ),
    "airlock.persons": "Files of local analyses leave only when these persons agree. Without one, nothing leaves.",
    "airlock.threshold": "Patients behind a number, a floor under what a permit says.",
    "airlock.reviewers": "Persons who must agree (1 or 2), a floor under what a permit says.",
    "airlock.remind_s": "A file that waits for people this long shows up in `cloister check`.",
    "airlock.expire_s": "A file that waits for people this long is deleted.",
    "privacy.epsilon_total": (
        "The most epsilon that all permits with a privacy budget may spend together on one dataset (its name, all "
        "its versions), at this delta. 0: none of them runs here. `cloister node dataset budget` says what is "
        "spent."
    ),
    "privacy.delta": "Below 1 / the patients of your largest dataset.",
    "audit.checkpoint_interval_s": "How often a checkpoint is signed, when there is anything new.",
    "logging.level": "What is logged: debug, info, warning or error, each with those after it.",
    "logging.format": "Lines for people (text), or an object a line for programs (json).",
    "staff.persons.subject": "A person, by a name of the hospital's own.",
    "staff.persons.public_key": "The public key that they sign with.",
    "airlock.persons.subject": "A person, by a name of the hospital's own.",
    "airlock.persons.public_key": "The public key that they sign with.",
}
