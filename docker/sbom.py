"""Write the software bill of materials (SBOM) of an environment as CycloneDX JSON; runs while the image is built.

    python docker/sbom.py ENVIRONMENT FOLDER TARGET

The packages, their licences and what needs what come from the installed metadata (cyclonedx-py), the hashes from
torch.txt and packages.txt in FOLDER: one of a package's hashes is that of the archive that was installed. FOLDER holds
our pyproject.toml too: it is the component that all others are there for.
"""

import json
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packages import normalise, read_pins


def add_hashes(component: dict[str, Any], pins: dict[str, str]) -> None:
    """Name the archives that the lock allows; an archive from another index than the lock's has other hashes."""
    pin = pins.get(normalise(component["name"]), "")
    if not re.match(rf"\S+=={re.escape(component['version'])}\s", pin):
        return
    hashes = [{"alg": "SHA-256", "content": digest} for digest in re.findall(r"sha256:([0-9a-f]{64})", pin)]
    archives = {"type": "distribution", "url": component["purl"], "comment": "locked archives", "hashes": hashes}
    component.setdefault("externalReferences", []).append(archives)


def add_license(component: dict[str, Any], licenses: dict[str, str]) -> None:
    """Add the old `License` field where it is a name of one line; cyclonedx-py takes only SPDX expressions from it."""
    declared = licenses.get(normalise(component["name"]), "")
    if "licenses" not in component and declared and "\n" not in declared:
        component["licenses"] = [{"license": {"name": declared, "acknowledgement": "declared"}}]


def main(environment: str, folder: str, target: str) -> None:
    """Write it. Raises SystemExit where the result is not valid CycloneDX."""
    project = Path(folder) / "pyproject.toml"
    command = ["-m", "cyclonedx_py", "environment", "--output-reproducible", f"--pyproject={project}", environment]
    made = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True, check=True)
    bom = json.loads(made.stdout)
    pins = {
        name: pin
        for file in ("torch.txt", "packages.txt")
        for name, pin in read_pins((Path(folder) / file).read_text(encoding="utf-8")).items()
    }
    installed = distributions(path=[str(path) for path in Path(environment).glob("lib/python*/site-packages")])
    licenses = {normalise(item.metadata["Name"]): item.metadata["License"] or "" for item in installed}
    for component in bom["components"]:
        add_hashes(component, pins)
        add_license(component, licenses)
    text = json.dumps(bom, indent=1, sort_keys=True)
    if problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise SystemExit(f"not valid CycloneDX: {problem}")
    Path(target).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
