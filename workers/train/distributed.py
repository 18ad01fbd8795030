"""The ranks that train one network together: how they meet, agree and part."""

import contextlib
import importlib
import inspect
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from cbam_core.errors import PeerLost
from cbam_core.networks import synchronise_batch_norm
from workers.protocol.addresses import host_and_port
from workers.protocol.assignment import Assignment
from workers.protocol.outcome import classify
from workers.train.utilization import device_name, reset_peak_memory

MEET_TIMEOUT = timedelta(minutes=5)
OPERATION_TIMEOUT = timedelta(minutes=30)  # a rank may be slow; one that hangs is the dispatcher's

_ATTEMPT_KEY = "cbam/attempt"
_agreed_at: dict[tuple[str, int], Store] = {}  # where ranks have agreed by themselves, and are to meet
_FORWARD_SYNC_BUFFERS = (  # broadcast_buffers goes by this name since torch 2.14
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers"
)


@dataclass
class ProcessGroup:
    """This rank's view of its gang. Alone (world_size 1), every operation is the identity and no process group exists.

    Raises PeerLost where another rank is gone.
    """

    rank: int
    world_size: int
    device: torch.device
    _pending: tuple[Tensor, distributed.Work] | None = field(default=None, init=False)
    _wrapped: list[DistributedDataParallel] = field(default_factory=list, init=False)

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which writes what is written once."""
        return self.rank == 0

    def synchronise(self, network: nn.Module) -> nn.Module:
        """`network` with batch statistics over the whole gang, which must be on GPUs; see `synchronise_batch_norm`."""
        return network if self.world_size == 1 else synchronise_batch_norm(network)

    def wrap(self, network: nn.Module, *, static_graph: bool = False) -> nn.Module:
        """`network` with gradients averaged over the gang, for as long as the gang is together.

        `static_graph` promises that every pass is followed by an exchange and uses the same weights in the same order.
        Buffers are not broadcast at every step: nothing reads the running statistics while the network trains, and
        `sync_buffers` makes rank 0's the common ones before an evaluation.
        """
        if self.world_size == 1:
            return network
        ids = [self.device.index] if self.device.type == "cuda" else None
        buffers: dict[str, Any] = {_FORWARD_SYNC_BUFFERS: False}
        parallel = DistributedDataParallel(
            network, device_ids=ids, gradient_as_bucket_view=True, static_graph=static_graph, **buffers
        )
        self._wrapped.append(parallel)
        return parallel

    def averaging(self, parallel: nn.Module, *, now: bool) -> contextlib.AbstractContextManager[None]:
        """Around a forward and backward pass of a wrapped network: average its gradients now, or go on adding up."""
        if now or not isinstance(parallel, DistributedDataParallel):
            return contextlib.nullcontext()
        no_sync: contextlib.AbstractContextManager[None] = parallel.no_sync()
        return no_sync

    def sync_buffers(self, network: nn.Module) -> None:
        """Give every rank the buffers (running statistics) of rank 0."""
        if self.world_size > 1:
            with _peers():
                for buffer in network.buffers():
                    distributed.broadcast(buffer, src=0)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of `values` over all ranks, on every rank."""
        if self.world_size > 1:
            with _peers():
                distributed.all_reduce(values)
        return values

    def gather(self, value: Tensor) -> Tensor:
        """Every rank's `value` (a scalar) in the order of the ranks, on every rank."""
        values = torch.zeros(self.world_size, dtype=value.dtype, device=value.device)
        values[self.rank] = value
        return self.sum(values)

    def devices(self) -> str:
        """The names of the devices that the ranks train on, each once, on every rank."""
        names = [device_name(self.device)] * self.world_size
        if self.world_size > 1:
            with _peers():
                distributed.all_gather_object(names, names[0])
        return ", ".join(sorted(set(names)))

    def from_leader(self, number: int) -> int:
        """Rank 0's `number`, on every rank."""
        if self.world_size == 1:
            return number
        value = torch.tensor(number)
        with _peers():
            distributed.broadcast(value, src=0)
        return int(value)

    def agree(self, flag: int) -> int:
        """The largest `flag` that any rank raised at the previous call; the same answer on every rank.

        One call late, so that the exchange runs beside the step instead of before it. All ranks call it equally often.
        """
        if self.world_size == 1:
            return flag
        value = torch.tensor(flag)
        with _peers():
            work = distributed.all_reduce(value, op=distributed.ReduceOp.MAX, async_op=True)
            agreed = self._settle()
        self._pending = (value, work)
        return agreed

    def settle(self) -> None:
        """Wait for the last exchange of `agree`, so that the gang may part."""
        with _peers():
            self._settle()

    def release(self) -> None:
        """Let go of the process group, so that it ends with `destroy_process_group` and its threads with it.

        Its threads drop the tensors of a finished exchange some time later; where that is while the interpreter ends,
        the process aborts (https://github.com/pytorch/pytorch/issues/190489).
        """
        for parallel in self._wrapped:
            del parallel.reducer, parallel.logger, parallel.process_group
        self._wrapped.clear()

    def _settle(self) -> int:
        if self._pending is None:
            return 0
        value, work = self._pending
        self._pending = None
        work.wait()
        return int(value)


@contextlib.contextmanager
def _peers() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo and NCCL have no better type for it
        if classify(error) == "CUDA_OOM" or isinstance(error, torch.AcceleratorError):
            raise  # this rank's own, that has only come to light here
        raise PeerLost(f"another worker of this gang is gone: {error}") from error


def training_device(assignment: Assignment) -> torch.device:
    """The CPU, or this rank's GPU: the one of its assignment, or the one torchrun numbers for it, or the next."""
    if not assignment.spec.resources.gpus_per_worker:
        return torch.device("cpu")
    if assignment.node_gpus:
        return torch.device("cuda", assignment.gpu_index)
    by_hand = assignment.rank % max(1, torch.cuda.device_count())
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", by_hand)))


@contextlib.contextmanager
def gang_of(assignment: Assignment) -> Iterator[ProcessGroup]:
    """Meet the other ranks; part from them at the end, so that this process can join another gang."""
    device = training_device(assignment)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        if (share := assignment.spec.resources.gpus_per_worker) < 1:
            torch.cuda.set_per_process_memory_fraction(share, device)  # the rest is its neighbours'
    reset_peak_memory(device)
    gang = ProcessGroup(assignment.rank, assignment.world_size, device)
    if assignment.world_size == 1:
        yield gang
        return
    # Its functions have the process group of the moment as their default, for ever; DistributedDataParallel imports it.
    importlib.import_module("torch.distributed.nn.functional")
    address = (assignment.master_address, assignment.master_port)
    store = _agreed_at.pop(address, None) or _open_store(address, assignment.rank, assignment.world_size)
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=PrefixStore(assignment.token, store),
        rank=assignment.rank,
        world_size=assignment.world_size,
        timeout=OPERATION_TIMEOUT,
    )
    try:
        yield gang
        gang.release()  # not after an error: an exchange with a rank that hangs would hold up this one
    finally:
        distributed.destroy_process_group()


def agree_on_attempt(
    attempt: int, token: str, *, rank: int, world_size: int, address: tuple[str, int]
) -> tuple[int, str]:
    """Rank 0's attempt number and token, on every rank, for a gang that nobody has assigned.

    The store of the agreement stays, and the gang meets there. Were rank 0 to close it and open another at the same
    address, a quicker rank would join the one that goes, and both would wait for each other in vain.
    """
    store = _agreed_at[address] = _open_store(address, rank, world_size)
    if rank == 0:
        store.set(_ATTEMPT_KEY, f"{attempt} {token}")
    number, token = store.get(_ATTEMPT_KEY).decode().split()
    store.set(f"{_ATTEMPT_KEY}/{rank}", "")
    if rank == 0:
        store.wait([f"{_ATTEMPT_KEY}/{other}" for other in range(world_size)])  # it goes with this process
    return int(number), token


def _open_store(address: tuple[str, int], rank: int, world_size: int) -> Store:
    """The key-value store in which the ranks find each other; rank 0 holds it, or torchrun does.

    It listens at the gang's own address alone; by itself TCPStore would listen at every address of the machine.
    """
    host, port = address
    if rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            listener = socket.create_server((host, port), family=family)
        except OSError as error:  # another process was quicker; the next attempt gets another port
            raise PeerLost(f"the gang cannot meet at {host_and_port(host, port)}: {error}") from error
        return TCPStore(
            host, port, world_size, is_master=True, timeout=MEET_TIMEOUT, master_listen_fd=listener.detach()
        )
    store: Store = next(rendezvous(f"tcp://{host_and_port(host, port)}", rank, world_size, timeout=MEET_TIMEOUT))[0]
    return store
