"""Build stand-ins for the CUDA libraries, so that onnxruntime's real CUDA provider runs on a machine without a GPU.

Its functions are those that the installed provider needs; one that is not written in the C files succeeds and does
nothing.
"""

import re
import shutil
import subprocess
from pathlib import Path

import onnxruntime as ort

HERE = Path(__file__).parent
PROVIDER = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
VERSIONED = ("libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13")
SOURCES = {
    "libcuda.so.1": "driver.c",
    "libcudart.so.13": "cudart.c",
    "libcublas.so.13": "cublas.c",
    "libcublasLt.so.13": "cublaslt.c",
    "libcudnn.so.9": "cudnn.c",
    "libcurand.so.10": None,
}
"""C file by library."""
CREATES = re.compile(r"(cudnn|curand)Create\w*")
"""Functions that put a handle where their first argument points."""


def problem() -> str | None:
    """Why the stand-ins cannot be built here."""
    if not PROVIDER.exists():
        return "onnxruntime has no CUDA provider"
    if not ort.cuda_version.startswith("13."):
        return f"the stand-ins are for CUDA 13, not {ort.cuda_version}"
    missing = [tool for tool in ("gcc", "nm") if shutil.which(tool) is None]
    return f"no {' and no '.join(missing)} to build the stand-ins with" if missing else None


def build(folder: Path) -> Path:
    """Build all libraries into `folder`."""
    core = folder / "libstubcore.so"
    _compile(core, [HERE / "core.c", HERE / "kernels.c"], ["-lpthread", "-lm"])
    needed = _needed_functions()
    for library, source in SOURCES.items():
        written = (HERE / source).read_text() if source else ""
        defined = set(re.findall(r"^(?!static)\w[\w *]*?\b(\w+)\(", written, re.MULTILINE))
        rest = folder / f"{library}.c"
        rest.write_text(
            "#include <stdlib.h>\n"
            + "".join(
                f"int {name}(void **new) {{ *new = calloc(1, 64); return 0; }}\n"
                if CREATES.fullmatch(name)
                else f"int {name}(void) {{ return 0; }}\n"
                for name in sorted(needed[library] - defined)
            )
        )
        flags = [str(core), "-Wl,-rpath,$ORIGIN", f"-Wl,-soname,{library}"]
        if library in VERSIONED:
            versions = folder / f"{library}.map"
            versions.write_text(f"{library} {{ global: *; }};\n")
            flags.append(f"-Wl,--version-script={versions}")
        _compile(folder / library, [rest, *([HERE / source] if source else [])], flags)
    return folder


def _needed_functions() -> dict[str, set[str]]:
    """By library; cuDNN's are looked up by name when the provider starts."""
    symbols = subprocess.run(["nm", "-D", "--undefined-only", PROVIDER], capture_output=True, text=True, check=True)
    needed: dict[str, set[str]] = {library: set() for library in SOURCES}
    for line in symbols.stdout.splitlines():
        name, _, version = line.split()[-1].partition("@")
        if version in needed:
            needed[version].add(name)
        elif name.startswith("curand"):
            needed["libcurand.so.10"].add(name)
        elif re.match(r"cu[A-Z]", name):
            needed["libcuda.so.1"].add(name)
    names = re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", PROVIDER.read_bytes())
    needed["libcudnn.so.9"] = {name.decode() for name in names if not name.endswith(b"_t")}
    needed["libcudart.so.13"] |= {"cudaHostRegister", "cudaHostUnregister", "cudaDeviceGetDefaultMemPool"}
    return needed


def _compile(library: Path, sources: list[Path], flags: list[str]) -> None:
    command = ["gcc", "-shared", "-fPIC", "-O1", "-w", f"-I{HERE}", "-o", library, *sources, *flags]
    subprocess.run(command, check=True)
