"""`python -m benchmarks.evidence`: what scripts/evidence does, once the local stack of CBAM_HOME runs."""

import argparse
import functools
import signal
import sys
from pathlib import Path

from benchmarks.evidence.pages import FOLDER, draw_attention, write_pages
from benchmarks.evidence.plan import SPEC, read_plan
from benchmarks.evidence.records import UnfitRecord, read_records
from benchmarks.evidence.running import RunsFailed, finish
from service.client.client import Client
from service.errors import ServiceError

DOCS = SPEC.parents[2] / "docs"


def main() -> None:
    """Train what is missing, and write the page, also where it is cut short."""
    options = argparse.ArgumentParser(prog="scripts/evidence", description=__doc__)
    options.add_argument("--docs", type=Path, default=DOCS, help="the folder to write into")
    options.add_argument("--quick", action="store_true", help="one epoch of small images, two seeds")
    given = options.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    plan = read_plan(quick=given.quick)
    folder = given.docs / FOLDER
    given.docs.mkdir(parents=True, exist_ok=True)
    problem = None
    try:
        with Client() as client:
            finish(client, plan, folder, show=functools.partial(draw_attention, docs=given.docs))
    except UnfitRecord as error:
        sys.exit(str(error))
    except (RunsFailed, ServiceError) as error:
        problem = str(error)
    except KeyboardInterrupt:
        problem = "stopped; the same command goes on from here"
    records = read_records(folder, plan)
    write_pages(plan, records, given.docs)
    print(f"{len(records)} of {len(plan.runs)} runs are in {folder}", flush=True)
    sys.exit(problem)


if __name__ == "__main__":
    main()
