"""Plain Python: nothing of rainbow_prefect is imported here."""

import re
from collections import Counter


def count(reviews):
    """The words of one slice of the reviews, each with how often it is there."""
    words = Counter()
    for review in reviews:
        words.update(re.findall(r"[a-z]+", review["text"].lower()))
    print(f"{len(reviews)} reviews, {sum(words.values())} words")
    return dict(words)


def merge(counts):
    """The sum of all slices: how many words, and the five that are there most often."""
    words = Counter()
    for one in counts:
        words.update(one)
    top = sorted(words.items(), key=lambda item: (-item[1], item[0]))[:5]
    return {"words": sum(words.values()), "top": [{"word": word, "times": times} for word, times in top]}
