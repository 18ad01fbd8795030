"""The use cases: what the API does for a user, without HTTP in it."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from cbam_core.data_roots import DataRoots
from cbam_core.pointers import MOST_ERROR_ITEMS, pointer_part
from cbam_core.printable import unprintable
from cbam_core.semantics import CURRENT
from cbam_core.spec import AugmentSpec, EMASpec, ExperimentSpec, TrainSpec, ValSpec
from cbam_core.tags import WHY_RESERVED, reserved
from service.database.models.experiments import Experiment
from service.domain.roles import Caller, require_change
from service.domain.spec_patch import apply_patch
from service.domain.states import TERMINAL, Desired, State
from service.errors import InvalidField, InvalidFields
from service.experiments.early_checks import check_backbone, check_folder
from service.experiments.initial_weights import with_digest
from service.experiments.store import Changes, ExperimentStore, require_allowed
from service.experiments.submission import checked
from service.settings import Settings

LONGEST_SPEC_BYTES = 64 * 1024
NOT_COMPARABLE = (
    "not comparable with the experiment that it was made from: that one's semantics are {}, this one's {}; val is cut "
    "from train now, first weights are drawn by module, and attention of timm's networks stands on the branch"
)
ADDED: dict[str, Any] = {
    "data.augment.erasing_fill": AugmentSpec().erasing_fill,
    "data.columns": None,
    "data.val": ValSpec().model_dump(mode="json"),
    "model.weights": None,
    "model.freeze": [],
    "train.attention_lr_scale": 1.0,
    "train.class_weights": TrainSpec().class_weights,
    "train.ema.buffers": EMASpec().buffers,
    "train.layer_decay": None,
    "train.loss": TrainSpec().loss,
    "train.seeds": None,
}
"""Fields that later versions have brought, and their defaults."""
WISHES = {"cancel": Desired.CANCEL, "pause": Desired.PAUSE, "resume": Desired.RUN}


def submit(
    store: ExperimentStore, settings: Settings, spec: ExperimentSpec, *, caller: Caller, key: str | None
) -> tuple[Experiment, bool]:
    """Accept an experiment, which is the caller's from now on. Returns it and whether it is new: a key may be known.

    Raises InvalidFields (a dataset outside the data roots or that is not there, weights likewise, a network that timm
    does not have, a spec that is too large, tags that are not a user's to give), IdempotencyConflict (the key came with
    another body), ExperimentDeleted (what it stands for is gone), or DiskQuotaExceeded.
    """
    body_hash = _hash(as_ever(spec.model_dump(mode="json")))
    if (known := store.submitted(key, owner=caller.name, body_hash=body_hash)) is not None:
        return known, False  # whatever has become of its data since
    check(settings, spec)
    spec = with_digest(store.database, settings, spec)
    return store.submit(spec, owner=caller.name, key=key, body_hash=body_hash, quota_disk=settings.quota_disk)


def as_ever(fields: dict[str, Any], *, known: Collection[str] = ()) -> dict[str, Any]:
    """The fields without what later versions have added and the spec leaves to its default: one body, one hash.

    What was there already when such bodies were first taken is `known`, and stays.
    """
    for path, default in ADDED.items():
        if path not in known:
            fields = _without(fields, path.split("."), default)
    return fields


def _without(fields: dict[str, Any], path: Sequence[str], default: Any) -> dict[str, Any]:
    name, *inner = path
    value = fields.get(name)
    if not inner:
        return {other: kept for other, kept in fields.items() if other != name or kept != default}
    return fields if not isinstance(value, dict) else {**fields, name: _without(value, inner, default)}


def _hash(body: object) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def clone(
    store: ExperimentStore,
    settings: Settings,
    original: Experiment,
    overrides: Mapping[str, Any],
    *,
    caller: Caller,
    key: str | None,
) -> tuple[Experiment, bool]:
    """Submit an experiment's spec, as it is now, with changes. Raises what `submit` raises, and InvalidFields.

    The copy of an older experiment has the current semantics, and its first event says what that changes.
    """
    fields = original.spec if isinstance(original.spec, dict) else {}  # damaged by hand
    body_hash = _hash({"clone": original.id, "overrides": dict(overrides)})
    if (known := store.submitted(key, owner=caller.name, body_hash=body_hash)) is not None:
        return known, False
    if original.probed_against is not None:
        raise InvalidField("", "it measures the cost of a variant and trains nothing: clone one of the trainings")
    spec = checked(apply_patch(fields, overrides))
    check(settings, spec)
    spec = with_digest(store.database, settings, spec)
    return store.submit(
        spec,
        owner=caller.name,
        key=key,
        body_hash=body_hash,
        cloned_from=original.id,
        message=not_comparable(original) or "",
        quota_disk=settings.quota_disk,
    )


def not_comparable(original: Experiment) -> str | None:
    """Why a copy of it has other numbers; None where it has not."""
    return None if original.semantics == CURRENT else NOT_COMPARABLE.format(original.semantics, CURRENT)


def check(settings: Settings, spec: ExperimentSpec) -> dict[str, Any]:
    """The spec's fields. Raises InvalidFields for what is not accepted, though what was stored before is still read."""
    fields = spec.model_dump(mode="json")
    check_tags(spec.tags)
    check_size(fields)
    check_text(fields)
    check_data_root(settings, spec)
    check_backbone(spec)
    check_folder(settings.data_roots, spec.data)
    return fields


def check_text(fields: Mapping[str, Any], pointer: str = "") -> None:
    """Raise InvalidField for characters that steer a terminal, end a line or turn the direction of text.

    A description may have several lines, and tabs.
    """
    for name, value in fields.items():
        place = f"{pointer}/{pointer_part(name)}"
        if isinstance(value, Mapping):
            check_text(value, place)
        for text in value if isinstance(value, list) else [value]:
            found = unprintable(text, lines=place == "/description") if isinstance(text, str) else None
            if found is not None:
                raise InvalidField(place, f"it holds {found}, which is no character to be shown; leave it out")


def check_size(fields: Mapping[str, Any]) -> None:
    """Raise InvalidField where a spec is larger than anybody needs: ticks and lists read what is stored."""
    size = len(json.dumps(fields))
    if size > LONGEST_SPEC_BYTES:
        raise InvalidField("", f"the spec has {size} bytes as JSON; at most {LONGEST_SPEC_BYTES} are stored")


def check_tags(tags: Mapping[str, str]) -> None:
    """Raise InvalidFields where they are not a user's to give."""
    if names := reserved(tags):
        raise InvalidFields([(f"/tags/{pointer_part(name)}", WHY_RESERVED) for name in names[:MOST_ERROR_ITEMS]])


def check_data_root(settings: Settings, spec: ExperimentSpec) -> None:
    """Raise InvalidField where the spec would read, or download, what the operator has not opened."""
    if spec.data.download and not settings.allow_download:
        raise InvalidField("/data/download", "the operator allows no downloads (CBAM_ALLOW_DOWNLOAD)")
    if spec.data.root is None:
        return
    roots, root = DataRoots.of(settings.data_roots), Path(spec.data.root)
    if not roots.hold(root):
        opened = ", ".join(map(str, settings.data_roots)) or "there are none"
        how = f"on your own machine `cbam up --restart --data-root {quote(str(root))}` opens it, else CBAM_DATA_ROOTS"
        raise InvalidField("/data/root", f"{root} is not below one of the data roots ({opened}); {how}")
    if (link := roots.first_link_out(root, spec.data.dataset)) is not None:
        raise InvalidField("/data/root", f"{link} is a link that leads out of the data roots; put the data there")


def change(store: ExperimentStore, row: Experiment, changes: Changes, *, version: int | None) -> Experiment:
    """Change priority, tags or description. Raises what `submit` raises of them, and VersionConflict."""
    changed = {name: value for name, value in vars(changes).items() if value is not None}
    check_tags(changes.tags or {})
    check_text(changed)
    if isinstance(row.spec, dict):  # else it was damaged by hand
        check_size(row.spec | changed)
    return store.change(row.id, changes, version=version)


def act(store: ExperimentStore, experiment_id: str, action: str, *, caller: Caller) -> Experiment:
    """Write down that the caller wants to cancel, pause, resume or retry. Asking twice is no error.

    Raises ExperimentNotFound, Forbidden (it is somebody else's), IllegalAction with the actions that the state
    allows, or PrunedExperiment.
    """
    require_change(caller, store.get(experiment_id).owner)  # an owner never changes
    if action == "retry":
        return store.requeue(experiment_id, by=caller.name)

    def choose(row: Experiment) -> Desired:
        wish = WISHES[action]
        was_asked = row.desired == wish and row.state not in TERMINAL - {State.CANCELLED}
        if not was_asked:
            require_allowed(row, action)
        return wish

    return store.set_desired(experiment_id, choose)
