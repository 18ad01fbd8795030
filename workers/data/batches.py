"""The batches of a training: which images every step sees, on every rank, from the seed and the step alone."""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cbam_core.errors import DataError
from cbam_core.image_folders.layout import PartName
from cbam_core.normalisation import Normalisation
from cbam_core.spec import AugmentSpec
from workers.data.augment.geometry import NUMBERS, erase, mix, place, tint
from workers.data.datasets.base import Dataset, Images, Order
from workers.data.loaders import Loader
from workers.data.transfer import send
from workers.seeding import generator_of

NO_AUGMENTATION = AugmentSpec()
CPU = torch.device("cpu")


@dataclass(frozen=True)
class RankShard:
    """Which part of every global batch a rank takes: rank r of W takes the r-th of W equal runs of images."""

    rank: int
    world_size: int
    global_batch_size: int

    @property
    def batch_size(self) -> int:
        """Images per step on one rank."""
        return self.global_batch_size // self.world_size

    def of(self, batch: Tensor) -> Tensor:
        """This rank's part of a global batch; shorter or empty where the batch is."""
        return batch[self.rank * self.batch_size : (self.rank + 1) * self.batch_size]


@dataclass(frozen=True)
class _Direct:
    """Brings images from where they are, as a Loader would: those in memory are on the training device already."""

    images: Images
    orders: Iterable[Order]
    device: torch.device

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for order in self.orders:
            indices = send(order.indices, self.device)
            yield self.images.take(Order(indices, order.crops)), self.images.labels[indices]


class Batches:
    """Normalised batches on the training device.

    The order of an epoch is a permutation drawn from (seed, epoch), cut into global batches; a last, smaller one is
    left out. So the images of step k are the same for any number of ranks, and after any resume. What changes them is
    drawn from `augment_seed`, or the same `seed` where it is None. `loaders` processes bring them; with none, this one
    takes them from where they are, which for images in memory is fastest.
    """

    def __init__(
        self,
        dataset: Dataset,
        share: RankShard,
        *,
        seed: int,
        augment_seed: int | None = None,
        augment: AugmentSpec = NO_AUGMENTATION,
        device: torch.device = CPU,
        loaders: int = 0,
    ) -> None:
        if len(dataset.train) < share.global_batch_size:
            raise DataError(
                f"the training set has {len(dataset.train)} images, fewer than "
                f"global_batch_size ({share.global_batch_size}); lower it"
            )
        self._dataset = dataset
        self._share = share
        self._seed = seed
        self._augment_seed = seed if augment_seed is None else augment_seed
        self._cuts = augment.random_resized_crop and dataset.train.cuts
        self._augment = augment.model_copy(update={"random_resized_crop": False}) if self._cuts else augment
        self._device = device
        self._processes = loaders
        self._evaluated: dict[PartName, Iterable[tuple[Tensor, Tensor]]] = {}
        self.normalise_by(dataset.normalisation)

    @property
    def steps_per_epoch(self) -> int:
        """Full global batches in the training set."""
        return len(self._dataset.train) // self._share.global_batch_size

    def train_from(self, step: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Images (float N C H W) and targets of this rank for `step`, and every step after it, for ever.

        Targets are classes (N), or probabilities (N K) where images are mixed. To close it ends the processes.
        """
        for images, labels in self._bring(self._dataset.train, self._orders(step)):
            yield self._changed(images, labels, step)
            step += 1

    def evaluated(self, part: PartName) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's share of the images of `part`, unchanged, each image once over all ranks.

        Every rank gets the same number of batches, the last ones possibly empty, so that ranks may meet at each.
        Processes that read them stay, and wait for the next pass.
        """
        if part not in self._evaluated:
            self._evaluated[part] = self._bring(self._part(part), [Order(places) for places in self._shares(part)])
        for images, labels in self._evaluated[part]:
            yield self.normalise(images.float()), labels

    def size(self, part: PartName) -> int:
        """Images in `part`."""
        return len(self._part(part))

    def places(self, part: PartName) -> Tensor:
        """Where in `part` this rank's images stand, in the order in which `evaluated` brings them."""
        return torch.cat(self._shares(part))

    def _shares(self, part: PartName) -> list[Tensor]:
        """This rank's share of every batch."""
        batches = torch.arange(len(self._part(part))).split(self._share.global_batch_size)
        return [self._share.of(batch) for batch in batches]

    def _part(self, part: PartName) -> Images:
        images: Images | None = getattr(self._dataset, part)
        assert images is not None, f"this dataset has no {part}"
        return images

    def close(self) -> None:
        """End the processes that read what is evaluated, if there are any."""
        for loader in self._evaluated.values():
            if isinstance(loader, Loader):
                loader.close()

    def _orders(self, step: int) -> Iterator[Order]:
        """What this rank asks for at `step` and after it, for ever."""
        epoch, first = divmod(step, self.steps_per_epoch)
        while True:
            shuffled = torch.randperm(len(self._dataset.train), generator=generator_of(self._seed, "epoch", epoch))
            for batch in shuffled.split(self._share.global_batch_size)[first : self.steps_per_epoch]:
                crops = self._numbers("augment", step, NUMBERS)[:, :4] if self._cuts else None
                yield Order(self._share.of(batch), crops)
                step += 1
            epoch, first = epoch + 1, 0

    def _bring(self, images: Images, orders: Iterable[Order]) -> Iterable[tuple[Tensor, Tensor]]:
        """uint8 images N C H W and classes N of every order, on the training device."""
        if not self._processes:
            return _Direct(images, orders, self._device)
        return Loader(images, orders, processes=self._processes, device=self._device)

    def _changed(self, pixels: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Training images, uint8 N C H W, as the spec changes them at `step`."""
        images = pixels.float()
        if self._augment == NO_AUGMENTATION:
            return self.normalise(images), labels
        from workers.data.augment import policies  # loads torchvision, half a second that most do without

        numbers = send(self._numbers("augment", step, NUMBERS), self._device)
        images = place(images, self._augment, numbers)
        if count := policies.layers(self._augment):
            chosen = self._numbers("policy", step, count, policies.NUMBERS)
            images = policies.change(images.round().to(torch.uint8), self._augment, chosen).float()
        images = tint(images, self._augment, numbers)
        if self._augment.erasing:
            fill = self._mean if self._augment.erasing_fill == "mean" else torch.zeros_like(self._mean)
            images = erase(images, self._augment.erasing, numbers[:, 9:14], fill=fill)
        if self._augment.mixup or self._augment.cutmix:
            classes = self._dataset.num_classes
            images, labels = mix(images, labels, self._augment, num_classes=classes, seed=(self._augment_seed, step))
        return self.normalise(images), labels

    def _numbers(self, purpose: str, step: int, *shape: int) -> Tensor:
        """Uniform random numbers of `shape` for every image of this rank, drawn for the global batch; on the CPU."""
        generator = generator_of(self._augment_seed, purpose, step)
        return self._share.of(torch.rand(self._share.global_batch_size, *shape, generator=generator))

    def normalise_by(self, normalisation: Normalisation) -> None:
        """Normalise from now on so, and not by the statistics of the dataset."""
        mean, std = (torch.tensor(values, device=self._device) for values in (normalisation.mean, normalisation.std))
        self._mean = mean.mul(255).view(1, -1, 1, 1)
        self._inverse_std = std.mul(255).reciprocal().view(1, -1, 1, 1)

    def normalise(self, images: Tensor) -> Tensor:
        """Float N C H W in 0..255 to what the network takes."""
        return (images - self._mean) * self._inverse_std
