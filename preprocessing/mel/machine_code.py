"""Machine code that numba compiled, kept for later processes, which load it without numba.

To import numba and to load from its own cache takes two seconds in each process that decodes; this takes 0.1.
"""

import hashlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from llvmlite import binding  # type: ignore[import-untyped]

CompiledFunction = Callable[..., None]
DIGEST_BYTES = 32  # of SHA-256, before the code

_engines: list[Any] = []  # they own the code of the functions that were loaded


def load_or_compile(
    compile_function: Callable[[], Any], prototype: Any, *, sources: Sequence[Path]
) -> CompiledFunction:
    """Return a function: the kept machine code if there is some for these sources and this machine, else compile it.

    `compile_function` returns what `numba.cfunc` does. The code is kept beside the first source's
    bytecode (Python's pycache_prefix moves both), else in the user's cache folder, else not at all.
    """
    files = [folder / f"{sources[0].stem}-{_key(sources)}.o" for folder in _folders(sources[0])]
    found = next(filter(None, map(_read, files)), None)
    if found is None:
        compiled = compile_function()
        code = _generate(compiled.inspect_llvm())
        if code is None:
            return compiled.ctypes  # type: ignore[no-any-return]
        found = compiled.native_name, code
        _keep(files, found)
    return _load(*found, prototype)


def _key(sources: Sequence[Path]) -> str:
    """Identify what the machine code depends on: the sources, the compilers and the kind of machine."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.read_bytes())
    machine = f"{binding.get_host_cpu_name()} {binding.get_host_cpu_features().flatten()}"
    digest.update(f"{version('numba')} {version('llvmlite')} {machine}".encode())
    return digest.hexdigest()[:16]


def _folders(source: Path) -> list[Path]:
    folders = [Path(importlib.util.cache_from_source(str(source))).parent]
    with suppress(RuntimeError):  # no home folder
        folders.append(Path.home() / ".cache" / "spectrogram-one")
    return folders


def _read(file: Path) -> tuple[str, bytes] | None:
    """Read the name and the code of a function; None if they are not there, or not whole."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    content = data[DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != data[:DIGEST_BYTES]:
        return None  # to load half of the code would end this process
    name, _, code = content.partition(b"\n")
    return name.decode(), code


def _keep(files: Sequence[Path], function: tuple[str, bytes]) -> None:
    """Write the name and the code of a function to the first file that can be written."""
    content = function[0].encode() + b"\n" + function[1]
    for file in files:
        draft = file.with_name(f"{file.name}.{uuid4().hex}.part")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(hashlib.sha256(content).digest() + content)
            os.replace(draft, file)
        except OSError:
            with suppress(OSError):
                draft.unlink()
        else:
            return


def _generate(llvm_ir: str) -> bytes | None:
    """Generate machine code for this machine; None if it calls functions that only numba can supply."""
    _initialize()
    module = binding.parse_assembly(llvm_ir)
    external = [it.name for it in module.functions if it.is_declaration and not it.name.startswith("llvm.")]
    if external:
        return None
    code: bytes = _target_machine().emit_object(module)
    return code


def _load(name: str, code: bytes, prototype: Any) -> CompiledFunction:
    _initialize()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _target_machine())
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    function: CompiledFunction = prototype(engine.get_function_address(name))
    return function


def _initialize() -> None:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()


def _target_machine() -> Any:
    target = binding.Target.from_default_triple()
    return target.create_target_machine(
        cpu=binding.get_host_cpu_name(),
        features=binding.get_host_cpu_features().flatten(),
        opt=3,
        codemodel="jitdefault",
        jit=True,
    )
