"""Everything that only a GPU can show, in one command: tests and benchmarks in order of value, within nine minutes.

    scripts/gpu [--list] [--only NAME …] [--skip NAME …] [--tiny] [--budget-seconds 540] [--output gpu-results.jsonl]

Every part of `benchmarks/gpu_parts.py` runs as a process of its own, with a time limit, and its result is a line of
the output as soon as it is over: a part that fails or hangs costs the others nothing but its time. Without network:
needs torch, torchvision, timm, triton, numpy, scikit-learn, safetensors, pillow, psutil, PyYAML, pytest,
pytest-timeout and hypothesis. Where pydantic is missing, the wheels of scripts/gpu-wheels.txt are installed from the
folder $CBAM_WHEELS (default: .whl), for this run only. Where $OUT is a folder, output and log go there.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.gpu_parts import JSON, PARTS, Part
from benchmarks.report import SKIPPED, ratio_line

ROOT = Path(__file__).parents[1]
WHEELS = ROOT / "scripts" / "gpu-wheels.txt"
BUDGET_SECONDS = 540
TINY_BUDGET_SECONDS = 3600  # a CPU that others use as well
MACHINE_SECONDS = 90
GRACE_SECONDS = 3
PYTEST_FOUND_NONE = 5
KEPT_LINES = 60  # of a part's output, in its record


class Runner:
    """Runs parts one by one, and appends the result of each to `output` at once; what they print is in `log`."""

    def __init__(self, output: Path, environment: dict[str, str], *, deadline: float, tiny: bool) -> None:
        output.parent.mkdir(parents=True, exist_ok=True)
        self.output, self.log = output, output.with_name("gpu.log")
        self.records: list[dict[str, Any]] = []
        self._environment = environment | {"PYTHONUNBUFFERED": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        self._deadline, self._tiny = deadline, tiny
        if tiny:
            self._environment["TORCH_COMPILE_DISABLE"] = "1"  # to compile takes a CPU minutes

    def run(self, part: Part, *, gpus: int) -> None:
        """Run a part, unless this machine, this checkout or the time that is left says no."""
        reason = self._why_not(part, gpus)
        if reason:
            self.record(part=part.name, result="skipped", seconds=0.0, detail=reason)
            return
        limit = self._limit_of(part)
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder, "report.json")
            command = [word.replace(JSON, str(report)) for word in (part.tiny if self._tiny else part.command)]
            print(f"\n== {part.name}: python {' '.join(command)}", flush=True)
            code, seconds, lines = self.execute(command, limit)
            result, detail = _outcome(code, lines, limit)
            found = _read(report)
            if result == "passed" and found.get("ratios"):
                detail = ""  # they say more
        self.record(
            part=part.name,
            result=result,
            seconds=round(seconds, 1),
            detail=detail,
            command=command,
            limit=round(limit, 1),
            ratios=found.get("ratios", []),
            notes=found.get("notes", []),
            options=found.get("options", {}),
            results=found.get("results", []),
            output=lines[-KEPT_LINES:],
        )

    def execute(self, command: Sequence[str], limit: float) -> tuple[int | None, float, list[str]]:
        """Run Python with these arguments; gives its exit code (None: killed at `limit`), its seconds and its lines."""
        started = time.monotonic()
        with self.log.open("ab") as log:
            log.write(f"\n== {' '.join(command)}\n".encode())
            log.flush()
            begin = log.tell()
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # not a session: what this session leaves behind can be ended with it
            )
            try:
                code: int | None = process.wait(limit)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _end_group(process)
        with self.log.open("rb") as log:
            log.seek(begin)
            text = log.read().decode(errors="replace")
        print(text, end="", flush=True)
        return code, time.monotonic() - started, text.splitlines()

    def record(self, **values: Any) -> None:
        """Append one JSON object to the output."""
        self.records.append(values)
        with self.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values, ensure_ascii=False) + "\n")

    def _limit_of(self, part: Part) -> float:
        """Seconds until it is killed. Those of the table are a GPU's: at tiny sizes only the budget counts."""
        left = self._deadline - time.monotonic()
        return left if self._tiny else min(part.limit, left)

    def _why_not(self, part: Part, gpus: int) -> str | None:
        left = self._deadline - time.monotonic()
        if part.file and not (ROOT / part.file).exists():
            return f"there is no {part.file}"
        if part.gpus > max(gpus, 1) and not self._tiny:
            return f"needs {part.gpus} GPUs; there is {gpus}"
        if left < (1 if self._tiny else part.seconds):
            return f"takes {part.seconds} s, and {max(left, 0):.0f} s are left"
        return None


def main(arguments: Sequence[str] | None = None, parts: Sequence[Part] = PARTS) -> int:
    """Run the parts that were asked for; 0 where none of them failed or was killed."""
    started = time.monotonic()
    options = _parser(parts).parse_args(arguments)
    if options.list:
        print(
            *(f"{part.name:<16} {part.seconds:>4} s, at most {part.limit:>3}  {part.shows}" for part in parts), sep="\n"
        )
        return 0
    signal.signal(signal.SIGTERM, _end)
    output = Path(os.environ["OUT"], "gpu-results.jsonl") if os.environ.get("OUT") else options.output.resolve()
    chosen = [part for part in parts if part.name in (options.only or part.name) and part.name not in options.skip]
    with contextlib.ExitStack() as stack:
        try:
            environment = stack.enter_context(installed(dict(os.environ)))
        except subprocess.CalledProcessError as error:
            print(f"scripts/gpu: pydantic is missing, and its wheels cannot be installed: {error}", file=sys.stderr)
            return 1
        deadline = started + (options.budget_seconds or (TINY_BUDGET_SECONDS if options.tiny else BUDGET_SECONDS))
        runner = Runner(output, environment, deadline=deadline, tiny=options.tiny)
        machine = _machine(runner)
        if machine.get("gpus") == 0 and not options.tiny:
            print("scripts/gpu: torch sees no GPU; --tiny tries every part on the CPU", file=sys.stderr)
            return 1
        try:
            for part in chosen:
                runner.run(part, gpus=machine.get("gpus", 1))
        finally:
            print(table(machine, runner.records, time.monotonic() - started), flush=True)
    return int(any(record["result"] in ("failed", "killed") for record in runner.records))


def _parser(parts: Sequence[Part]) -> argparse.ArgumentParser:
    names = [part.name for part in parts]
    parser = argparse.ArgumentParser(
        prog="scripts/gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="say what there is, with its times, and end")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help="run these parts")
    parser.add_argument("--skip", nargs="+", metavar="NAME", choices=names, default=[], help="leave these parts out")
    parser.add_argument("--tiny", action="store_true", help="run all at tiny sizes, also where there is no GPU")
    parser.add_argument("--budget-seconds", type=float, help=f"time for all parts together, {BUDGET_SECONDS} on a GPU")
    parser.add_argument("--output", type=Path, default=Path("gpu-results.jsonl"), help="a JSON object for each part")
    return parser


@contextlib.contextmanager
def installed(environment: dict[str, str], requirements: Path = WHEELS) -> Iterator[dict[str, str]]:
    """Yield `environment` with everything to import in it, from wheels where pydantic is missing."""
    if importlib.util.find_spec("pydantic"):
        yield environment
        return
    wheels = environment.get("CBAM_WHEELS", str(ROOT / ".whl"))
    with tempfile.TemporaryDirectory(prefix="cbam-gpu-") as folder:
        options = ["-q", "--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check"]
        source = ["--find-links", wheels, "--requirement", str(requirements), "--target", folder]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *source], check=True, timeout=120)
        path = os.pathsep.join(filter(None, (folder, environment.get("PYTHONPATH"))))
        yield environment | {"PYTHONPATH": path}


def table(machine: dict[str, Any], records: Sequence[dict[str, Any]], seconds: float) -> str:
    """All that was found, as text: the machine, a line for each part, and below it its ratios."""
    facts = ("driver", "torch", "triton", "python", "commit")
    versions = ", ".join(f"{name} {machine[name]}" for name in facts if machine.get(name))
    lines = ["", f"{machine.get('device', 'unknown device')} × {machine.get('gpus', '?')}, {versions}"]
    lines.append(f"{'part':<16} {'result':<8} {'seconds':>7}  detail")
    for record in records[1:]:
        lines.append(
            f"{record['part']:<16} {record['result']:<8} {record['seconds']:>7.1f}  {record['detail']}".rstrip()
        )
        lines += [f"    {ratio_line(row)}" for row in record.get("ratios", [])]
        lines += [f"    {note}" for note in record.get("notes", [])]
    return "\n".join([*lines, f"{seconds:.0f} s in all"])


def _machine(runner: Runner) -> dict[str, Any]:
    """What there is; it is the first record, whatever became of it."""
    print("== machine", flush=True)
    code, seconds, lines = runner.execute(["-m", "benchmarks.machine"], MACHINE_SECONDS)
    machine: dict[str, Any] = {}
    if code == 0:
        with contextlib.suppress(IndexError, json.JSONDecodeError):
            machine = json.loads(lines[-1])
    result = "passed" if machine else "failed"
    runner.record(part="machine", result=result, seconds=round(seconds, 1), detail="", machine=machine)
    return machine


def _outcome(code: int | None, lines: Sequence[str], limit: float) -> tuple[str, str]:
    """The result of a part, and its last words."""
    last = next((line.strip("= ") for line in reversed(lines) if line.strip()), "")
    if code is None:
        return "killed", f"after {limit:.0f} s; last line: {last}"
    if code == SKIPPED:
        return "skipped", last
    if code == PYTEST_FOUND_NONE or (code == 0 and " skipped in " in last and " passed" not in last):
        return "skipped", next((line for line in lines if line.startswith("SKIPPED [")), last)
    return ("passed", last) if code == 0 else ("failed", f"exit code {code}; last line: {last}")


def _read(report: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
    return found


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all of its group. torchrun's ranks are in none of ours; on SIGTERM it ends them itself."""
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit("scripts/gpu: ended by SIGTERM")  # on its way out it kills the part that runs


if __name__ == "__main__":
    sys.exit(main())
