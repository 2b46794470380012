"""Near-duplicate texts: candidates by MinHash and banding, then compared exactly."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from datasketch import MinHash, MinHashLSH

THRESHOLD = 0.7
"""Of near-duplicates: Jaccard similarity of their shingles, at least this on both sides of a pair.

Between STS-B and MRPC, read by eye: from 0.7 on 14 of 14 matches beyond the normalised ones are the same sentences
edited, from 0.5 to 0.6 half are other days of one stock market report. Within STS-B, captions that
differ in one word reach 0.75.
"""
SHINGLE = 5
"""Characters of a shingle, blanks included: one edited word changes few of them, whatever the length of the words."""
PERMUTATIONS = 128
WEIGHTS = (0.01, 0.99)
"""Of false and of missed candidates in cutting the permutations into bands; false ones are sorted out afterwards."""


class NearTexts:
    """Near-duplicates among some texts, through bands of MinHash values."""

    def __init__(self, texts: Iterable[str], threshold: float) -> None:
        self.threshold = threshold
        self.shingles = {text: _shingles(text) for text in sorted(texts)}
        self.lsh = MinHashLSH(min(threshold, 0.9), PERMUTATIONS, WEIGHTS)  # beyond, one band is left: refused
        for text, minhash in zip(self.shingles, _minhashes(self.shingles.values())):
            self.lsh.insert(text, minhash, check_duplication=False)

    def near(self, texts: Iterable[str]) -> dict[str, list[str]]:
        """The texts that have near-duplicates here, and these."""
        texts = sorted(texts)
        found = {}
        for text, minhash in zip(texts, _minhashes(map(_shingles, texts))):
            close = self.lsh.query(minhash)
            if close:
                mine = _shingles(text)
                alike = [t for t in close if _jaccard(mine, self.shingles[t]) >= self.threshold]
                if alike:
                    found[text] = alike
        return found


def _shingles(text: str) -> set[str]:
    return {text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1))}


def _jaccard(a: set[str], b: set[str]) -> float:
    both = len(a & b)
    return both / (len(a) + len(b) - both)


def _minhashes(shingles: Iterable[set[str]]) -> Iterator[MinHash]:
    coded = ([shingle.encode() for shingle in row] for row in shingles)
    return MinHash.generator(coded, num_perm=PERMUTATIONS, seed=1, hashfunc=zlib.crc32)
