"""The client's calls about what there is: the cluster, backbones, attention modules, datasets, templates."""

from collections.abc import Sequence
from typing import Any, Literal

from service.client.transport import Transport, path
from service.domain.pruning import PruneScope
from service.schemas.bulk import BulkAnswer
from service.schemas.catalog import AttentionList, BackboneList, DatasetList, TemplateList, TemplateView
from service.schemas.cluster import ClusterInfo
from service.schemas.pruning import PruneAnswer


class CatalogueCalls:
    """Part of `Client`."""

    wire: Transport

    def cluster(self) -> ClusterInfo:
        """What the cluster has, as the leading dispatcher last saw it."""
        return self.wire.get(ClusterInfo, "/v1/cluster")

    def models(self) -> BackboneList:
        """The backbones that a spec may name."""
        return self.wire.get(BackboneList, "/v1/models")

    def attentions(self) -> AttentionList:
        """The kinds of attention, with their options."""
        return self.wire.get(AttentionList, "/v1/attentions")

    def datasets(self) -> DatasetList:
        """The datasets, and the folders that they may be read from."""
        return self.wire.get(DatasetList, "/v1/datasets")

    def templates(self) -> Sequence[TemplateView]:
        """The specs that come with the server."""
        return self.wire.get(TemplateList, "/v1/templates").items

    def template(self, name: str) -> TemplateView:
        """One of them."""
        return self.wire.get(TemplateView, path("/v1/templates", *name.split("/")))

    def bulk(
        self,
        action: Literal["cancel", "delete"],
        *,
        ids: Sequence[str] | None = None,
        where: dict[str, Any] | None = None,
        dry_run: bool = False,
    ) -> BulkAnswer:
        """Cancel or delete many at once: those named, or up to 200 that a filter finds. Look at what came of each."""
        wanted = {"ids": None if ids is None else list(ids), "filter": where, "dry_run": dry_run}
        body = {name: value for name, value in wanted.items() if value is not None}
        return self.wire.post(BulkAnswer, f"/v1/bulk/{action}", again=True, json=body)

    def prune(
        self,
        *,
        ids: Sequence[str] | None = None,
        where: dict[str, Any] | None = None,
        what: PruneScope = PruneScope.CHECKPOINTS,
        dry_run: bool = True,
        cursor: str | None = None,
    ) -> PruneAnswer:
        """Remove checkpoints, or all files, of ended experiments: those named, or up to 200 that a filter finds.

        The longest ended come first. A dry run, unless that is denied, only says which, and how many bytes.
        """
        wanted = {
            "ids": None if ids is None else list(ids),
            "filter": where,
            "what": what,
            "dry_run": dry_run,
            "cursor": cursor,
        }
        body = {name: value for name, value in wanted.items() if value is not None}
        return self.wire.post(PruneAnswer, "/v1/bulk/prune", again=True, json=body)
