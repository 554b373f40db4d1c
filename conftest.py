"""Collect the Python of README.md and docs/ as tests, with Sybil.

Only `<!--- skip: next "the reason" -->` before a block skips it.
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
