"""What a benchmark has measured, as JSON in a file that is complete after every result.

A benchmark that is killed at its time limit leaves what it has measured until then.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

SKIPPED = 77
"""Exit code of a benchmark that cannot run on this machine, as in automake; its last line is the reason."""


class Report:
    """The rows, ratios and notes of one benchmark; written to `path` after each, where there is one."""

    def __init__(self, benchmark: str, path: Path | None, options: dict[str, Any] | None = None) -> None:
        self.path = path
        self.content: dict[str, Any] = {
            "benchmark": benchmark,
            "options": {name: value for name, value in (options or {}).items() if name != "json"},  # its own path
            "results": [],
            "ratios": [],
            "notes": [],
        }
        self._write()

    def add(self, **row: Any) -> None:
        """Keep one row of results."""
        self.content["results"].append(row)
        self._write()

    def ratio(self, name: str, value: float, *, at_most: float | None = None, at_least: float | None = None) -> None:
        """Keep and print a ratio; with a budget, also whether it is met."""
        row: dict[str, Any] = {"name": name, "value": round(value, 4)}
        if at_most is not None:
            row |= {"budget": f"≤ {at_most}", "met": value <= at_most}
        elif at_least is not None:
            row |= {"budget": f"≥ {at_least}", "met": value >= at_least}
        self.content["ratios"].append(row)
        print(ratio_line(row), flush=True)
        self._write()

    def note(self, text: str) -> None:
        """Keep and print what a reader of the numbers has to know, such as a contestant that was left out."""
        self.content["notes"].append(text)
        print(text, flush=True)
        self._write()

    def _write(self) -> None:
        if self.path is None:
            return
        new = self.path.with_name(f"{self.path.name}.new")
        new.write_text(json.dumps(self.content, ensure_ascii=False), encoding="utf-8")
        os.replace(new, self.path)


def ratio_line(row: dict[str, Any]) -> str:
    """One ratio as a line of text, with its budget and whether it is met."""
    budget = f"  (budget {row['budget']}{'' if row['met'] else ', MISSED'})" if "budget" in row else ""
    return f"{row['name']:<44} {row['value']:7.3f}{budget}"


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark's parser the option `--json`."""
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the results to this file, as JSON")
