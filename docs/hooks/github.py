"""What GitHub renders and MkDocs does not, turned into what both do.

Links that leave docs/ lead to a file on GitHub; the site has none, and shows its path. A fence may have words after its
language, as in `console stack`, by which the tests know how to run it.
"""

import posixpath
import re
from typing import Any

_FENCE = r"^```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^```$"
_LINK = r"\[(?P<text>[^\]]*)\]\((?P<target>\.\./[^)#]*)[^)]*\)"
_FENCE_OR_LINK = re.compile(f"{_FENCE}|{_LINK}", re.MULTILINE | re.DOTALL)


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Change the text of a page before it is rendered (an event of MkDocs)."""
    return for_the_site(markdown, page.file.src_uri)


def for_the_site(markdown: str, source: str) -> str:
    """The text of the page at `source`, a path below docs/, as the site can render it."""
    folder = posixpath.join("docs", posixpath.dirname(source))

    def replace(match: re.Match[str]) -> str:
        if match["target"] is None:
            return f"```{match['language']}\n{match['body']}```"
        path = posixpath.normpath(posixpath.join(folder, match["target"]))
        if path.startswith("docs/"):
            return match[0]
        text = match["text"]
        return text if text.strip("`/") == path else f"{text} (`{path}`)"

    return _FENCE_OR_LINK.sub(replace, markdown)
