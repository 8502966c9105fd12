"""`python -m antelope ...` is the same as `ml ...`: for `torchrun -m antelope`, batch jobs and debuggers."""

from __future__ import annotations

from .launcher.ml import main

if __name__ == "__main__":
    main()
