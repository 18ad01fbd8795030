"""The extra of cbam-lab that a command needs. Without any there are the client, the specs and this command line."""

from importlib.util import find_spec

from typer import Context
from typer.core import TyperGroup

from service.errors import MissingExtra

OURS = {"cbam_core", "workers", "service"}
BY_COMMAND = {
    "up": ("all", "the service and its workers"),
    "demo": ("all", "the service and its workers"),
    "doctor": ("all", "the service and its workers"),
    "down": ("service", "the service"),
    "backup": ("service", "the service"),
    "restore": ("service", "the service"),
    "token": ("service", "the service to work on its database"),
    "train": ("worker", "PyTorch and the training code"),
    "export": ("worker", "PyTorch"),
}
BY_MODULE = {"psycopg": ("postgres", "the driver of PostgreSQL")}  # what a command needs with some settings only


class Commands(TyperGroup):
    """The commands of `cbam`. Where the packages of one are not installed, it raises MissingExtra."""

    def invoke(self, ctx: Context) -> object:  # type: ignore[override]
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            module = (error.name or "").partition(".")[0]
            command = ctx.invoked_subcommand or ""
            if module in OURS or not (module in BY_MODULE or command in BY_COMMAND):
                raise
            extra, what = BY_MODULE.get(module) or BY_COMMAND[command]
            raise MissingExtra(
                f"`cbam {command}` needs {what}: pip install 'cbam-lab[{extra}]' (there is no {module})"
            ) from error


def need_torch() -> None:
    """Raise ModuleNotFoundError without PyTorch: the workers of a local stack, other processes, import it later."""
    if find_spec("torch") is None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
