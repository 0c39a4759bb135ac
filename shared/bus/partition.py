"""Maps a key to its partition, which is also its shard."""

import zlib


def partition_for(key: bytes, partitions: int) -> int:
    """Return the partition of a key: CRC-32 modulo the number of partitions, as librdkafka's `consistent` partitioner."""
    return zlib.crc32(key) % partitions
