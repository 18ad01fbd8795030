"""Divide requirements.lock into what each layer of the image installs, hashes and all; runs while the image is built.

    python docker/packages.py LOCK RESOLVED TOOLS FOLDER

RESOLVED and TOOLS are what `uv pip compile` chose, within the lock, for the image and for the tool that lists its
packages. FOLDER gets torch.txt (torch and CUDA: most of the image, seldom changed), packages.txt (the rest), sbom.txt
(the tool) and a requirements.lock with nothing but uv. A list changes, and its layer is made anew, only with its own
packages.
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

TORCH = re.compile(r"torch|torchvision|triton|(nvidia|cuda)-.*")
PIN = re.compile(r"([A-Za-z0-9._-]+)==")


def normalise(name: str) -> str:
    """The name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(text: str) -> dict[str, str]:
    """What a lock says of each package, by its normalised name: the version, a marker, the hashes, on several lines."""
    pins: dict[str, str] = {}
    name = ""
    for line in text.splitlines(keepends=True):
        if found := PIN.match(line):
            name = normalise(found[1])
            pins[name] = ""
        if name and not line.startswith("#"):
            pins[name] += line
    return pins


def chosen(pins: dict[str, str], resolved: str) -> dict[str, str]:
    """Those pins that a resolution names. Raises SystemExit where it names a package or version that is not locked."""
    found: dict[str, str] = {}
    for line in resolved.splitlines():
        name, _, version = line.split(";")[0].strip().partition("==")
        pin = pins.get(normalise(name), "")
        if not re.match(rf"\S+=={re.escape(version)}\s", pin):
            raise SystemExit(f"{line} is not in requirements.lock; run scripts/lock")
        found[normalise(name)] = pin
    return found


def main(lock: str, resolved: str, tools: str, folder: str) -> None:
    """Write the four lists."""
    pins = read_pins(Path(lock).read_text(encoding="utf-8"))
    image = chosen(pins, Path(resolved).read_text(encoding="utf-8"))

    def write(name: str, lines: Iterable[str]) -> None:
        (Path(folder) / name).write_text("".join(lines), encoding="utf-8")

    write("torch.txt", (pin for name, pin in image.items() if TORCH.fullmatch(name)))
    write("packages.txt", (pin for name, pin in image.items() if not TORCH.fullmatch(name)))
    write("sbom.txt", chosen(pins, Path(tools).read_text(encoding="utf-8")).values())
    write("requirements.lock", [pins["uv"]])


if __name__ == "__main__":
    main(*sys.argv[1:])
