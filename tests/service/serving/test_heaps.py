"""What requests have freed goes back to the system."""

import ctypes
import subprocess
import sys

import pytest

# 16 threads, each with 30 blocks of 1 MiB, which all free before any ends. The library
# takes such blocks from its heaps as soon as one of 32 MiB has been freed.
PROGRAM = """
import ctypes, os, sys, threading
from pathlib import Path

os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
from service.serving import heaps

THREADS, BLOCKS, SIZE = 16, 30, 2**20
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
all_have, all_freed = threading.Barrier(THREADS), threading.Barrier(THREADS)

def resident():
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")

def use():
    blocks = [ctypes.c_void_p(library.malloc(SIZE)) for _ in range(BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, SIZE)
    all_have.wait()
    for block in blocks:
        library.free(block)
    all_freed.wait()

heaps.limit()
library.free(ctypes.c_void_p(library.malloc(2**25 - 2**16)))
before = resident()
threads = [threading.Thread(target=use) for _ in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
heaps.Trimmer().freed(THREADS * BLOCKS * SIZE)
print(resident() - before, heaps.MOST_KEPT)
"""


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not GNU's C library"
)
def test_what_many_threads_have_freed_is_given_back() -> None:
    output = subprocess.check_output([sys.executable, "-c", PROGRAM], text=True)
    kept, most = map(int, output.split())
    assert kept < most
