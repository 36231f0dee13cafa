"""The cache of features keeps its limit, deletes the least recently used arrays, and detects damage."""

import os

import numpy as np
import pytest

from components.model.support.feature_cache import FeatureCache

ARRAY = np.arange(64 * 1024, dtype=np.float32)  # 0.25 MiB


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "features", limit_mib=0.8)


def names(cache):
    return sorted(path.stem for path in cache.folder.iterdir())


def test_least_recently_used_array_is_deleted(cache):
    for age, key in enumerate(("a", "b", "c")):
        cache.put(key, ARRAY)
        os.utime(cache.folder / f"{key}.npy", ns=(age, age))
    cache.get("a")
    cache.put("d", ARRAY)

    assert names(cache) == ["a", "c", "d"]


def test_array_above_the_limit_is_not_stored(cache, caplog):
    cache.put("a", ARRAY)
    cache.put("b", np.tile(ARRAY, 4))

    assert names(cache) == ["a"]
    assert "features of 1 MiB are not cached: tune.cache_mib is 0.8" in caplog.text


def test_limit_of_zero_only_reads(cache):
    cache.put("a", ARRAY)
    reader = FeatureCache(cache.folder, 0)
    reader.put("b", ARRAY)

    assert np.array_equal(reader.get("a"), ARRAY)
    assert names(cache) == ["a"]


DAMAGES = {
    "truncated": lambda content: content[:-40],
    "changed": lambda content: content[:200] + b"x" + content[201:],
    "empty": lambda content: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_array_is_deleted(cache, damage):
    cache.put("a", ARRAY)
    path = cache.folder / "a.npy"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))

    assert cache.get("a") is None
    assert names(cache) == []


def test_part_of_a_killed_process_counts_and_is_deleted(cache):
    cache.folder.mkdir()
    part = cache.folder / "z.1.partial"
    part.write_bytes(bytes(700_000))
    os.utime(part, ns=(0, 0))
    cache.put("a", ARRAY)

    assert names(cache) == ["a"]
