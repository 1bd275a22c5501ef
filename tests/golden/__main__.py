"""python -m tests.golden [ID...]: compute and write golden numbers of the given figures, or all."""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("ids", nargs="*", metavar="ID", help="figures (default: all)")
    parser.add_argument("--compare", action="store_true", help="show differences and write nothing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ZFNET_CACHE"] = f"{folder}/cache"
        from reproduce.core.discovery import discover
        from tests.golden.inputs import Inputs
        from tests.golden.numbers import Tolerance, compute, differences, read, write

        ids = options.ids or list(discover())
        unknown = [name for name in ids if name not in discover()]
        if unknown:
            print(
                f"no figure {', '.join(unknown)}; available: {', '.join(discover())}",
                file=sys.stderr,
            )
            return 2
        inputs = Inputs(Path(folder))
        for name in ids:
            start, cpu_start = time.perf_counter(), time.process_time()
            numbers = compute(name, inputs)
            seconds = f"{time.perf_counter() - start:.1f} s, {time.process_time() - cpu_start:.1f} s of CPU time"
            if options.compare:
                for rtol in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1):
                    lines = list(differences(read(name), numbers, Tolerance(rtol, rtol / 10)))
                    print(
                        f"{name}, tolerance {rtol:g}: {len(lines)} differences; {'; '.join(lines[:3])}"
                    )
                    if not lines:
                        break
            else:
                write(name, numbers)
            print(f"{name:<21}{numbers.get('verdict', 'cannot run'):<17}{seconds}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
