"""The Python of the pages runs: pytest collects README.md and docs/ with Sybil.

A block is skipped after `<!--- skip: next "the reason" -->` only.
"""

import doctest

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

pytest_collect_file = Sybil(
    parsers=[
        PythonCodeBlockParser(
            doctest_optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        ),
        SkipParser(),
    ],
    patterns=["README.md", "docs/*.md", "docs/guide/*.md"],
).pytest()
