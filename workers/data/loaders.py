"""Processes that read images ahead of the training: for sets that are larger than memory.

What they bring is a function of the order alone, and orders come from (seed, step). So it matters neither how many
processes there are nor which of them reads what, and a resumed training asks for what an unbroken one would have.

All pixels go through one piece of shared memory; a pipe to every process carries orders there and a word back. A pipe
ends with either of its ends, so each side learns at once that the other is gone, whatever killed it.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext

import torch
from torch import Tensor

from cbam_core.errors import DataError, LoaderDied, SharedMemoryFull
from workers.data.datasets.base import Images, Order
from workers.data.transfer import send

BATCHES_AHEAD = 3
"""As many batches are in shared memory: the one that is trained on, and those that are being read."""
END_SECONDS = 5.0
LONGEST_TEMP_FOLDER = 107 - len("/pymp-12345678/listener-12345678")  # bytes, so that a socket in it has at most 107
_PORTABLE = 1  # cudaHostRegisterPortable: pinned for every CUDA context
_SLOW_MAIN_IMPORTS = ("ray",)
"""What a loader would otherwise import anew with the main module of its rank, each a second's work."""


class Loader:
    """Brings what `orders` ask for, in their order, as uint8 images N C H W and classes N on `device`.

    Every batch is read by all `processes` together, each its part; the first one must be of the largest. On a CPU the
    images of a batch are overwritten once the next one is taken. The processes start with the first batch, and wait
    for another pass once all orders are brought; leaving off before that ends them.
    Raises DataError for an image that cannot be read, and LoaderDied where a process has ended.
    """

    def __init__(self, images: Images, orders: Iterable[Order], *, processes: int, device: torch.device) -> None:
        self._images = images
        self._orders = orders
        self._count = processes
        self._device = device
        self._slots: _Slots | None = None
        self._readers: list[_Reader] = []
        util.Finalize(self, _end, (self._readers,), exitpriority=1)  # before multiprocessing waits for its processes

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        asked: deque[tuple[int, Order]] = deque()
        try:
            for number, order in enumerate(self._orders):
                if len(asked) == BATCHES_AHEAD:
                    yield self._collect(*asked.popleft())
                asked.append((number % BATCHES_AHEAD, order))
                self._ask(*asked[-1])
            while asked:
                yield self._collect(*asked.popleft())
        except BaseException:  # also where nobody wants the rest: the pipes would still hold answers
            self.close()
            raise

    def close(self) -> None:
        """End the processes."""
        _end(self._readers)
        if self._slots is not None:
            self._slots.close()
            self._slots = None

    def _ask(self, slot: int, order: Order) -> None:
        if self._slots is None:
            self._slots = _Slots(len(order), self._images.shape, self._device)
            context = _server()
            self._readers += [_Reader(context, self._images, self._slots.pixels) for _ in range(self._count)]
        self._slots.wait_until_free(slot)
        length = -(-len(order) // self._count)
        for number, reader in enumerate(self._readers):
            reader.ask(slot, number * length, order.part(slice(number * length, (number + 1) * length)))

    def _collect(self, slot: int, order: Order) -> tuple[Tensor, Tensor]:
        for reader in self._readers:
            reader.wait()
        assert self._slots is not None, "it was asked for"
        return self._slots.take(slot, len(order)), send(self._images.labels[order.indices], self._device)


class _Slots:
    """Shared memory for the pixels of BATCHES_AHEAD batches; for a GPU pinned, so that it copies them by itself."""

    def __init__(self, batch_size: int, shape: tuple[int, int, int], device: torch.device) -> None:
        size = (BATCHES_AHEAD, max(1, batch_size), *shape)
        self.pixels = _shared(torch.empty(size, dtype=torch.uint8))
        self._device = device
        self._copied: list[torch.cuda.Event] = []
        if device.type == "cuda":
            self._copies = torch.cuda.Stream(device)  # beside the training's own: else a copy waits for its kernels
            self._copied = [torch.cuda.Event() for _ in range(BATCHES_AHEAD)]
            address, length = self.pixels.data_ptr(), self.pixels.nbytes
            torch.cuda.check_error(int(torch.cuda.cudart().cudaHostRegister(address, length, _PORTABLE)))

    def wait_until_free(self, slot: int) -> None:
        """Until the GPU has copied what was there."""
        if self._copied:
            self._copied[slot].synchronize()

    def take(self, slot: int, count: int) -> Tensor:
        """The first `count` images of a slot, on the device."""
        images: Tensor = self.pixels[slot, :count]
        if not self._copied:
            return images
        with torch.cuda.stream(self._copies):
            images = images.to(self._device, non_blocking=True)
            self._copied[slot].record()
        training = torch.cuda.current_stream(self._device)
        training.wait_event(self._copied[slot])
        images.record_stream(training)  # its memory is not to be given away while the training reads it
        return images

    def close(self) -> None:
        """Unpin the memory."""
        if self._copied:
            for event in self._copied:
                event.synchronize()
            torch.cuda.check_error(int(torch.cuda.cudart().cudaHostUnregister(self.pixels.data_ptr())))


def _shared(pixels: Tensor) -> Tensor:
    """The tensor in shared memory. Raises SharedMemoryFull where it does not fit."""
    try:
        shared: Tensor = pixels.share_memory_()
    except RuntimeError as error:  # torch has no better type for it
        if "shared memory" not in str(error):
            raise
        raise SharedMemoryFull(
            f"{BATCHES_AHEAD} batches of images take {pixels.nbytes / 2**20:.0f} MiB of shared memory (/dev/shm), and "
            "there is no room for them: start the container with more of it (docker run --shm-size=1g), lower "
            "train.global_batch_size, or leave data.workers_per_rank out, where the images fit into memory"
        ) from error
    return shared


class _Reader:
    """One process, as its rank sees it."""

    def __init__(self, context: ForkServerContext, images: Images, slots: Tensor) -> None:
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_read, args=(images, slots, theirs), name="image-loader", daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, slot: int, start: int, part: Order) -> None:
        """Have it write what `part` asks for into `slot`, from image `start` on."""
        crops = None if part.crops is None else part.crops.numpy()
        with self._alive():
            self._pipe.send((slot, start, part.indices.numpy(), crops))  # a tensor would take a file each

    def wait(self) -> None:
        """For what was asked first."""
        with self._alive():
            error = self._pipe.recv()
        if error is not None:
            raise error

    def let_go(self) -> None:
        """Tell it that nothing more will be asked."""
        self._pipe.close()

    def end(self) -> None:
        """Wait for its end, and where it does not come, make it."""
        self._process.join(END_SECONDS)
        self._process.kill()
        self._process.join()
        self._process.close()

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:
            self._process.join(END_SECONDS)
            raise LoaderDied(
                f"a process that reads images has ended (exit code {self._process.exitcode}); the machine may be short "
                "of memory, or of shared memory (/dev/shm): lower data.workers_per_rank, or give it more"
            ) from error


def _end(readers: list[_Reader]) -> None:
    for reader in readers:
        reader.let_go()
    for reader in readers:
        reader.end()
    readers.clear()


def _read(images: Images, slots: Tensor, pipe: Connection) -> None:
    """What a process does until its rank lets go of the pipe, or dies."""
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, OSError):
        while True:
            slot, start, indices, crops = pipe.recv()
            order = Order(torch.from_numpy(indices), None if crops is None else torch.from_numpy(crops))
            try:
                slots[slot, start : start + len(order)] = images.take(order)
            except Exception as error:
                if not isinstance(error, DataError):
                    error.add_note(traceback.format_exc())
                pipe.send(error)
            else:
                pipe.send(None)


def _keep_sockets_short() -> None:
    """Have multiprocessing put its sockets into /tmp where the folder for temporary files has too long a path."""
    before = tempfile.tempdir
    if len(os.fsencode(tempfile.gettempdir())) > LONGEST_TEMP_FOLDER:
        tempfile.tempdir = "/tmp"
    try:
        util.get_temp_dir()  # made once, and removed when this process ends
    finally:
        tempfile.tempdir = before


def _server() -> ForkServerContext:
    """Processes forked by a server that has no threads, unlike the rank, and that has loaded torch once for them all.

    What stops a whole group of processes (Ctrl-C, SIGTERM to a container) is the rank's to answer, with a checkpoint:
    the server and all it forks inherit that these signals are blocked.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *(name for name in _SLOW_MAIN_IMPORTS if name in sys.modules)])
    resource_tracker.ensure_running()  # its start would unblock the signals
    _keep_sockets_short()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context
