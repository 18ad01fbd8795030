"""The digest of our own code, by which workers of another version are told apart."""

import importlib.util
from functools import cache
from hashlib import blake2b
from pathlib import Path

_CODE = ("cbam_core", "workers")


@cache
def code_fingerprint() -> str:
    """Tells versions of the training code apart: of its sources, as they were when this process first asked."""
    digest = blake2b(digest_size=8)
    for package in _CODE:
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
