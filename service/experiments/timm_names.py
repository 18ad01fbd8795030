"""The names of timm's networks, read from the sources of the timm that is installed: loading it would load torch."""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_NETWORK = re.compile(r"^@register_model\s*\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
_FORMER_NAMES = re.compile(r"^register_model_deprecations\(__name__, \{(.*?)^\}\)", re.MULTILINE | re.DOTALL)
_KEY = re.compile(r"""^\s*['"]([\w.]+)['"]\s*:""", re.MULTILINE)


@cache
def timm_names() -> frozenset[str]:
    """The names that timm builds, its former ones among them, without the tags of weights.

    Empty where no timm is installed here: then nothing is known about its names.
    """
    timm = find_spec("timm")
    names: set[str] = set()
    for folder in (timm.submodule_search_locations or ()) if timm else ():
        for source in Path(folder, "models").glob("*.py"):
            text = source.read_text(encoding="utf-8")
            names.update(_NETWORK.findall(text))
            for former in _FORMER_NAMES.findall(text):
                names.update(_KEY.findall(former))
    return frozenset(names)
