"""SHA-256 of files, computed once for each version of a file, in threads that nothing else waits for."""

import hashlib
import os
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor

from service.errors import ServerClosing, StorageUnavailable

THREADS = 2  # of our own: hashing gigabytes must not take the threads that answer requests
MOST_KNOWN = 10_000
CHUNK_BYTES = 1024 * 1024
Version = tuple[int, int, int, int, int]


def version_of(status: os.stat_result) -> Version:
    """What changes with a file's content: device, inode, size, and the times of its last changes in ns."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class FileDigests:
    """The digests that this process knows, by version of the file."""

    def __init__(self, closing: threading.Event) -> None:
        """`closing` ends what is being computed."""
        self._closing = closing
        self._lock = threading.RLock()  # a computation that has ended at once is forgotten under it
        self._known: OrderedDict[Version, str] = OrderedDict()
        self._under_way: dict[Version, Future[str]] = {}
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="sha256")

    def known(self, version: Version) -> str | None:
        """The digest, where it has been computed."""
        with self._lock:
            return self._known.get(version)

    def computed(self, descriptor: int, version: Version) -> Future[str]:
        """The digest of an open file's first bytes, as many as this version has; one computation for all who ask.

        It fails with StorageUnavailable where the file cannot be read, or has become shorter.
        """
        with self._lock:
            if (found := self._known.get(version)) is not None:
                ready: Future[str] = Future()
                ready.set_result(found)
                return ready
            if (waiting := self._under_way.get(version)) is None:
                own = os.dup(descriptor)  # whoever asked may close its file meanwhile
                waiting = self._under_way[version] = self._pool.submit(self._compute, own, version)
                waiting.add_done_callback(lambda _: self._ended(own, version))
            return waiting

    def sha256(self, descriptor: int, version: Version) -> str:
        """The same here and now: for small files."""
        if (found := self.known(version)) is None:
            found = self._compute(descriptor, version)
        return found

    def close(self) -> None:
        """Begin with nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ended(self, descriptor: int, version: Version) -> None:
        with self._lock:
            self._under_way.pop(version, None)
        os.close(descriptor)

    def _compute(self, descriptor: int, version: Version) -> str:
        digest, offset, size = hashlib.sha256(), 0, version[2]
        while offset < size:
            if self._closing.is_set():
                raise ServerClosing
            try:
                data = os.pread(descriptor, min(CHUNK_BYTES, size - offset), offset)
            except OSError as error:
                raise StorageUnavailable(f"shared storage cannot be read: {error.strerror}") from error
            if not data:
                raise StorageUnavailable("the file has become shorter while it was read")
            digest.update(data)
            offset += len(data)
        with self._lock:
            self._known[version] = digest.hexdigest()
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
            return self._known[version]
