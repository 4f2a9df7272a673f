"""Compiled loops: how they are compiled, and memory by its address inside them.

Three facts that all compiled loops of this package rest on:

- numba adds a wrap-around branch to every signed index, since `a[-1]` is the last element. An
  unsigned index (`np.uint64(k)`) has none, which took a third off the inner loop of `transpose`.
- A loop compiles to vector instructions only if no step branches and no two arrays may overlap.
- A read from memory takes longer than a hundred additions, but many can be on their way at once:
  `prefetch` starts the next one before this one is used.
"""

import atexit
import logging
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import Signature
from numba.extending import intrinsic

logger = logging.getLogger(__name__)


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a loop on its first call, keep it for later runs, and run it beside other threads."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError as error:
        if "no locator" not in str(error):
            raise
        _cache_in_a_temporary_folder()
        return numba.njit(cache=True, nogil=True)(function)


@cache
def _cache_in_a_temporary_folder() -> None:
    """For this process, where a read-only installation and no home leave none for numba.

    Libraries that compile, too, then find it as well. A folder that outlived the process could be
    another user's, who would put code there.
    """
    folder = tempfile.mkdtemp(prefix="numba-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    numba.config.CACHE_DIR = folder
    logger.warning(
        "compiled code cannot be kept, so every process compiles again for some seconds: set "
        "NUMBA_CACHE_DIR to a folder that can be written"
    )


@intrinsic
def at_address(typing_context: Any, address: Any) -> tuple[Signature, Any]:
    """In compiled code: an integer address as a pointer, for `numba.carray`."""
    del typing_context

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(address), generate


@intrinsic
def copy_bytes(typing_context: Any, target: Any, source: Any, n: Any) -> tuple[Signature, Any]:
    """In compiled code: copy `n` bytes between integer addresses, by the system's memcpy."""
    del typing_context

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del signature
        byte = ir.IntType(8).as_pointer()
        to, from_ = (builder.inttoptr(address, byte) for address in arguments[:2])
        cgutils.raw_memcpy(builder, to, from_, arguments[2], 1)
        return context.get_dummy_value()

    return types.void(target, source, n), generate


@intrinsic
def zero_bytes(typing_context: Any, target: Any, n: Any) -> tuple[Signature, Any]:
    """In compiled code: set `n` bytes at an integer address to 0, by the system's memset."""
    del typing_context

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del signature
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        cgutils.memset(builder, pointer, arguments[1], 0)
        return context.get_dummy_value()

    return types.void(target, n), generate


@intrinsic
def load_eight(typing_context: Any, address: Any) -> tuple[Signature, Any]:
    """In compiled code: the eight bytes at an integer address as one uint64, the first lowest."""
    del typing_context

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        return builder.load(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()), align=1)

    return types.uint64(address), generate


@intrinsic
def count_trailing_zeros(typing_context: Any, bits: Any) -> tuple[Signature, Any]:
    """In compiled code: the place of the lowest bit that is set; `bits` is a uint64 above 0."""
    del typing_context

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        word, flag = ir.IntType(64), ir.IntType(1)
        kind = ir.FunctionType(word, [word, flag])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.cttz.i64")
        return builder.call(function, [arguments[0], flag(1)])

    return types.uint64(types.uint64), generate


@intrinsic
def prefetch(typing_context: Any, address: Any) -> tuple[Signature, Any]:
    """In compiled code: have the processor fetch what lies at an integer address, and go on."""
    del typing_context

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del signature
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        to_read = word(0)
        keep_in_caches = word(3)
        is_data = word(1)
        pointer = builder.inttoptr(arguments[0], byte)
        builder.call(function, [pointer, to_read, keep_in_caches, is_data])
        return context.get_dummy_value()

    return types.void(address), generate


@intrinsic
def add_eight(typing_context: Any, target: Any, source: Any) -> tuple[Signature, Any]:
    """In compiled code: add eight float64 at an integer address to eight at another, as a vector.

    A loop over them is not made into one: the compiler cannot know that the two do not overlap.
    """
    del typing_context

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del signature
        vector = ir.VectorType(ir.DoubleType(), 8).as_pointer()
        to, from_ = (builder.inttoptr(address, vector) for address in arguments)
        total = builder.fadd(builder.load(to, align=8), builder.load(from_, align=8))
        builder.store(total, to, align=8)
        return context.get_dummy_value()

    return types.void(target, source), generate


@intrinsic
def translate_sixteen(
    typing_context: Any, target: Any, source: Any, table: Any
) -> tuple[Signature, Any]:
    """In compiled code: 16 uint16 at an address become bytes of a table of 16, all at once.

    Returns which of the 16 were above 15, a bit each from the lowest: theirs is the byte of their
    lowest four bits.
    """
    del typing_context

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del signature
        narrow, wide = ir.VectorType(ir.IntType(8), 16), ir.VectorType(ir.IntType(16), 16)
        to, from_, by = (
            builder.inttoptr(address, kind.as_pointer())
            for address, kind in zip(arguments, (narrow, wide, narrow), strict=True)
        )
        values, entries = builder.load(from_, align=2), builder.load(by, align=1)
        most = ir.Constant(wide, [15] * 16)
        places = builder.trunc(builder.and_(values, most), narrow)
        builder.store(_choose_bytes(context, builder, entries, places), to, align=1)
        are_above = builder.bitcast(builder.icmp_unsigned(">", values, most), ir.IntType(16))
        return builder.zext(are_above, ir.IntType(64))

    return types.uint64(target, source, table), generate


def _choose_bytes(context: Any, builder: Any, entries: Any, places: Any) -> Any:
    """Sixteen of sixteen bytes, by one instruction where the processor compiled for has it."""
    kind = entries.type
    triple, _, features = context.codegen().magic_tuple()
    for processor, feature, instruction in _SHUFFLES:
        if triple.startswith(processor) and feature in features.split(","):
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(kind, [kind, kind]), instruction
            )
            return builder.call(function, [entries, places])
    chosen = ir.Constant(kind, ir.Undefined)
    for k in range(16):
        lane = ir.IntType(32)(k)
        place = builder.zext(builder.extract_element(places, lane), ir.IntType(32))
        chosen = builder.insert_element(chosen, builder.extract_element(entries, place), lane)
    return chosen


_SHUFFLES = (
    ("x86_64", "+ssse3", "llvm.x86.ssse3.pshuf.b.128"),
    ("aarch64", "+neon", "llvm.aarch64.neon.tbl1.v16i8"),
    ("arm64", "+neon", "llvm.aarch64.neon.tbl1.v16i8"),
)
"""Processors' names in LLVM, what they must have, and their shuffle of bytes."""
