"""A coverage-guided fuzzer on each parser of bytes from outside. `python -m bench.fuzz`, after `pip install atheris`.

Each parser gets a process of its own for some seconds, beginning with its seeds. What breaks one is written to the folder of
crashers; put it, as small as it gets, into `tests/security/crashers` as `PARSER-anything`. The fuzzer is needed for this alone,
so it is no dependency.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

_LONGEST_BYTES = 4096
_SLOWEST_S = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=40, help="for each parser")
    parser.add_argument("--only", nargs="*", default=[], help="names of parsers; without it all")
    parser.add_argument("--crashers", type=Path, default=Path("crashers"))
    parser.add_argument("--inner", help=argparse.SUPPRESS)
    options, fuzzer = parser.parse_known_args()
    if options.inner:
        _fuzz(options.inner, fuzzer)
        return
    from tests.support.fuzz_targets import TARGETS

    options.crashers.mkdir(exist_ok=True)
    broken = [name for name in options.only or TARGETS if not _run(name, options.seconds, options.crashers)]
    print(f"broken: {', '.join(broken) or 'none'}")
    sys.exit(bool(broken))


def _run(name: str, seconds: int, crashers: Path) -> bool:
    from tests.support.fuzz_targets import TARGETS

    with tempfile.TemporaryDirectory(prefix="moodline-fuzz-") as folder:
        for number, seed in enumerate(TARGETS[name].seeds):
            (Path(folder) / f"seed{number}").write_bytes(seed)
        limits = [f"-max_total_time={seconds}", f"-max_len={_LONGEST_BYTES}", f"-timeout={_SLOWEST_S}", "-rss_limit_mb=1024"]
        command = [sys.executable, "-m", "bench.fuzz", "--inner", name, *limits, f"-artifact_prefix={crashers}/{name}-", folder]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    lines = done.stdout.splitlines()
    last = next((line for line in reversed(lines) if line.startswith(("Done", "#"))), "nothing was run")
    print(f"{name}: {'ok' if done.returncode == 0 else 'BROKEN'}; {last}", flush=True)
    if done.returncode:
        print("\n".join(lines[-40:]), flush=True)
    return done.returncode == 0


def _fuzz(name: str, arguments: list[str]) -> None:
    import atheris  # type: ignore[import-not-found]  # installed by who fuzzes

    # Only what is imported in here is followed: all modules of all libraries would take minutes.
    with atheris.instrument_imports(include=["moodline.services", "moodline.shared", "m3u8"]):
        from tests.support.fuzz_targets import TARGETS

    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
