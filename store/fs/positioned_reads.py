"""Many positioned reads in one call, which holds Python's lock for none of them.

With os.preadv a thread gives the lock away and takes it back for each crop, and two threads that read are slower
than one. So the loop around the system call is machine code, made here from LLVM's language.
"""

import ctypes
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import binding  # type: ignore[import-untyped]
from numpy.typing import NDArray

LOOP = """
declare i64 @pread(i32, ptr, i64, i64)

define i64 @read_ranges(i64 %count, ptr %files, ptr %offsets, ptr %sizes, ptr %targets) {
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %done ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %body, label %end
body:
  %file.at = getelementptr i32, ptr %files, i64 %i
  %offset.at = getelementptr i64, ptr %offsets, i64 %i
  %size.at = getelementptr i64, ptr %sizes, i64 %i
  %target.at = getelementptr ptr, ptr %targets, i64 %i
  %file = load i32, ptr %file.at
  %offset = load i64, ptr %offset.at
  %size = load i64, ptr %size.at
  %target = load ptr, ptr %target.at
  %read = call i64 @pread(i32 %file, ptr %target, i64 %size, i64 %offset)
  %whole = icmp eq i64 %read, %size
  br i1 %whole, label %done, label %end
done:
  %next = add i64 %i, 1
  br label %head
end:
  ret i64 %i
}
"""

_engines: list[Any] = []  # they own the code


class OpenFile:
    """A file that is closed when its last reader has let go of it."""

    def __init__(self, path: str) -> None:
        self.handle = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)


def read_ranges(
    files_R: NDArray[np.int32],
    offset_R: NDArray[np.int64],
    size_R: NDArray[np.int64],
    address_R: NDArray[np.int64],
) -> int:
    """Read ranges of open files to addresses in memory, in order, up to the first that is not read whole.

    Return the number of ranges that were read.
    """
    arrays = (files_R, offset_R, size_R, address_R)
    assert [it.dtype for it in arrays] == [np.int32, np.int64, np.int64, np.int64]
    assert all(it.flags.c_contiguous and it.shape == files_R.shape for it in arrays)
    return _compiled_loop()(len(files_R), *(it.ctypes.data for it in arrays))


@cache
def _compiled_loop() -> Callable[..., int]:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple().create_target_machine(jit=True)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(LOOP), target)
    engine.finalize_object()
    _engines.append(engine)
    prototype = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, *[ctypes.c_void_p] * 4)
    return prototype(engine.get_function_address("read_ranges"))
