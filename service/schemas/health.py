"""Whether the server can serve, and what it stands on."""

from pydantic import Field

from service.schemas.base import View


class ComponentHealth(View):
    """One part the service stands on."""

    ok: bool
    detail: str = ""


class Readiness(View):
    """Whether requests can be served, and what is degraded."""

    ready: bool
    degraded: list[str] = Field(description="parts that are away; experiments can still be submitted")
    components: dict[str, ComponentHealth]

    def without_details(self) -> "Readiness":
        """The same for those without a token: details hold addresses and the words of errors."""
        return self.model_copy(
            update={"components": {name: ComponentHealth(ok=c.ok) for name, c in self.components.items()}}
        )
