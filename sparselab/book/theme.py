"""What the theme leaves unsaid to readers who listen, or invalid, put right on the built pages."""

import re

MENDS = (
    # A name that differs from the words on a control: the words are the name.
    (r'(search-button-field [\w -]*") title="Search" aria-label="Search"', r"\1"),
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    (r' title="(?:Light|Dark|System Settings)"></i>', "></i>"),
    # A control or a part of the page without a name.
    (r'<summary>(<span class="toctree-toggle")', r'<summary aria-label="Pages of this part">\1'),
    (r'title="(Toggle \w+ sidebar)"', r'title="\1" aria-label="\1"'),
    (r'id="pst-primary-sidebar"', 'id="pst-primary-sidebar" role="region" aria-label="Site"'),
    # What HTML does not allow, or need.
    (r'<p (class="(?:collapsed|expanded) admonition-title")>([^<]*)</p>', r"<span \1>\2</span>"),
    (r'(<main [^>]*) role="main"', r"\1"),
)
_SLIDER_STYLE = re.compile(r'(?<=<div class="sparselab-explore">)\s*(<style>.*?</style>)', re.DOTALL)


def mended(html: str) -> str:
    """The page with its controls named as they read, and the style of its sliders once, in its head."""
    for theirs, ours in MENDS:
        html = re.sub(theirs, ours, html)
    styles = dict.fromkeys(_SLIDER_STYLE.findall(html))
    return _SLIDER_STYLE.sub("", html).replace("</head>", "".join(styles) + "</head>", 1)
