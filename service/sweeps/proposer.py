"""Has proposals made by a process of its own, one after the other, without waiting for them."""

import json
import os
import subprocess
import sys
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from service.errors import ProposalUnavailable

PROPOSE_SECONDS = 120.0  # a cold start of Optuna on a busy machine is some of it
MOST_REMEMBERED = 200  # studies


class Proposer:
    """Asks the process; starts it when it is needed and not there."""

    def __init__(self, *, seconds: float = PROPOSE_SECONDS) -> None:
        self.seconds = seconds
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="propose")
        self._process: subprocess.Popen[str] | None = None
        self._asked: OrderedDict[str, tuple[str, Future[dict[str, Any]]]] = OrderedDict()  # by study
        self._answered: set[str] = set()  # studies
        self._lock = threading.Lock()
        self._closed = False

    def ask(self, study_id: str, request: dict[str, Any]) -> dict[str, Any] | None:
        """The values, or None where they are still to come: `answered` tells. Raises ProposalUnavailable, once.

        A study that asks for something else has no use for what it asked before.
        """
        text = json.dumps(request)
        before, future = self._asked.get(study_id, ("", None))
        if future is None or before != text:
            if future is not None:
                future.cancel()
            future = self._pool.submit(self._exchange, text)
            self._asked[study_id] = (text, future)
            future.add_done_callback(lambda _: self._note(study_id))
            while len(self._asked) > MOST_REMEMBERED:
                self._asked.popitem(last=False)
            return None
        if not future.done():
            return None
        if future.exception() is not None:
            del self._asked[study_id]  # the next look asks anew
        return future.result()

    def answered(self) -> frozenset[str]:
        """The studies that have got an answer since this was last asked."""
        with self._lock:
            studies, self._answered = self._answered, set()
        return frozenset(studies)

    def close(self) -> None:
        """End the process. What is still asked for has no answer."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._closed = True
            process, self._process = self._process, None
        _end(process)

    def _note(self, study_id: str) -> None:
        with self._lock:
            self._answered.add(study_id)

    def _exchange(self, request: str) -> dict[str, Any]:
        answer = self._say(request) or self._say(request)  # it may just have gone idle
        if not answer:
            raise ProposalUnavailable
        told: dict[str, Any] = json.loads(answer)
        if "error" in told:
            raise ProposalUnavailable(f"no values were proposed: {told['error']}")
        params: dict[str, Any] = told["params"]
        return params

    def _say(self, request: str) -> str:
        """The process's answer, or nothing where it has ended, or takes too long and is ended."""
        process = self._running()
        if process is None:
            return ""
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Timer(self.seconds, process.kill)
        late.daemon = True
        late.start()
        try:
            process.stdin.write(f"{request}\n")
            process.stdin.flush()
            return process.stdout.readline()
        except (OSError, ValueError):  # it has ended, or was ended
            return ""
        finally:
            late.cancel()

    def _running(self) -> "subprocess.Popen[str] | None":
        """The process, a new one where it has ended; None where nobody asks any more."""
        with self._lock:
            if self._closed:
                return None
            if self._process is None or self._process.poll() is not None:
                _end(self._process)
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "service.sweeps.proposal_process"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                )
            return self._process


def _end(process: "subprocess.Popen[str] | None") -> None:
    if process is None:
        return
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):  # it has ended before it was told all
                stream.close()
