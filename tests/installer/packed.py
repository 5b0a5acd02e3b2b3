"""Real bundles of a product of one file, with the pip that this environment has."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

from deploy.release.keys import SigningKey
from deploy.release.pack import Release, Source, pack
from tests.installer.ground import product

_WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def _write_wheel(path: Path, files: Iterable[tuple[str, bytes]], record: str) -> Path:
    """A wheel of these files, with the list of hashes that pip compares."""
    lines = []
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files:
            wheel.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            lines.append(f"{name},sha256={digest},{len(content)}")
        wheel.writestr(record, "\n".join([*lines, f"{record},,", ""]))
    return path


def pip_wheel(folder: Path) -> Path:
    pip = distribution("pip")
    info = f"pip-{pip.version}.dist-info"
    files = [
        (str(each), Path(str(pip.locate_file(each))).read_bytes()) for each in pip.files or () if _ships(str(each))
    ]
    return _write_wheel(folder / f"pip-{pip.version}-py3-none-any.whl", files, f"{info}/RECORD")


def _ships(name: str) -> bool:
    return name.startswith("pip") and not name.endswith((".pyc", "RECORD", "INSTALLER", "REQUESTED", "direct_url.json"))


def product_wheel(folder: Path, root: Path, version: str) -> Path:
    info = f"cloister-{version}.dist-info"
    files = [
        ("the_product.py", product(root, version).encode()),
        (f"{info}/METADATA", f"Metadata-Version: 2.1\nName: cloister\nVersion: {version}\n".encode()),
        (f"{info}/WHEEL", _WHEEL.encode()),
        (f"{info}/entry_points.txt", b"[console_scripts]\ncloister = the_product:main\n"),
    ]
    return _write_wheel(folder / f"cloister-{version}-py3-none-any.whl", files, f"{info}/RECORD")


def bundle(
    folder: Path, root: Path, key: SigningKey, version: str, python: str, arch: str = "x86_64", debs: Iterable[str] = ()
) -> Path:
    """A signed bundle of a version for a machine below `root`."""
    at = folder / f"{version}-{arch}"
    at.mkdir(parents=True)
    pip, ours = pip_wheel(at), product_wheel(at, root, version)
    lock = at / "requirements.txt"
    lock.write_text(f"cloister=={version} --hash=sha256:{hashlib.sha256(ours.read_bytes()).hexdigest()}\n")
    image = at / "cloister-sentinel.tar"
    image.write_bytes(b"an image" * 100)
    sources = [
        Source(f"wheels/{pip.name}", "wheel", pip, "pip"), Source(f"wheels/{ours.name}", "wheel", ours, "cloister"),
        Source("requirements.txt", "doc", lock),
        Source("images/cloister-sentinel.tar", "image", image, "cloister-sentinel", f"sha256:{'5' * 64}"),
    ]  # fmt: skip
    for name in debs:
        (at / f"{name}.deb").write_bytes(b"a package")
        sources.append(Source(f"debs/{name}.deb", "deb", at / f"{name}.deb", name))
    deploy = Path(__file__).parents[2] / "deploy"
    scripts = [deploy / "install.sh", deploy / "release-keys.txt", *sorted((deploy / "install").glob("*.py"))]
    sources += [Source(str(each.relative_to(deploy)), "script", each) for each in scripts]
    release = Release(version, 2, "5" * 40, 1_760_000_000, python, arch, ("debian-12",))
    return pack(at, release, sources, key)
