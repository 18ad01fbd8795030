"""Write what the image installs, with hashes: docker/torch.txt and docker/requirements.txt. Run by scripts/lock.

Two lists, and so two layers: torch and CUDA, which are most of the image and change seldom, and all the rest. Where an
index of CPU builds is given to the build, it takes the place of the first list. pip says what it would install.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGE_PYTHON = (3, 11)
EXTRAS = "explain,onnx,otel,postgres,s3"
TORCH = re.compile(r"torch|torchvision|triton|(nvidia|cuda)-.*")
HEADER = "# {}, for Python 3.11 on Linux x86-64. Written by scripts/lock; do not edit.\n"


def resolve() -> list[tuple[str, str, str]]:
    """Name, version and sha256 of every distribution of the image, as pip chooses them within constraints.txt."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"),
                *("--only-binary=:all:", f"--report={report}", "-c", "constraints.txt", f".[{EXTRAS}]"),
            ],
            cwd=ROOT,
            check=True,
        )
        chosen = json.loads(report.read_text())["install"]
    return sorted(
        (
            re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower(),
            item["metadata"]["version"],
            item["download_info"]["archive_info"]["hashes"]["sha256"],
        )
        for item in chosen
        if "archive_info" in item["download_info"]  # all but this project, which is a folder
    )


def write(path: Path, title: str, pins: list[tuple[str, str, str]]) -> None:
    """One line a distribution, as pip reads it."""
    lines = [f"{name}=={version} --hash=sha256:{digest}\n" for name, version, digest in pins]
    path.write_text(HEADER.format(title) + "".join(lines), encoding="utf-8")
    print(f"scripts/lock: wrote {path.relative_to(ROOT)}: {len(lines)} distributions")


def main() -> int:
    """Write both lists; 2 where this Python is not the image's."""
    if sys.version_info[:2] != IMAGE_PYTHON:
        print("scripts/lock: the image has Python 3.11; say where one is: PYTHON=python3.11 scripts/lock image")
        return 2
    pins = resolve()
    write(ROOT / "docker/torch.txt", "torch and what is CUDA's", [pin for pin in pins if TORCH.fullmatch(pin[0])])
    rest = [pin for pin in pins if not TORCH.fullmatch(pin[0])]
    write(ROOT / "docker/requirements.txt", "All that the image holds beside torch", rest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
